"""What is looked at of a session's bytes, for the log and for the transcript; nothing is held for it.

The `Onlooker` is shown what the session reads, and what is relayed for as long as it `wants` that: in pass-through
until both hellos have been seen and the client's first encrypted record (`proxy.net.tls.client_hello`), for a
transcript while something may be kept (`proxy.net.carrier.record`).  It writes into the story what TLS showed in
clear, and says at the end whether the handshake is known never to have come to its end.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from proxy.net.tls.client_hello import TlsRecordPeek

if TYPE_CHECKING:
    from proxy.net.carrier.record import Recorder
    from proxy.net.observer import Story
    from proxy.smtp.reply.repair import RepairResult

MAX_FOUND: Final = 20  # findings outside of an EHLO reply that are told of one session; a server may send them for ever
HANDSHAKE_RECORD: Final = b"\x16"  # ContentType of RFC 8446 5.1


class Hears(Protocol):
    """Who is told what the hellos said (`proxy.net.observer.Observer`)."""

    def tls_started(
        self, story: Story, side: str, version: str, sni: str, cipher: str, verified: str, not_after: float
    ) -> None: ...


class Onlooker:
    """Tells `hears` once what the two hellos said, when both have been read or all is over."""

    __slots__ = ("_found", "_hears", "_peek", "_recorder", "_story", "_told", "reads", "wants")

    def __init__(self, story: Story, recorder: Recorder | None, hears: Hears) -> None:
        self._recorder = recorder
        self.reads = recorder is not None  # what the session reads is to be shown
        self.wants = False  # what is relayed is
        self._story = story
        self._hears = hears  # and not the carrier, so that a session that is over is freed at once
        self._peek: TlsRecordPeek | None = None
        self._told = False
        self._found = 0  # outside of EHLO replies

    def read(self, from_client: bool, data: bytes, now: float) -> None:
        """The session is about to read this."""
        recorder = self._recorder
        if recorder is not None:
            (recorder.client_bytes if from_client else recorder.server_bytes)(data, now)

    def tls_passes(self, data: bytes) -> None:
        """The client's first bytes of TLS that passes through."""
        if data[:1] == HANDSHAKE_RECORD:
            self._peek = TlsRecordPeek()
            self._peek.feed_client(data)
            self.wants = True

    def client_let_go(self) -> None:
        """The session reads the client no longer."""
        if self._recorder is not None:
            self._recorder.let_go("client", monotonic(), b"")
            self.wants = True

    def server_let_go(self, tls: bool) -> None:
        """The session reads nobody any longer; `tls`: the two peers are about to begin it."""
        recorder = self._recorder
        if recorder is not None:
            if tls:
                recorder.tls_started(monotonic())
            else:
                recorder.let_go("server", monotonic(), b"")
        self.wants = recorder is not None

    def relayed(self, from_client: bool, data: bytes) -> bool:
        """This goes from one side to the other; whether more is to be shown."""
        peek = self._peek
        if peek is not None:
            (peek.feed_client if from_client else peek.feed_server)(data)
            if peek.done:
                self._tell(peek)
        recorder = self._recorder
        kept = False
        if recorder is not None:
            (recorder.client_bytes if from_client else recorder.server_bytes)(data, monotonic())
            kept = recorder.wants("client") or recorder.wants("server")
        self.wants = kept or (peek is not None and not peek.done)
        return self.wants

    def finds(self) -> bool:
        """Something was found outside of an EHLO reply; whether it is still to be told."""
        self._found += 1
        return self._found <= MAX_FOUND

    def repaired(self, result: RepairResult) -> None:
        """The EHLO reply just read went to the client as this."""
        if self._recorder is not None and result.changed:
            ids = [finding.id for finding in result.findings if finding.repaired]
            self._recorder.repaired(result.before, result.after, ids, monotonic())

    def keep_nothing(self) -> None:
        """Bridge mode: one side is inside TLS."""
        if self._recorder is not None:
            self._recorder.keep_nothing()

    def inside_tls(self) -> None:
        """Bridge mode: both sides are inside TLS, and are read afresh."""
        if self._recorder is not None:
            self._recorder.inside_tls(monotonic())

    def over(self) -> None:
        """Nothing more is to be seen, and the story is complete."""
        if self._recorder is not None:
            self._recorder.end(monotonic())

    def tls_failure(self) -> str:
        """All is over: why the handshake never came to its end, or ""."""
        peek = self._peek
        if peek is None:
            return ""
        self._tell(peek)
        self._story.alert_seen(peek.alert)
        return peek.failure()

    def _tell(self, peek: TlsRecordPeek) -> None:
        if not self._told and (peek.sni or peek.version):
            self._told = True
            self._story.hellos_seen(peek.version, peek.sni)
            self._hears.tls_started(self._story, "passthrough", peek.version, peek.sni, peek.cipher, "", 0.0)
