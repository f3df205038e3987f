"""STARTTLS under attack, in pass-through: the cases of the EAST toolkit ("Why TLS Is Better Without STARTTLS"), on
sockets, byte for byte.

An attacker on the way can change every byte before TLS.  The proxy cannot prevent that, but it must add nothing to it:
what a server says is forwarded as it is, a code means what it means, and bytes on the wrong side of the 220 are used
by nobody.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.lab import Lab, case, open_lab, tls_contexts
from tests.scripted import BANNER, BROKEN, GOOD, Mailbox, Peer, Script, greet, nameless

FIXED = b"250-mail.example\r\n250-STARTTLS\r\n250-SIZE 10240000\r\n250 HELP\r\n"
READY = b"220 2.0.0 ready\r\n"
MODES = ("repair", "observe", "off")

# Codes where they do not belong.
ODD = [
    *(f"{code} odd\r\n".encode() for code in (
        200, 211, 214, 221, 235, 251, 252, 299, 334, 354, 399, 421, 432, 450, 451, 452, 454, 455, 500, 501, 502, 503,
        504, 521, 530, 534, 535, 538, 550, 551, 552, 553, 554, 555, 599,
    )),
    b"334 dGVzdA==\r\n",
    b"354-more\r\n354 than one\r\n",
    b"454-4.7.0 TLS\r\n454 4.7.0 not available\r\n",
    b"502\r\n",
    b"502 with a bare LF\n",
]  # fmt: skip
# What is no reply at all, and ends none.
NONSENSE = [
    b"000 odd\r\n",
    b"100 odd\r\n",
    b"600 odd\r\n",
    b"999 odd\r\n",
    b"nonsense\r\n",
    b"25\r\n",
    b"2200 ready\r\n",
    b"* OK IMAP4rev1\r\n",
    b"+OK pop\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"\x16\x03\x01 220 x\r\n",
]
SPELLINGS = [
    b"STARTTLS\r\n",
    b"starttls\r\n",
    b"StartTls\r\n",
    b"STARTTLS\n",
    b"STARTTLS \r\n",
    b"STARTTLS foo\r\n",
    b"STARTTLS\tfoo bar\r\n",
    b" STARTTLS\r\n",
    b"\tSTARTTLS\r\n",
]


def peace(peer: Peer) -> None:
    raise AssertionError("no script was set")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    trust = {"trusted_proxies": ["127.0.0.1/32"]}  # no question about XCLIENT on connections of its own
    with open_lab({mode: case(peace, repair={"mode": mode}, **trust) for mode in MODES}) as lab:
        yield lab


def serve(lab: Lab, script: Script, mode: str = "repair") -> Peer:
    """A client of a server that does this."""
    lab.server(mode).script = script
    return lab.connect(mode)


def last_end(lab: Lab, mode: str = "repair") -> dict[str, object]:
    """The end of the last session of that route; its server has ended, too."""
    lab.server(mode).settle()
    begun = lab.running.of("session-start", route=mode)[-1]
    return lab.running.wait_for("session-end", session=begun["session"])


def events_of_last(lab: Lab, event: str, mode: str = "repair") -> int:
    begun = lab.running.of("session-start", route=mode)[-1]
    return len(lab.running.of(event, session=begun["session"]))


def answers(*replies: bytes, seen: list[bytes] | None = None, wait: bool = True) -> Script:
    """The banner first, then each reply to one line; what else comes is kept."""

    def script(peer: Peer) -> None:
        peer.send(replies[0])
        for reply in replies[1:]:
            line = peer.line()
            if seen is not None:
                seen.append(line)
            peer.send(reply)
        if wait:
            rest = peer.rest(20)
            if seen is not None:
                seen.append(rest)

    return script


# -- odd codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_reply_passes_unchanged_and_starts_nothing(lab: Lab, odd: bytes) -> None:
    script = answers(BANNER, BROKEN, odd, odd, odd, odd, BROKEN)
    with serve(lab, script) as client:
        assert greet(client) == FIXED
        for command in (b"HELO a", b"STARTTLS", b"RSET", b"QUIT"):
            client.send(command + b"\r\n")
            assert client.take(len(odd)) == odd
        # Still read as commands and replies: an EHLO reply is repaired.
        assert client.say(b"EHLO a") == FIXED
        assert client.now(0.05) == b""
    assert last_end(lab)["tls"] == "none"


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_greeting_and_reply_to_ehlo_pass_unchanged(lab: Lab, odd: bytes) -> None:
    with serve(lab, answers(odd, odd, BROKEN)) as client:
        assert client.take(len(odd)) == odd
        client.send(b"EHLO a\r\n")
        assert client.take(len(odd)) == odd
        assert client.say(b"EHLO b") == FIXED


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_nonsense_passes_and_ends_nothing(lab: Lab, nonsense: bytes) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.send(nonsense + BANNER)
        for reply in (BROKEN, nonsense + b"250 well\r\n", nonsense + b"502 no\r\n", BROKEN):
            seen.append(peer.line())
            peer.send(reply)
        seen.append(peer.rest())

    with serve(lab, script) as client:
        assert client.take(len(nonsense)) == nonsense
        assert greet(client) == FIXED
        client.send(b"RSET\r\n")
        assert client.take(len(nonsense)) == nonsense
        assert client.reply() == b"250 well\r\n"
        client.send(b"STARTTLS\r\n")
        assert client.take(len(nonsense)) == nonsense
        assert client.reply() == b"502 no\r\n"
        assert client.say(b"EHLO b") == FIXED
    assert last_end(lab)["tls"] == "none"


def test_220_to_ehlo_and_helo_is_complete_in_itself_and_starts_nothing(lab: Lab) -> None:
    with serve(lab, answers(BANNER, READY, READY, BROKEN)) as client:
        assert greet(client) == READY
        assert client.say(b"HELO a") == READY
        assert client.say(b"EHLO a") == FIXED
    assert last_end(lab)["tls"] == "none"


def test_220_that_nobody_asked_for_ends_the_session_with_470(lab: Lab) -> None:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(GOOD, READY)
        assert peer.rest() == b""

    with serve(lab, script) as client:
        assert greet(client) == GOOD
        assert client.rest().startswith(b"421 4.7.0 ehlo-proxy route repair: ")
    assert last_end(lab)["outcome"] == "injection"


# -- STARTTLS hidden, refused, answered otherwise --------------------------------------------------------------------


@pytest.mark.parametrize(
    "hidden",
    [
        b"250-mail.example\r\n250-SIZE 10240000\r\n250 HELP\r\n",
        b"250-mail.example\r\n250-XXXXXXXA\r\n250 HELP\r\n",
        b"250-mail.example\r\n250-STARTTLSX\r\n250 HELP\r\n",
        b"250 mail.example\r\n",
    ],
    ids=["absent", "masked", "another", "alone"],
)
def test_starttls_that_is_hidden_stays_hidden(lab: Lab, hidden: bytes) -> None:
    with serve(lab, answers(BANNER, hidden)) as client:
        assert greet(client) == hidden


def test_starttls_that_is_refused_leaves_the_session_as_it_was(lab: Lab) -> None:
    refusal = b"454 4.7.0 TLS not available\r\n"
    mailbox = Mailbox()

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(BROKEN)
        peer.line()
        peer.send(refusal)
        mailbox.banner = b""
        mailbox(peer)

    with serve(lab, script) as client:
        assert greet(client) == FIXED
        assert client.say(b"STARTTLS") == refusal
        for command, reply in ((b"MAIL FROM:<>", b"250"), (b"RCPT TO:<b@x>", b"250"), (b"DATA", b"354")):
            assert client.say(command)[:3] == reply
        client.send(b"hi\r\n.\r\n")
        assert client.reply() == b"250 2.0.0 taken\r\n"
        assert client.say(b"QUIT") == b"221 bye\r\n"
    end = last_end(lab)
    assert end["outcome"] == "completed"
    assert end["tls"] == "none"
    assert lab.running.of("starttls", session=end["session"])[0]["result"] == "refused"


def test_354_to_starttls_is_no_tls_and_no_message(lab: Lab) -> None:
    with serve(lab, answers(BANNER, BROKEN, b"354 go on\r\n", BROKEN, READY)) as client:
        greet(client)
        assert client.say(b"STARTTLS") == b"354 go on\r\n"
        assert client.say(b"EHLO again") == FIXED
        assert client.say(b"STARTTLS") == READY


# -- response injection ----------------------------------------------------------------------------------------------

INJECTED = {
    "a line": b"250 injected\r\n",
    "an EHLO reply": b"250-evil.example\r\n250 AUTH PLAIN\r\n",
    "a piece of a line": b"250 inj",
    "one byte": b"2",
    "LF": b"\n",
    "TLS records": b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("injected", INJECTED.values(), ids=list(INJECTED))
@pytest.mark.parametrize("when", ["the same segment", "the next", "later"])
def test_bytes_behind_the_servers_220_reach_nobody(lab: Lab, mode: str, injected: bytes, when: str) -> None:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(GOOD)
        peer.line()
        if when == "the same segment":
            peer.send(READY + injected)
        else:
            peer.send(READY, injected, gap=0 if when == "the next" else 0.1)
        assert peer.rest() == b""

    with serve(lab, script, mode) as client:
        greet(client)
        client.send(b"STARTTLS\r\n")
        got = nameless(client.rest())
        # In place of the 220 where that has not left yet; behind it nothing may be said.
        refusal = b"bytes of the server behind its 220 to STARTTLS\r\n"
        if when == "the same segment":
            assert got.startswith(b"421 4.7.0 ehlo-proxy route ")
            assert got.endswith(refusal)
        elif when == "later":
            assert got == READY
        else:
            assert got == READY or (got.startswith(b"421 4.7.0 ehlo-proxy route ") and got.endswith(refusal))
    assert last_end(lab, mode)["outcome"] == "injection"
    assert events_of_last(lab, "starttls-response-injection", mode) == 1


def test_injection_behind_a_220_of_many_lines(lab: Lab) -> None:
    with serve(lab, answers(BANNER, GOOD, b"220-ready\r\n220 go\r\n250 injected\r\n")) as client:
        greet(client)
        client.send(b"STARTTLS\r\n")
        assert client.rest().startswith(b"421 4.7.0 ")
    assert last_end(lab)["outcome"] == "injection"
    assert events_of_last(lab, "starttls-response-injection") == 1


def test_server_bytes_behind_the_clients_first_byte_are_its_own_matter(lab: Lab) -> None:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(GOOD)
        peer.line()
        peer.send(READY)
        assert peer.take(1) == b"\x16"
        peer.send(b"anything\xff")
        assert peer.rest() == b"\r\nMAIL\r\n"

    with serve(lab, script) as client:
        greet(client)
        assert client.say(b"STARTTLS") == READY
        client.send(b"\x16")
        assert client.take(9) == b"anything\xff"
        client.send(b"\r\nMAIL\r\n")
        client.finish()
        assert client.rest() == b""
    assert last_end(lab)["tls"] == "passthrough"


# -- command injection -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spelling", SPELLINGS, ids=repr)
@pytest.mark.parametrize("segments", [1, 2])
def test_commands_behind_starttls_are_not_used_when_it_takes_effect(
    lab: Lab, mode: str, spelling: bytes, segments: int
) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(GOOD)
        seen.append(peer.line())
        time.sleep(0.05 * segments)
        peer.send(READY)
        seen.append(peer.rest())

    with serve(lab, script, mode) as client:
        greet(client)
        injected = b"RSET\r\nMAIL FROM:<mallory@example>\r\n"
        if segments == 1:
            client.send(spelling + injected)
        else:
            client.send(spelling, injected, gap=0.03)
        assert client.rest().startswith(b"421 4.7.0 ehlo-proxy route ")
    assert last_end(lab, mode)["outcome"] == "injection"
    assert events_of_last(lab, "starttls-pipelined", mode) == 1
    assert seen == [spelling, b""]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=repr)
def test_commands_behind_starttls_go_on_in_order_when_it_does_not(lab: Lab, spelling: bytes) -> None:
    seen: list[bytes] = []
    with serve(lab, answers(BANNER, GOOD, b"502 no\r\n", b"250 one\r\n", BROKEN, b"221 bye\r\n", seen=seen)) as client:
        greet(client)
        client.send(spelling + b"RSET\r\nEHLO a\r\nQUIT\r\n")
        assert client.reply() == b"502 no\r\n"
        assert client.reply() == b"250 one\r\n"
        assert client.reply() == FIXED
        assert client.reply() == b"221 bye\r\n"
    last_end(lab)
    assert seen[1:] == [spelling, b"RSET\r\n", b"EHLO a\r\n", b"QUIT\r\n", b""]


@pytest.mark.parametrize("line", [b"STARTTLS\0\r\n", b"STARTTLS\r\r\n", b"STAR\rTTLS\r\n", b"\0STARTTLS\r\n"], ids=repr)
def test_what_servers_could_read_differently_is_let_go_unread(lab: Lab, line: bytes) -> None:
    # The proxy must not believe to know whether this was STARTTLS: bytes both ways, exact, from here on.
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(GOOD)
        peer.take(len(line) + 6)
        peer.send(READY + b"250 behind it\r\n")
        peer.rest()

    with serve(lab, script) as client:
        greet(client)
        client.send(line + b"NOOP\r\n")
        assert client.take(len(READY) + 15) == READY + b"250 behind it\r\n"
    assert last_end(lab)["tls"] == "none"


def test_starttls_behind_mail_is_let_through_unread(lab: Lab) -> None:
    with serve(lab, answers(BANNER, BROKEN, b"250 ok\r\n", READY)) as client:
        assert greet(client) == FIXED
        assert client.say(b"MAIL FROM:<>") == b"250 ok\r\n"
        client.send(b"STARTTLS\r\n")
        assert client.reply() == READY
    assert last_end(lab)["tls"] == "none"


def test_starttls_line_that_never_ends_is_no_starttls(lab: Lab) -> None:
    long = b"STARTTLS " + b"x" * 5000
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(GOOD)
        seen.append(peer.take(len(long)))
        peer.send(READY + b"250 behind it\r\n")
        peer.rest()

    with serve(lab, script) as client:
        greet(client)
        client.send(long)
        assert client.take(len(READY) + 15) == READY + b"250 behind it\r\n"
    assert seen == [long]


# -- and when all is well --------------------------------------------------------------------------------------------


def test_tls_session_is_the_two_peers_own(lab: Lab) -> None:
    server, trusting = tls_contexts()
    mailbox = Mailbox(tls=server)
    with serve(lab, mailbox) as client:
        assert greet(client) == FIXED
        assert client.say(b"STARTTLS") == b"220 go ahead\r\n"
        client.start_tls(trusting, server=False, name="mail.domain1.com")
        inside = client.say(b"EHLO a")
        assert inside == BROKEN  # what is inside cannot be read
        assert client.say(b"MAIL FROM:<>")[:3] == b"250"
        assert client.say(b"RCPT TO:<b@x>")[:3] == b"250"
        assert client.say(b"DATA")[:3] == b"354"
        client.send(b"over TLS\r\n.\r\n")
        assert client.reply()[:3] == b"250"
        assert client.say(b"QUIT")[:3] == b"221"
    end = last_end(lab)
    assert end["tls"] == "passthrough"
    assert end["tls_version"].startswith("TLSv1.")
    assert end["sni"] == "mail.domain1.com"
    assert mailbox.mails == [b"over TLS\r\n.\r\n"]
    told = lab.running.of("tls", session=end["session"])
    assert [one["sni"] for one in told] == ["mail.domain1.com"]
