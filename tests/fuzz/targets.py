"""What is fuzzed: each target takes any bytes, and fails by an exception.

A target is a function and the words that its inputs are made of.  What it asserts holds for every input: no exception
that is not part of the contract, nothing lost, nothing made up, nothing without bound.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from proxy.net.coming_in import proxy_header
from proxy.net.tls.client_hello import TlsRecordPeek
from proxy.settings import SettingsError, parse
from proxy.smtp.lines import LineBuffer, split_lines
from proxy.smtp.reply.ehlo import MAX_LINES, ReplyProgress, looks_like_ehlo_line, split_before_banner
from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply
from proxy.smtp.reply.replies import code_of, ends_reply
from proxy.smtp.session.commands import READ, argument_of, verb_of
from proxy.smtp.session.events import FreshConnection, NextDestination, SaidPrivately, ToClient, ToServer
from proxy.smtp.session.policy import BridgePolicy, DestinationMemory, SessionPolicy
from proxy.smtp.session.session import Session
from tests.fuzz import words
from tests.playbook import (
    Client,
    ClientEnds,
    ClientTlsFailed,
    ClientTlsReady,
    Connected,
    Drain,
    Event,
    Player,
    Server,
    ServerEnds,
    ServerTlsFailed,
    ServerTlsReady,
    Unreachable,
    Wait,
)


def lines(data: bytes) -> None:
    """Whatever the cuts, the lines are the same, and together they are what came in."""
    size, data = (data[0] % 16 + 1 if data else 1), data[1:]
    buffer = LineBuffer(512)
    taken: list[bytes] = []
    for at in range(0, len(data), size):
        buffer.feed(data[at : at + size])
        if at % 3:
            while (line := buffer.next()) is not None:
                taken.append(line)
        assert buffer.pending <= len(buffer)
    while (line := buffer.next()) is not None:
        taken.append(line)
    whole = split_lines(data)
    rest = whole.pop() if whole and not whole[-1].endswith(b"\n") else b""
    assert taken == whole
    assert buffer.pending == len(buffer) == len(rest)
    assert buffer.take_pending() == rest
    assert len(buffer) == 0


def replies(data: bytes) -> None:
    """Every reader agrees with itself, and what is read is what came."""
    for line in split_lines(data):
        assert ends_reply(line) <= (code_of(line) != 0)
        EhloLine(line)
        looks_like_ehlo_line(line)
        verb = verb_of(line)
        assert not verb or verb in READ
        argument_of(line)
    progress = ReplyProgress(data[:40])
    for line in split_lines(data):
        progress.add(line)
        assert not progress.settled or progress.final_seen
    assert progress.whole() == data
    parted = split_before_banner(data)
    assert parted.banner == data or b"".join(parted.removed) + parted.banner == data


def repair(data: bytes) -> None:
    """To repair again changes nothing; where nothing is to be changed nothing is."""
    flags, data = (data[0] if data else 0), data[1:]
    banner, _, raw = data.partition(b"\0\0")
    context = EhloContext(
        banner=b"220 " + banner,
        destination_name=b"mail.example.com" if flags & 1 else b"",
        destination_address=b"192.0.2.1" if flags & 2 else b"",
        client_name=b"client.example",
        inside_tls=bool(flags & 4),
        client_trusted=bool(flags & 8),
    )
    policy = RepairPolicy(strict=bool(flags & 16), add=(b"STARTTLS",) if flags & 32 else ())
    once = repair_reply(raw, policy, context)
    again = repair_reply(once.reply, policy, context)
    assert again.reply == once.reply
    assert once.changed is (once.reply != raw)
    if once.changed:
        shown = split_lines(once.reply)
        assert all(line.startswith(b"250-") for line in shown[:-1])
        assert shown[-1].startswith(b"250 ")
        assert all(line.endswith(b"\r\n") for line in shown)
        assert len(once.reply) <= len(raw) + 6 * len(split_lines(raw)) + 300
        assert len(shown) <= MAX_LINES + 2
    for mode in ("observe", "off"):
        assert repair_reply(raw, RepairPolicy(mode=mode), EhloContext()).reply == raw


SIDES = ("starttls", "implicit", "none")


def _session_of(flags: int) -> tuple[SessionPolicy, bool, DestinationMemory]:
    mode = ("repair", "repair", "observe", "off")[flags & 3]
    bridge = None
    if flags & 4:
        bridge = BridgePolicy(SIDES[flags // 64 % 3], SIDES[flags // 192 % 3], bool(flags & 8))
    policy = SessionPolicy(repair=RepairPolicy(mode=mode), xclient=bool(flags & 16), bridge=bridge)
    return policy, bool(flags & 32), DestinationMemory(*(1000.0 if flags % odd == 0 else None for odd in (7, 11)))


HAPPENINGS: tuple[Event, ...] = (
    Wait(0.1), Wait(0.2), Wait(15.0), Wait(30.0), Wait(61.0), Wait(300.0), Connected(another_left=True), Connected(),
    ClientEnds(), ClientEnds(True), ServerEnds(), ServerEnds(True), Drain(),
    ServerTlsReady(), ServerTlsReady(), ServerTlsFailed(), ClientTlsReady(), ClientTlsReady(),
    ClientTlsFailed(), Unreachable(), Client(b"\n"), Server(b"\r\n"),
)  # fmt: skip


def events_of(data: bytes) -> list[Event]:
    """Records of an octet that says what happens, one that says how long its bytes are, and these."""
    events: list[Event] = []
    at = 0
    while at < len(data) and len(events) < 60:
        kind = data[at]
        size = data[at + 1] if at + 1 < len(data) else 0
        text = data[at + 2 : at + 2 + size]
        at += 2 + len(text)
        if kind & 1:
            events.append(Server(text) if kind & 2 else Client(text))
            continue
        at -= len(text)
        events.append(HAPPENINGS[kind // 2 % len(HAPPENINGS)])
    return events


def session(data: bytes) -> None:
    """Two streams, any cuts and times: no exception, no bound passed (see `Player`), and nothing is made up.

    Outside of bridge mode and XCLIENT the server hears the beginning of what the client said, but for what the proxy
    asks by itself.  Where nothing is to be repaired and nothing was asked the client hears the beginning of what the
    server said, and one line of ours at most.
    """
    policy, trusted, memory = _session_of(int.from_bytes(data[:2], "big"))
    play = Player(Session(policy, 1000.0, client_trusted=trusted, client_address="198.51.100.7"), memory)
    plain = policy.bridge is None and not policy.xclient
    said, heard, told, shown = bytearray(), bytearray(), bytearray(), bytearray()
    moved_on = asked = False
    for event in itertools.chain([Connected()], events_of(data[2:])):
        over = play.ended
        actions = play.happens(event)
        if isinstance(event, Client):
            said += event.data
        elif isinstance(event, Server) and not over:
            told += event.data
        private: list[bytes] = []
        for action in actions:
            if isinstance(action, SaidPrivately):
                private.append(action.line)
            elif isinstance(action, ToServer):
                data = action.data
                for line in private:
                    data = data.replace(line, b"", 1)
                private.clear()
                heard += data
            elif isinstance(action, ToClient):
                shown += action.data
            elif isinstance(action, NextDestination | FreshConnection):
                moved_on = True
            asked = asked or bool(private)
        if plain:
            assert said.startswith(heard)
            if policy.repair.mode != "repair" and not moved_on and not asked and not isinstance(event, Connected):
                if not play.ended:
                    assert told.startswith(shown)
                elif not over and not told.startswith(shown):
                    last = shown.rfind(b"421 4.")
                    assert last >= 0
                    assert told.startswith(shown[:last])
                    assert shown.count(b"\n", last) == 1


def header(data: bytes) -> None:
    """A PROXY header is found alike however the bytes are cut, and never longer than what came."""
    whole = proxy_header.parse(data)
    if isinstance(whole, proxy_header.Header):
        assert whole.consumed <= len(data)
        assert proxy_header.parse(data[: whole.consumed]) == whole
        for at in range(0, whole.consumed, 1 + whole.consumed // 40):
            assert isinstance(proxy_header.parse(data[:at]), proxy_header.NeedMore)
    elif isinstance(whole, proxy_header.NeedMore):
        assert len(data) < proxy_header.MAX_HEADER


def settings(data: bytes) -> None:
    """Any text is settings, or a list of what is wrong with it."""
    problems: tuple[object, ...] | None = None
    try:
        parse(data.decode("utf-8", "replace"), "fuzz.toml")
    except SettingsError as error:
        problems = tuple(error.problems)
    assert problems is None or problems
    assert all(len(str(problem)) < 4000 for problem in problems or ())


def hello(data: bytes) -> None:
    """Records that are looked at for the log: whatever they hold, cut or not, the same is seen, in bounds."""
    size, data = (data[0] % 32 + 1 if data else 1), data[1:]
    whole, drips = TlsRecordPeek(), TlsRecordPeek()
    whole.feed_client(data)
    for at in range(0, len(data), size):
        drips.feed_client(data[at : at + size])
    assert (whole.sni, whole.version) == (drips.sni, drips.version)
    other = TlsRecordPeek()
    other.feed_server(data)
    assert other.sni == ""


@dataclass(frozen=True)
class Target:
    """`words`: what its inputs are made of; `module`: where new lines of code make an input worth keeping."""

    run: Callable[[bytes], None]
    words: tuple[bytes, ...]
    module: str
    seeds: tuple[bytes, ...]


TARGETS: dict[str, Target] = {
    "header": Target(header, words.HEADER, "proxy/net/coming_in/proxy_header", words.HEADER_SEEDS),
    "hello": Target(hello, words.HELLO, "proxy/net/tls/client_hello", words.HELLO_SEEDS),
    "lines": Target(lines, words.LINES, "proxy/smtp/lines", words.LINES_SEEDS),
    "repair": Target(repair, words.REPAIR, "proxy/smtp", words.REPAIR_SEEDS),
    "replies": Target(replies, words.REPLIES, "proxy/smtp", words.REPLIES_SEEDS),
    "session": Target(session, words.SESSION, "proxy/smtp", words.SESSION_SEEDS),
    "settings": Target(settings, words.SETTINGS, "proxy/settings", words.SETTINGS_SEEDS),
}
