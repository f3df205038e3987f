"""No message can be smuggled past anybody by way of the proxy: what was sent is what is received, byte for byte.

The proxy lets go at MAIL and never looks for the end of a message.  So there is one claim for every spelling of the
end-of-data that two servers were seen to disagree about (SEC Consult 2023, and Postfix's and Exim's answers to it):
the server's bytes equal the client's, however they were cut into segments, and so do the client's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.end_to_end.lab import Lab, case, open_lab
from tests.scripted import BANNER, BROKEN, Mailbox, Peer, together

FIXED = b"250-mail.example\r\n250-STARTTLS\r\n250-SIZE 10240000\r\n250 HELP\r\n"
SMUGGLED = b"MAIL FROM:<mallory@example>\r\nRCPT TO:<b@example>\r\nDATA\r\nsmuggled\r\n.\r\n"
ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\n", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r\n.\r\n",
    b"\r\r\n.\r\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\n", b"\n\n.\r\n", b"\n\r.\n\r", b"\n\r\n.\r\n", b"\r\n\r.\r\n",
    b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\n.\0\n", b"\r\n.\r\0\n", b"\r\0\n.\r\n", b"\0\r\n.\r\n", b"\r\n\0\r\n.\r\n",
    b"\r\n..\r\n", b"\r\n. \r\n", b"\r\n.\t\r\n", b"\r\n .\r\n", b"\r\n\t.\r\n", b"\r\n.\x0b\r\n", b"\x0b.\x0b",
    b"\x0c.\x0c", b"\x85.\x85", b"\xe2\x80\xa8.\xe2\x80\xa8", b"\r\n.\x1a\r\n", b"\r\n.\xff\r\n", b"\r\n\x8e.\r\n",
]  # fmt: skip
START = b"MAIL FROM:<a@example>\r\nRCPT TO:<b@example>\r\nDATA\r\n"


class Keeps:
    """Answers EHLO, then keeps all that comes; `got` has it by the name in EHLO."""

    def __init__(self) -> None:
        self.got: dict[bytes, bytes] = {}

    def __call__(self, peer: Peer) -> None:
        peer.send(BANNER)
        name = peer.line()[5:].strip()
        peer.send(BROKEN)
        # One reply line, so that both directions are let go; the rest is not SMTP at all.
        first = peer.until(b"\n")
        peer.send(b"250 ok\r\n")
        self.got[name] = first + peer.rest(20)


KEEPS = Keeps()
TAKES = Mailbox()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab({"keeps": case(KEEPS), "takes": case(TAKES)}, log={"level": "info"}) as lab:
        yield lab


def received(lab: Lab, name: bytes, *pieces: bytes, gap: float = 0.004) -> bytes:
    """What the server gets behind EHLO when these pieces are sent, each in a segment."""
    with lab.connect("keeps") as client:
        assert client.reply() == BANNER
        assert client.say(b"EHLO " + name) == FIXED
        client.send(*pieces, gap=gap)
        client.finish()
        assert client.rest() == b"250 ok\r\n"
    lab.server("keeps").settle()
    return KEEPS.got.pop(name)


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_end_of_data_passes_whole_and_cut_at_every_byte(lab: Lab, end: bytes) -> None:
    whole = START + b"Subject: one\r\n\r\nbody" + end + SMUGGLED
    assert received(lab, b"whole", whole) == whole
    at = whole.index(end + SMUGGLED)
    for cut in range(at, at + len(end) + 1):
        assert received(lab, b"cut-%d" % cut, whole[:cut], whole[cut:]) == whole
    pieces = [bytes([byte]) for byte in whole[at : at + len(end)]]
    assert received(lab, b"bytes", whole[:at], *pieces, SMUGGLED, gap=0.001) == whole


def test_dialogue_in_one_stream_is_the_same_cut_at_every_byte(lab: Lab) -> None:
    stream = START + b"EHLO inside\r\n250-STARTTLS\r\n.\r\nQUIT\r\n"

    def cut_at(cut: int) -> None:
        with lab.connect("keeps") as client:
            # EHLO and all behind it at once, in two segments.
            name = b"stream-%d" % cut
            whole = b"EHLO " + name + b"\r\n" + stream
            client.send(whole[:cut], whole[cut:], gap=0.01)
            client.finish()
            assert client.rest() == BANNER + FIXED + b"250 ok\r\n"
        lab.running.wait_for("session-end", 5)
        lab.server("keeps").settle()
        assert KEEPS.got.pop(name) == stream

    together([lambda cut=cut: cut_at(cut) for cut in range(1, len(stream) + 10)], 16)


@pytest.mark.parametrize("last", [b"", b" LAST"])
def test_chunks_with_smtp_inside_pass_unread(lab: Lab, last: bytes) -> None:
    inside = b"EHLO evil\r\nSTARTTLS\r\n.\r\nMAIL FROM:<>\r\nQUIT\r\n250-STARTTLS\r\n220 ready\r\n\0\xff" * 40
    whole = b"MAIL FROM:<>\r\nBDAT %d%b\r\n" % (len(inside), last) + inside + b"BDAT 0 LAST\r\nEHLO again\r\n"
    assert received(lab, b"bdat", whole) == whole
    first = b"BDAT %d%b\r\n" % (len(inside), last) + inside  # also when it is the first command
    assert received(lab, b"bdat-first", first) == first


@pytest.mark.parametrize("length", [b"99999999999999999999", b"-1", b"0x10", b"", b"10 10 LAST"])
def test_chunk_lengths_are_none_of_its_business(lab: Lab, length: bytes) -> None:
    whole = b"BDAT " + length + b"\r\n" + b"EHLO x\r\nSTARTTLS\r\n" * 3
    assert received(lab, b"length", whole) == whole


def test_every_byte_value_passes_both_ways(lab: Lab) -> None:
    values = bytes(range(256))
    data = (
        b"MAIL FROM:<>\r\n" + values + values[::-1] + b"".join(bytes((a, b)) for a in range(256) for b in (0, 10, 13))
    )
    assert received(lab, b"values", data) == data


@pytest.mark.parametrize(
    "first",
    [
        b"AUTH PLAIN\r\n",
        b"XEXCH50 10 2\r\n",
        b"TURN\r\n",
        b"ETRN x\r\n",
        b"\0\r\n",
        b"NO\rOP\r\n",
        b"\r\n",
        b"\xff\xf4\r\n",
    ],
)
def test_everything_behind_an_unknown_command_passes_unread(lab: Lab, first: bytes) -> None:
    whole = first + b"EHLO x\r\nSTARTTLS\r\nQUIT\r\n\n\r\r\0.\r\n"
    assert received(lab, b"unknown", whole) == whole


def test_message_that_looks_like_commands_and_replies_is_taken_as_it_is(lab: Lab) -> None:
    lines = [b"EHLO x", b"STARTTLS", b"250-STARTTLS", b"220 ready", b"QUIT", b"..", b"", b"421 4.3.2", b"DATA", b"RSET"]
    body = b"\r\n".join(lines * 20) + b"\n.\nLF\r.\rCR\0"
    with lab.connect("takes") as client:
        assert client.reply() == BANNER
        client.say(b"EHLO a")
        client.say(b"MAIL FROM:<>")
        client.say(b"RCPT TO:<b@x>")
        assert client.say(b"DATA")[:3] == b"354"
        client.send(body + b"\r\n.\r\n")
        assert client.reply()[:3] == b"250"
        assert client.say(b"QUIT")[:3] == b"221"
    assert TAKES.mails == [body + b"\r\n.\r\n"]


def test_what_the_server_says_after_the_letting_go_is_not_read_either(lab: Lab) -> None:
    said = (b"250-STARTTLS\r\n220 ready\r\n250 x\n421\r\r\n" + bytes(range(256))) * 20

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(BROKEN)
        peer.line()
        peer.send(b"250 ok\r\n")
        peer.line()
        peer.send(said)

    lab.server("keeps").script = script
    with lab.connect("keeps") as client:
        assert client.reply() == BANNER
        assert client.say(b"EHLO a") == FIXED
        assert client.say(b"MAIL FROM:<>") == b"250 ok\r\n"
        client.send(b"RCPT TO:<x>\r\n")
        assert client.rest() == said
    lab.server("keeps").script = KEEPS


def test_random_bytes_in_random_pieces_are_what_comes_out(lab: Lab) -> None:
    dice = random.Random(2023)
    alphabet = [b"\r", b"\n", b".", b"\0", b"\r\n", b"\r\n.\r\n", b"EHLO a\r\n", b"x", b"STARTTLS\r\n", b"\xff"]

    def once(number: int) -> None:
        stream = b"MAIL FROM:<>\r\n" + b"".join(dice.choices(alphabet, k=80))
        cuts = sorted(dice.sample(range(1, len(stream)), 12))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        assert received(lab, b"random-%d" % number, *pieces, gap=0.001) == stream

    together([lambda number=number: once(number) for number in range(60)], 8)
