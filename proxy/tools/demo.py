"""`demo`: the whole story on one screen, with nothing but Python: no root, no network, a few seconds.

Starts `simulate` (a server whose EHLO reply is broken) and `run` (the proxy) as children on loopback, and sends one
letter twice with `StrictClient`: past the proxy, where it must fail, and through it, where it must arrive over TLS,
byte for byte, with the server's own certificate seen by the client.  Shows both conversations beside each other.

Exit: 0 if the client failed before and succeeded after; 1 otherwise, with the reason; 3 if this host can't connect to
itself.  The children are ended in any case.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from proxy.tools.children import Child, ChildFailed
from proxy.tools.dialogue import Dialogue, Spoken, Style, columns, printable, style_for, wrapped
from proxy.tools.replay import NotATranscript, claim, read_transcript
from proxy.tools.strict_client import Attempt, StrictClient

WIDTH = 80  # columns, whatever the terminal: what is pasted somewhere must fit there too
HALF = 38
GUTTER = " | "
START_TIMEOUT = 15.0  # seconds, for a child on a busy machine; half a second is usual
SERVER_NAME = "mail.domain1.com"
SENDER, RECIPIENT = "alice@sender.example", "bob@domain1.com"
LETTER = (
    b"From: Alice <alice@sender.example>\r\n"
    b"To: Bob <bob@domain1.com>\r\n"
    b"Subject: For your eyes only\r\n"
    b"\r\n"
    b"Dear Bob,\r\n"
    b".this line starts with a dot, which mail programs must double and undo\r\n"
    b"nobody between us has read this.\r\n"
)

STORY = """
    A mail server hands a letter for bob@domain1.com to the server mail.domain1.com. Its rule: encrypted, or not at
    all. It asks "EHLO: what can you do?". The first line of the answer has to be the server's name, so every sender
    skips it. This server puts STARTTLS ("I can encrypt") there, and its name second. C is the sender's side, the
    client; S the server's.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What there is to judge: both attempts, and what came out at the other end."""

    before: Attempt
    after: Attempt
    delivered: tuple[bytes, ...]
    certificate_is_the_servers: bool

    @property
    def claims(self) -> tuple[tuple[bool, str], ...]:
        """Each thing that had to be seen, and whether it was."""
        before, after = self.before, self.after
        return (
            (
                not before.sent and before.gave_up,
                "Without the proxy the letter was not sent: "
                + (before.reason if before.gave_up else before.reason or "but it was!")
                + ".",
            ),
            (
                after.sent and bool(after.tls),
                f"Through the proxy it was sent, encrypted ({after.tls or after.reason}).",
            ),
            (
                self.certificate_is_the_servers,
                "The certificate that the client saw is the server's own: the encryption is end to end.",
            ),
            (
                self.delivered == (LETTER,),
                f"The letter arrived once, byte for byte: {len(LETTER)} bytes.",
            ),
        )

    @property
    def well(self) -> bool:
        return all(true for true, _ in self.claims)


def run(out: TextIO, err: TextIO) -> int:
    """Do it all, show it, and judge it."""
    problem = without_loopback()
    if problem:
        print(f"ehlo-proxy demo: {problem}", file=err)
        return 3
    style = style_for(out)
    print(style("bold", "ehlo-proxy demo: one letter, sent twice"), end="\n\n", file=out)
    print(*wrapped(" ".join(STORY.split()), WIDTH, ""), sep="\n", file=out, flush=True)
    with tempfile.TemporaryDirectory(prefix="ehlo-proxy-demo-") as directory:
        try:
            outcome, log = play(Path(directory))
        except (ChildFailed, OSError) as error:
            print(f"ehlo-proxy demo: {error}", file=err)
            return 1
        transcript = _transcript(Path(directory))
    for line in _scene(outcome, transcript, log, style):
        print(line.rstrip(), file=out)
    if not outcome.well:
        print("ehlo-proxy demo: not as it should be", file=err)
    return 0 if outcome.well else 1


def without_loopback() -> str:
    """Why nothing can be shown: this host does not reach itself.  Empty when it does."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            socket.create_connection(listening.getsockname(), 5).close()
    except OSError as error:
        return (
            f"this host can't connect to itself on 127.0.0.1 ({error.strerror or error}): is the loopback interface "
            "up? `ip link set lo up`"
        )
    return ""


def play(directory: Path) -> tuple[Outcome, str]:
    """Both attempts, and the proxy's log.  `directory` is empty and ours."""
    certificate = directory / "certificate.pem"
    mail, record = directory / "mail", directory / "record"
    record.mkdir()
    saved = ("--save", str(mail), "--save-certificate", str(certificate))
    with Child("simulate", "--listen", "127.0.0.1:0", "--name", SERVER_NAME, *saved) as server:
        port = int(server.wait_for(r"^listening 127\.0\.0\.1:(\d+)$", START_TIMEOUT)[1])
        destination = f"127.0.0.1:{port}"
        with Child("run", "--listen", "127.0.0.1:0", "--destination", destination, "--record", str(record)) as proxy:
            trusted = certificate.read_text()
            before = StrictClient("127.0.0.1", port, SERVER_NAME, trusted).send(SENDER, RECIPIENT, LETTER)
            ready = proxy.wait_for(r"^(?:\S+ info )?ready .*\b127\.0\.0\.1:(\d+)", START_TIMEOUT)
            after = StrictClient("127.0.0.1", int(ready[1]), SERVER_NAME, trusted).send(SENDER, RECIPIENT, LETTER)
        # the proxy has ended, so its log and transcript are whole
    delivered = tuple(path.read_bytes() for path in sorted(mail.glob("*.eml")))
    same = after.peer == ssl.PEM_cert_to_DER_cert(trusted)
    return Outcome(before, after, delivered, same), proxy.said


def _transcript(directory: Path) -> list[Spoken]:
    """What the proxy saw and did, as it recorded it; empty if it did not."""
    spoken: list[Spoken] = []
    for path in (directory / "record").glob("*.jsonl"):
        try:
            spoken = read_transcript(path.read_bytes())[1]
        except (NotATranscript, OSError):
            continue
    return spoken


# ------------------------------------------------------------------- the show


def _scene(outcome: Outcome, transcript: Sequence[Spoken], log: str, style: Style) -> Iterable[str]:
    yield ""
    yield from _side_by_side(outcome, style)
    if transcript:
        yield ""
        yield style("bold", "The second conversation as the proxy saw it, in the middle")
        yield ""
        yield from Dialogue(WIDTH, style, claim).render(transcript)
    # time and level stand in front where standard error is not the journal
    told = [line[line.index("session-end ") :] for line in log.splitlines() if " session-end " in f" {line}"]
    if told:
        yield ""
        yield style("bold", "What the proxy's log says of it")
        for line in told:
            yield from wrapped(printable(line), WIDTH)
    yield ""
    for true, text in outcome.claims:
        mark = style("good", "  ok  ") if true else style("bad", "  NOT ")
        yield from (
            mark + line if number == 0 else "      " + line for number, line in enumerate(wrapped(text, WIDTH - 6))
        )


def _side_by_side(outcome: Outcome, style: Style) -> Iterable[str]:
    """Both conversations; what stands on one height means the same."""
    yield style("bold", "1. Without the proxy".ljust(HALF) + GUTTER + "2. Through the proxy")
    yield "-" * HALF + "-+-" + "-" * HALF
    before, after = (_sections(attempt) for attempt in (outcome.before, outcome.after))
    for left, right in zip(before, after, strict=True):
        for one, other in columns(left, right, HALF):
            yield _painted(one, style) + GUTTER + _painted(other, style)


def _verdict(attempt: Attempt) -> str:
    return f"sent, encrypted with {attempt.tls}" if attempt.sent else f"NOT sent: {printable(attempt.reason)}"


def _sections(attempt: Attempt) -> tuple[list[str], list[str]]:
    """One conversation up to the end of the first EHLO reply, and the rest with what came of it."""
    said = attempt.dialogue
    cut = next((n for n, spoken in enumerate(said) if n > 1 and spoken.side == "client" and spoken.line), len(said))
    while cut < len(said) and said[cut].line.startswith("EHLO"):
        cut = next((n for n, spoken in enumerate(said) if n > cut and spoken.side == "client"), len(said))
    return _column(said[:cut]), [*_column(said[cut:]), *wrapped(f"=> {_verdict(attempt)}", HALF, "   ")]


def _column(said: Sequence[Spoken]) -> list[str]:
    """Who says what, with a word where it matters."""
    lines: list[str] = []
    since_ehlo = 0  # lines of the reply to EHLO so far; 0 outside of one
    for number, spoken in enumerate(said):
        text = printable(spoken.line or f"({spoken.note})")
        who = {"client": "C: ", "server": "S: ", "proxy": ""}[spoken.side]
        if who and number and said[number - 1].side == spoken.side:
            who = " " * len(who)
        if spoken.side != "server":
            since_ehlo = 1 if spoken.line.startswith("EHLO") else 0
        remark = ""
        if spoken.side == "server" and since_ehlo:
            starttls = "STARTTLS" in spoken.line.upper()
            if since_ehlo == 1:
                remark = "<- taken for the name" if starttls else "<- the name"
            elif starttls:
                remark = "<- seen: can encrypt"
            since_ehlo += 1
        first, *rest = wrapped(text, HALF - len(who), "  ")
        if remark and len(who) + len(first) + 1 + len(remark) <= HALF:
            first = first.ljust(HALF - len(who) - len(remark)) + remark
        lines.append(who + first)
        lines.extend(" " * len(who) + line for line in rest)
    return lines


def _painted(cell: str, style: Style) -> str:
    """Colour for what matters, on top of the words that say it."""
    if "<- taken" in cell or "=> NOT" in cell:
        return style("bad", cell)
    if "<-" in cell or "=>" in cell or cell.startswith("(encrypted"):
        return style("good", cell)
    return cell
