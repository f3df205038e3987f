"""Transcripts of sessions for `[route.record]`: one file a session, JSON lines, one object a line of either side.

Every object has `time` (seconds since the session began), `side` (`client`, `server`, or `proxy` for what is told about
the session), `line` (the bytes as Latin-1, line end included) and `note`.  The first object also has `transcript` (the
version of this format), `session`, `route`, `client` and `started`; one that tells of a repair has `findings`, `before`
and `after`.  The reader of these files is `proxy.tools.replay`.

What is kept, for the sake of the people whose mail it is:

* the dialogue that the proxy itself reads: the banner, commands with one reply each, their replies;
* after MAIL in clear at most `keep_bytes` bytes, both directions together;
* after any other letting go, BDAT too, and inside TLS after MAIL, nothing;
* a client's AUTH is not written, and nothing after it, nor behind MAIL what looks like AUTH or BDAT: those octets and a
  blank, in any case and anywhere, in the message too, since behind a chunk nobody here can tell where the next command
  begins.

A recorder finds MAIL, AUTH, BDAT and unknown commands by itself, because they may stand in one segment with what
follows them; `let_go` tells it the rest.  A file is at most `MAX_RECORD` bytes, has mode 0600 and is never one that was
there before.  A failure to write is told once and never reaches a session.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import BinaryIO

from proxy.net.observer import Story
from proxy.smtp.session.commands import MAX_COMMAND, READ, verb_of

FORMAT = 1
MAX_RECORD = 1024 * 1024  # bytes of one file
MAX_LINE = 16 * 1024  # a longer line is written in pieces

HANDSHAKE = b"\x16"  # ContentType of a TLS record (RFC 8446 5.1) that begins a session; no command starts so
MESSAGE_VERBS = frozenset({b"MAIL"})
SECRET = re.compile(rb"(?i)AUTH[ \t]|^[ \t]*AUTH\s*\Z")
SECRET_OR_CHUNK = re.compile(rb"(?i)(?:AUTH|BDAT)[ \t]|^[ \t]*(?:AUTH|BDAT)\s*\Z")
OVERLAP = 4  # octets of a piece that the next may go on with

DIALOGUE, KEPT, CLOSED = "dialogue", "kept", "closed"  # what a direction's bytes are


class Recorder:
    """The transcript of one session.  No method raises; after a failure or at a limit they do nothing."""

    __slots__ = (
        "_complain",
        "_file",
        "_from",
        "_keep",
        "_last",
        "_message_verb",
        "_pending",
        "_size",
        "_started_at",
        "_starttls_said",
        "_story",
        "_tail",
    )

    def __init__(
        self, file: BinaryIO, keep_bytes: int, story: Story, started_at: float, complain: Callable[[str], None]
    ) -> None:
        self._file: BinaryIO | None = file
        self._keep = keep_bytes
        self._story = story
        self._started_at = self._last = started_at
        self._complain = complain
        self._size = 0
        self._starttls_said = False  # it was the client's last command
        self._pending = {"client": b"", "server": b""}
        self._from = {"client": DIALOGUE, "server": DIALOGUE}
        self._message_verb = b""
        self._tail = {"client": b"", "server": b""}  # of the last piece, when it had no line end
        self._write(
            started_at,
            "proxy",
            note="session",
            transcript=FORMAT,
            session=story.id,
            route=story.route,
            client=story.client,
            started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        self._flush()

    def client_bytes(self, data: bytes, now: float) -> None:
        """Bytes from the client, as they came; `now` on the reactor's clock, seconds."""
        self._bytes("client", data, now, self._client_line)

    def server_bytes(self, data: bytes, now: float) -> None:
        """Bytes from the server, as they came, before any repair."""
        self._bytes("server", data, now, self._server_line)

    def let_go(self, direction: str, now: float, verb: bytes) -> None:
        """The proxy reads `direction` (`client` or `from_client`, and so on) no longer, because of the command `verb`.

        `verb` may be empty for a command that is not read: what the client's line was is known here.  It must be told
        of both directions: until then the server's lines count as replies to commands that were read.
        """
        side = _side(direction)
        if self._file is None or self._from[side] != DIALOGUE:
            return
        if verb or side == "server":
            self._leave(side, (verb or self._message_verb).upper(), now)
            self._flush()

    def wants(self, direction: str) -> bool:
        """Could more bytes of this direction be kept?  When not, they need not pass through the process."""
        return self._file is not None and self._from[_side(direction)] != CLOSED

    def tls_started(self, now: float) -> None:
        """Pass-through: the 220 to STARTTLS is through, and what follows are the two peers' TLS records."""
        if self._file is not None and DIALOGUE in self._from.values():
            self._pending = {"client": b"", "server": b""}
            self._from = {"client": CLOSED, "server": CLOSED}
            self._write(now, "proxy", note="from here on TLS, end to end: relayed unread, and not kept")
            self._flush()

    def inside_tls(self, now: float) -> None:
        """Bridge: both sides are inside TLS and are read afresh.  Nothing will be kept there after MAIL."""
        if self._file is None:
            return
        self._pending = {"client": b"", "server": b""}
        self._from = {"client": DIALOGUE, "server": DIALOGUE}
        self._message_verb = b""
        self._starttls_said = False
        self._keep = 0
        self._write(now, "proxy", note="TLS on both sides; what follows is inside it")
        self._flush()

    def keep_nothing(self) -> None:
        """Bridge: one side is in TLS, so nothing of what follows MAIL is in clear and may be kept."""
        self._keep = 0

    def repaired(
        self, before: Sequence[bytes], after: Sequence[bytes], ids: Sequence[str], now: float | None = None
    ) -> None:
        """The EHLO reply just recorded went to the client as `after`; `ids` are the findings repaired."""
        if self._file is None:
            return
        self._write(
            now,
            "proxy",
            note="repaired",
            findings=list(ids),
            before=[line.decode("latin-1") for line in before],
            after=[line.decode("latin-1") for line in after],
        )
        self._flush()

    def end(self, now: float | None = None) -> None:
        """The session is over: what is left is written, and the file closed."""
        if self._file is None:
            return
        for side in ("client", "server"):
            rest, self._pending[side] = self._pending[side], b""
            if not rest or self._file is None:
                continue
            if side == "server" and self._from[side] == DIALOGUE:
                self._write(now, side, rest, note="no line end")
            elif self._from[side] == KEPT:
                self._keep_some(side, rest, now)
            elif self._from[side] != CLOSED:
                self._write(now, side, note=f"{len(rest)} bytes without a line end, not kept")
        if self._file is not None:
            story = self._story
            self._write(now, "proxy", note="end", outcome=story.outcome, by=story.by, destination=story.destination)
        self._close()

    # ------------------------------------------------------------------ lines

    def _bytes(self, side: str, data: bytes, now: float, line_came: Callable[[bytes, float], None]) -> None:
        if self._file is None or self._from[side] == CLOSED:
            return
        if self._starttls_said and data[:1] == HANDSHAKE and side == "client":
            self.tls_started(now)  # the client's first bytes behind the 220 may come before we are told
            return
        *lines, rest = (self._pending[side] + data).split(b"\n")
        self._pending[side] = b""
        for line in lines:
            line_came(line + b"\n", now)
            if self._file is None or self._from[side] == CLOSED:
                break
        else:
            if len(rest) > (MAX_COMMAND if side == "client" and self._from[side] == DIALOGUE else MAX_LINE):
                line_came(rest, now)
            else:
                self._pending[side] = rest
        self._flush()

    def _client_line(self, line: bytes, now: float) -> None:
        if self._from["client"] == KEPT:
            self._keep_some("client", line, now)
        elif SECRET.search(line):
            self._end_for_good("client", now)
        elif verb := verb_of(line):
            self._starttls_said = verb == b"STARTTLS"
            self._write(now, "client", line)
        else:
            message_verb = _message_verb(line)
            if message_verb:
                self._write(now, "client", line)
            self._leave("client", message_verb, now)

    def _server_line(self, line: bytes, now: float) -> None:
        if self._from["server"] == KEPT:
            self._keep_some("server", line, now)
        else:
            self._write(now, "server", line)

    def _leave(self, side: str, verb: bytes, now: float) -> None:
        """This direction is let go because of `verb`; that is told once, for both directions."""
        told = any(state != DIALOGUE for state in self._from.values())
        if verb in MESSAGE_VERBS:
            self._from[side] = KEPT if self._keep else CLOSED
            self._message_verb = verb
            kept = f"{self._keep} bytes of it are kept" if self._keep else "none of it is kept"
            note = f"from {verb.decode()} on all is relayed unread; {kept}"
        else:
            self._from[side] = CLOSED
            self._pending[side] = b""
            what = verb.decode() if verb in READ else "a command that the proxy does not read"
            note = f"from {what} on all is relayed unread, and not kept"
        if not told:
            self._write(now, "proxy", note=note)

    def _keep_some(self, side: str, data: bytes, now: float | None) -> None:
        """Bytes behind MAIL, as far as the allowance of both directions reaches, and up to what may be a secret."""
        whole = self._tail[side] + data
        if SECRET_OR_CHUNK.search(whole):
            self._end_for_good(side, now)
            return
        self._tail[side] = b"" if data.endswith(b"\n") else whole[-OVERLAP:]
        kept = data[: self._keep]
        self._keep -= len(kept)
        if kept:
            self._write(now, side, kept, note="" if len(kept) == len(data) else "cut here")
        if self._keep == 0:
            for each, state in self._from.items():
                if state == KEPT:
                    self._from[each] = CLOSED

    def _end_for_good(self, side: str, now: float | None) -> None:
        self._write(now, side, note="AUTH or BDAT: not written, and nothing after it")
        self._close()

    # ------------------------------------------------------------------- file

    def _write(self, now: float | None, side: str, line: bytes = b"", note: str = "", **more: object) -> None:
        if self._file is None:
            return
        if now is not None:
            self._last = now
        seconds = round(self._last - self._started_at, 4)
        entry = {"time": seconds, "side": side, "line": line.decode("latin-1"), "note": note, **more}
        data = json.dumps(entry, separators=(",", ":")).encode("ascii") + b"\n"
        if self._size + len(data) > MAX_RECORD - 200:  # room for the last words
            note = f"cut: a transcript is at most {MAX_RECORD} bytes"
            last = {"time": seconds, "side": "proxy", "line": "", "note": note}
            data = json.dumps(last, separators=(",", ":")).encode("ascii") + b"\n"
            self._put(data)
            self._close()
            return
        self._put(data)

    def _put(self, data: bytes) -> None:
        if self._file is None:
            return
        self._size += len(data)
        try:
            self._file.write(data)
        except OSError as error:
            self._failed(error)

    def _flush(self) -> None:
        if self._file is None:
            return
        try:
            self._file.flush()
        except OSError as error:
            self._failed(error)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            self._complain(f"transcript not written: {error}")

    def _failed(self, error: OSError) -> None:
        self._complain(f"transcript not written: {error}")
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()  # flushes again, and fails again
            except OSError:
                pass


class Recorders:
    """Hands out the recorders of one route: at most `sessions` of them, 0 for no limit.

    `complain` is called with a few words, once for this object, when a transcript can't be written.
    """

    __slots__ = ("_begun", "_complain", "_complained", "_directory", "_keep", "_sessions")

    def __init__(self, directory: str, keep_bytes: int, sessions: int, complain: Callable[[str], None]) -> None:
        self._directory = directory
        self._keep = keep_bytes
        self._sessions = sessions
        self._complain = complain
        self._complained = False
        self._begun = 0

    def begin(self, story: Story, now: float) -> Recorder | None:
        """The transcript of the session that begins `now`; None where none is wanted, or it can't be made."""
        if not self._directory or (self._sessions and self._begun >= self._sessions):
            return None
        try:
            file = self._create(story.id)
        except OSError as error:
            self._say_once(f"no transcript: {error}")
            return None
        self._begun += 1
        return Recorder(file, self._keep, story, now, self._say_once)

    def _create(self, name: str) -> BinaryIO:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        path = os.path.join(self._directory, f"{stamp}Z-{name}.jsonl")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(path, flags, 0o600), "wb")

    def _say_once(self, text: str) -> None:
        if not self._complained:
            self._complained = True
            self._complain(text)


def _side(direction: str) -> str:
    return direction.removeprefix("from_")


def _message_verb(line: bytes) -> bytes:
    """MAIL, if this whole line is such a command; else empty."""
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    if len(line) > MAX_COMMAND or not line.endswith(b"\n") or b"\r" in text or b"\0" in text:
        return b""
    verb = b"".join(text.split(None, 1)[:1]).upper()
    return verb if verb in MESSAGE_VERBS else b""
