"""Random dialogues for the running proxy: what a client says, what a server answers, and what both must see.

A dialogue is made from its seed alone.  The server answers each command from the seed and the command's number, so
that it says the same however the stream comes in.  `Told.wrong` compares both streams with what was sent: they are the
same byte for byte, but for the EHLO replies of before the letting go, which are as `repair_reply` makes them, and the
proxy's own 421 where the server ended too early.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply
from proxy.smtp.reply.replies import is_refusal
from proxy.smtp.session.commands import verb_of

OWN_421 = re.compile(rb"421 4\.4\.2 ehlo-proxy [^\r\n]*\[[0-9a-z]{12}\]\r\n")
_LINES = (b"SIZE 10240000", b"8BITMIME", b"PIPELINING", b"STARTTLS", b"HELP", b"CHUNKING", b"AUTH LOGIN PLAIN",
          b"AUTH=LOGIN", b"DSN", b"X-ODD thing", b"size 1000", b"STARTTLS ", b" SMTPUTF8", b"STARTTLS foo")  # fmt: skip
_READ = (b"NOOP\r\n", b"RSET\r\n", b"HELP\r\n", b"VRFY postmaster\r\n", b"HELO client.example\r\n", b"noop x\n",
         b"STARTTLS\r\n", b"EXPN staff\r\n", b"EHLO client.example\r\n")  # fmt: skip
_ODD = (b"AUTH LOGIN\r\n", b"FOO\r\n", b"NO\rOP\r\n", b"\r\n", b"EHLO\0\r\n", b"\x16\x03\x01\r\n")
_REPLIES = (b"250 2.0.0 well\r\n", b"250-2.1.0 Sender ok\r\n250 2.1.0 go on\r\n", b"550 no\r\n",
            b"250-Sender ok\r\n250 go on\r\n", b"451-4.3.0 a\r\n451 4.3.0 b\n", b"500\r\n")  # fmt: skip
_SMUGGLED = (b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n..\r\n", b"\0", b"\xff", b"MAIL FROM:<x@y.example>\r\n",
             b"EHLO inside\r\n", b"STARTTLS\r\n", b"words\r\n")  # fmt: skip


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """The same bytes in up to eight pieces."""
    ends = sorted({rng.randrange(len(data)) for _ in range(rng.choice((0, 0, 1, 3, 8)))} | {len(data)}) if data else []
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


def _body(rng: random.Random) -> bytes:
    body = b"".join(rng.choice(_SMUGGLED) for _ in range(rng.randrange(12)))
    if rng.random() < 0.05:
        body += rng.randbytes(rng.randrange(300_000)).replace(b"\r\n.\r\n", b"")
    return body.replace(b"\r\n.\r\n", b"") + b"\r\n.\r\n"


def _mail(rng: random.Random) -> list[bytes]:
    said = [b"MAIL FROM:<a@sender.example>\r\n", b"RCPT TO:<b@recipient.example>\r\n"]
    if rng.random() < 0.4:
        for last in (b"", b" LAST"):
            chunk = _body(rng)
            said.append(b"BDAT %d%b\r\n" % (len(chunk), last) + chunk)
        return said
    return [*said, b"DATA\r\n", _body(rng)]


@dataclass
class Dialogue:
    """What is going to be said; `goes_on`: its server is one that does not end its EHLO reply properly."""

    seed: int
    goes_on: bool
    strict: bool
    client: list[bytes] = field(default_factory=list)  # what is sent in one go, or in pieces
    client_end: str = "waits"  # "finishes" (half-close), "leaves" (close)
    server_end: str = "stays"  # until QUIT or the client's end; "421", "finishes", "breaks off"
    ends_at: int = -1  # the command with whose reply the server ends
    banner: bytes = b""
    before_banner: bytes = b""

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        said = [b"EHLO client.example\r\n"]
        said += [rng.choice(_READ) for _ in range(rng.choice((0, 0, 1, 2, 5)))]
        if rng.random() < 0.15:
            said.append(rng.choice(_ODD))
        for _ in range(rng.choice((0, 1, 1, 2))):
            said += _mail(rng)
            said += [rng.choice(_READ) for _ in range(rng.choice((0, 0, 2)))]
        if rng.random() < 0.7:
            said.append(b"QUIT\r\n")
        if rng.random() < 0.15:
            said[-1] = said[-1][: rng.randrange(len(said[-1])) + 1]
        pipelines = rng.choice((0.0, 0.5, 1.0))
        self.client = [said[0]]
        for one in said[1:]:
            if rng.random() < pipelines:
                self.client[-1] += one
            else:
                self.client.append(one)
        self.client_end = rng.choice(("waits", "finishes", "finishes", "leaves"))
        if self.client_end == "waits" and said[-1] != b"QUIT\r\n":
            self.client_end = "finishes"
        if rng.random() < 0.3:
            self.server_end = rng.choice(("421", "finishes", "breaks off"))
            self.ends_at = rng.randrange(1 + len(said))
        self.banner = rng.choice(
            (b"220 mail.domain1.com ESMTP ready\r\n", b"220 ESMTP\r\n", b"220-mail.domain1.com\r\n220 b\r\n")
        )
        if rng.random() < 0.05:
            self.before_banner = b"250-STARTTLS\r\n"

    def ehlo_reply(self, rng: random.Random) -> bytes:
        if rng.random() < 0.1:
            return rng.choice((b"502 5.5.1 what\r\n", b"451-not\r\n451 now\r\n"))
        lines = rng.sample(_LINES, rng.randrange(1, 7))
        if rng.random() < 0.9:
            lines.insert(
                rng.choice((0, 0, 1, len(lines))), rng.choice((b"mail.domain1.com", b"mail.domain1.com hello", b"mail"))
            )
        if not self.goes_on and rng.random() < 0.03:  # passes as it comes, and without an end has none
            lines += [b"X-%d" % number for number in range(120)]
        separators = [b"-"] * (len(lines) - 1) + [b" "]
        if self.goes_on:
            separators = rng.choice(([b" "] * len(lines), [b"-"] * len(lines), separators))
        end = rng.choice((b"\r\n", b"\r\n", b"\n", b"\r\r\n"))
        code = rng.choice((b"250", b"250", b"250", b".250"))
        return b"".join(code + sep + line + end for sep, line in zip(separators, lines, strict=True))

    def reply(self, number: int, command: bytes) -> tuple[str, bytes]:
        """What the server says to its `number`th command: kind and bytes."""
        rng = random.Random(self.seed * 1000 + number)
        verb = command.split(None, 1)[0].upper() if command.split() else b""
        if verb == b"EHLO" and not command.count(b"\0"):
            return "ehlo", self.ehlo_reply(rng)
        if verb == b"STARTTLS":
            return "starttls", rng.choice((b"454 4.7.0 no\r\n", b"502 5.5.1 no\r\n", b"250 2.0.0 no\r\n"))
        if verb == b"QUIT":
            return "quit", b"221 2.0.0 bye\r\n"
        if verb == b"DATA":
            return "data", rng.choice((b"354 go on\r\n", b"354 go on\r\n", b"503 5.5.1 no\r\n"))
        if self.goes_on:
            return "", rng.choice((b"250 2.0.0 well\r\n", b"550 5.1.1 no\r\n", b"451 4.3.0 later\r\n"))
        return "", rng.choice(_REPLIES)


@dataclass
class Told:
    """What happened, as both peers saw it."""

    dialogue: Dialogue
    client_sent: bytes = b""
    client_got: bytes = b""
    client_saw: str = ""  # fin, reset, late
    server_sent: list[tuple[str, bytes]] = field(default_factory=list)
    commands: list[bytes] = field(default_factory=list)  # what each reply but the banner answers
    server_got: bytes = b""
    server_saw: str = ""
    cut_short: bool = False  # the server's last reply was broken off
    ended_first: bool = False  # the server ended before it had seen the client's end, without 221

    def _shown(self) -> tuple[list[bytes], bool]:
        """What the client may see, the likeliest first, and whether the letting go is certain."""
        dialogue = self.dialogue
        banner = dialogue.banner.splitlines(keepends=True)[0]
        context = EhloContext(banner, b"", b"127.0.0.1", b"client.example")
        policy = RepairPolicy(strict=dialogue.strict)
        shown = b""
        let_go = released = False
        for number, (kind, data) in enumerate(self.server_sent):
            last = number == len(self.server_sent) - 1
            cut_short = self.cut_short and last
            if kind == "banner":
                shown += data
                continue
            let_go = let_go or (number > 0 and not verb_of(self.commands[number - 1]))
            if let_go or kind not in ("ehlo", "starttls"):
                shown += data
                released = released or (let_go and b"\n" in data)
            elif kind == "ehlo" and last and self.ended_first and dialogue.goes_on and not is_refusal(data):
                # an end behind lines that may be the whole reply: they are it, or are dropped and never completed
                whole = data[: data.rfind(b"\n") + 1]
                return [shown, *([shown + repair_reply(whole, policy, context).reply] if whole else [])], released
            elif not cut_short:
                shown += repair_reply(data, policy, context).reply if kind == "ehlo" else data
            elif is_refusal(data) or (kind == "ehlo" and data.count(b"\n") > 100):  # the latter passes as it comes
                shown += data
        return [shown], released

    def wrong(self) -> str:
        """What is not as it must be, or empty."""
        dialogue = self.dialogue
        if "late" in (self.client_saw, self.server_saw):
            return f"it does not end: client saw {self.client_saw}, server saw {self.server_saw}"
        possible, released = self._shown()
        leaves = dialogue.client_end == "leaves"
        got = self.client_got
        shown = max(possible, key=lambda one: len(_common(one, got)))
        if leaves:
            if not shown.startswith(got) and not OWN_421.fullmatch(got[len(_common(shown, got)) :]):
                return f"client got {_differs(shown, got)}"
        elif got != shown:
            tail = got[len(shown) :] if got.startswith(shown) else b"no"
            if not OWN_421.fullmatch(tail) or released or not self.ended_first:
                return f"client got {_differs(shown, got)}"
        if self.ended_first and not released:
            whole = self.client_sent.startswith(self.server_got)
        else:
            whole = self.server_got == self.client_sent or (leaves and self.client_sent.startswith(self.server_got))
        return "" if whole else f"server got {_differs(self.client_sent, self.server_got)}"


def _common(one: bytes, other: bytes) -> bytes:
    size = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:size]


def _differs(due: bytes, got: bytes) -> str:
    at = len(_common(due, got))
    return f"at {at} of {len(due)}: due {due[max(0, at - 40) : at + 160]!r}, got {got[max(0, at - 40) : at + 240]!r}"
