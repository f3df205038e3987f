"""The admin listener's site: `/`, `/status.json`, `/metrics`, `/healthz`, `/readyz`, and nothing else.

It reads a `StatusSource` and never changes anything: GET and HEAD are all it knows, a request's body is thrown away
as it comes, and there are no forms, cookies or sessions.  What it shows holds text that peers chose, so the page is
sent with a Content-Security-Policy that allows its own style sheet, by hash, and nothing else.

Who may ask is `proxy.daemon.admin.access`'s to say.  A site for a balancer has `/healthz` and `/readyz` alone.

Limits: 64 connections, of which the one that has been open for the longest makes room for a new one, so that no
number of idle ones locks monitoring out; 30 seconds of silence; header sizes as in twisted.web (16 KiB in all); one
answer at a time (`proxy.daemon.admin.in_turn`).

This module imports twisted.web: import it only when there is an admin listener.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, Protocol

from twisted.internet.interfaces import IProtocolFactory, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from proxy.daemon.admin import page as status_page
from proxy.daemon.admin.access import Access
from proxy.daemon.admin.figures.exposition import CONTENT_TYPE
from proxy.daemon.admin.in_turn import InTurn
from proxy.daemon.admin.status import CertificateShown, RouteCauses

MAX_CONNECTIONS = 64
IDLE_TIMEOUT = 30.0  # seconds
_PLAIN = b"text/plain; charset=utf-8"


class StatusSource(Protocol):
    """What the site shows; `proxy.daemon.admin.status.StatusBoard` is one."""

    def metrics_text(self) -> bytes:
        """Prometheus' text format, over all workers."""

    def status(self) -> dict[str, Any]:
        """What `/status.json` says."""

    @property
    def draining(self) -> bool:
        """No new sessions are accepted."""

    @property
    def plot(self) -> Sequence[Sequence[int]]:
        """Sixty rows `[Unix time of the minute, sessions, repaired]`, oldest first."""

    @property
    def causes(self) -> Mapping[str, RouteCauses]:
        """Of each route, why sessions were refused or failed."""

    @property
    def certificates(self) -> Sequence[CertificateShown]:
        """The certificates in use, the first to expire first."""


def build_site(
    source: StatusSource,
    *,
    loopback: bool = True,
    access: Access | None = None,
    health_only: bool = False,
    reactor: IReactorTime,
    now: Callable[[], float] = time.time,
) -> IProtocolFactory:
    """The factory to listen with; without `access`, that of a loopback address (`loopback`) or of any other."""
    access = access or Access(local=loopback)
    site = _QuietSite(  # type: ignore[no-untyped-call]  # twisted.web is not annotated
        _Pages(source, access, now, health_only, reactor),
        timeout=IDLE_TIMEOUT,
        parsePOSTFormSubmission=False,
        reactor=reactor,
    )
    return _FewConnections(site)  # type: ignore[no-untyped-call]  # twisted.protocols is not annotated


class _Pages(Resource):
    """All paths in one resource: there are five, or two."""

    isLeaf = True

    def __init__(
        self,
        source: StatusSource,
        access: Access,
        now: Callable[[], float],
        health_only: bool,
        reactor: IReactorTime,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._source = source
        self._access = access
        self._now = now
        self._log = Logger()
        self._in_turn = InTurn(reactor, self._give)
        self._paths: dict[bytes, Callable[[], tuple[int, bytes, bytes]]] = {
            b"/": self._page,
            b"/status.json": self._status,
            b"/metrics": self._metrics,
        }
        if health_only:
            self._paths.clear()
        self._paths.update({b"/healthz": self._health, b"/readyz": self._readiness})

    def render(self, request: HTTPRequest) -> int:
        self._in_turn.ask(request)
        return NOT_DONE_YET

    def _give(self, request: HTTPRequest) -> None:
        code, content_type, body = self._answer(request)
        request.setResponseCode(code)
        for name, value in (
            (b"Server", b"ehlo-proxy"),
            (b"Content-Type", content_type),
            (b"Content-Length", b"%d" % len(body)),
            (b"Content-Security-Policy", status_page.POLICY),
            (b"Cache-Control", b"no-store"),
            (b"X-Content-Type-Options", b"nosniff"),
            (b"Referrer-Policy", b"no-referrer"),
            (b"Cross-Origin-Resource-Policy", b"same-origin"),
        ):
            request.setHeader(name, value)
        request.write(b"" if request.method == b"HEAD" else body)
        request.finish()

    def _answer(self, request: HTTPRequest) -> tuple[int, bytes, bytes]:
        client = getattr(request.getClientAddress(), "host", None)  # a UNIX socket has no host
        refused = self._access.refusal(client, request.getHeader("host"))
        if refused is not None:
            return refused[0], _PLAIN, refused[1].encode("ascii", "replace")
        made = self._paths.get(request.path)
        if made is None:
            return 404, _PLAIN, b"there is " + b" ".join(self._paths) + b"\n"
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"Allow", b"GET, HEAD")
            return 405, _PLAIN, b"only GET and HEAD\n"
        try:
            return made()
        except Exception:
            # A bug of ours costs the one who asked an answer, and nobody else anything.
            self._log.failure("the admin site can't make {path}", path=request.path)
            return 500, _PLAIN, b"this could not be made; the log says why\n"

    def _page(self) -> tuple[int, bytes, bytes]:
        source = self._source
        page = status_page.render(source.status(), source.plot, source.certificates, source.causes, self._now())
        return 200, b"text/html; charset=utf-8", page.encode("utf-8", "xmlcharrefreplace")

    def _status(self) -> tuple[int, bytes, bytes]:
        return 200, b"application/json", json.dumps(self._source.status(), indent=1).encode("ascii") + b"\n"

    def _metrics(self) -> tuple[int, bytes, bytes]:
        return 200, CONTENT_TYPE, self._source.metrics_text()

    def _health(self) -> tuple[int, bytes, bytes]:
        return 200, _PLAIN, b"ok\n"

    def _readiness(self) -> tuple[int, bytes, bytes]:
        if self._source.draining:
            return 503, _PLAIN, b"draining\n"
        return 200, _PLAIN, b"ready\n"


class _NoBody(BytesIO):
    """Where a request's body goes: away, so that its size costs nothing."""

    def write(self, data: Any) -> int:
        return len(data)


class _QuietSite(Site):
    """A Site that logs no requests (the log is the mail's) and keeps no bodies."""

    def log(self, request: HTTPRequest) -> None:
        pass

    def getContentFile(self, length: int | None) -> BytesIO:
        return _NoBody()


class _FewConnections(WrappingFactory):
    """At most MAX_CONNECTIONS at a time: a new one ends the oldest."""

    noisy = False

    def registerProtocol(self, p: TwistedProtocol) -> None:
        while len(self.protocols) >= MAX_CONNECTIONS:
            oldest: ProtocolWrapper = next(iter(self.protocols))
            self.unregisterProtocol(oldest)
            if oldest.transport is not None:
                ITCPTransport(oldest.transport).abortConnection()
        self.protocols[p] = 1

    def unregisterProtocol(self, p: TwistedProtocol) -> None:
        self.protocols.pop(p, None)
