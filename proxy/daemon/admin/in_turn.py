"""One page at a time, and half of the time none: who asks for pages can't hold the mail.

A page takes some milliseconds, on a busy proxy tens of them, and sixty-four connections may each ask for hundreds in
one segment (pipelining, RFC 9112 9.3.2).  So each request waits for its turn here; behind each page there is as long a
pause as it took.  A request whose connection is full of what nobody reads is passed over until it has been read, so
that one page a connection lies there and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.http import Request

LEAST_PAUSE: Final = 0.001  # seconds; parsing the request took some time, too
LOOK_AGAIN: Final = 0.25  # seconds, where everybody who waits is full


class InTurn:
    """`answer` is called with one request after the other."""

    def __init__(self, clock: IReactorTime, answer: Callable[[Request], None]) -> None:
        self._clock = clock
        self._answer = answer
        self._waiting: dict[Request, None] = {}  # in order
        self._free_at = 0.0
        self._answering = False
        self._call: IDelayedCall | None = None

    def ask(self, request: Request) -> None:
        """It is answered now, or in its turn, or never where its connection ends before."""
        self._waiting[request] = None
        request.notifyFinish().addErrback(lambda _gone: self._waiting.pop(request, None))
        if not self._answering and self._call is None:
            self._go_on()

    def _go_on(self) -> None:
        wait = self._free_at - self._clock.seconds()
        if wait > 0:
            self._call = self._clock.callLater(wait, self._next)
        else:
            self._next()

    def _next(self) -> None:
        self._call = None
        found = next((one for one in self._waiting if not _is_full(one)), None)
        if found is not None:
            del self._waiting[found]
            self._answering = True  # the end of an answer brings the connection's next request
            began = perf_counter()
            try:
                self._answer(found)
            finally:
                self._answering = False
                self._free_at = self._clock.seconds() + max(perf_counter() - began, LEAST_PAUSE)
                if self._waiting:
                    self._go_on()
        elif self._waiting:
            self._call = self._clock.callLater(LOOK_AGAIN, self._next)


def _is_full(request: Request) -> bool:
    """Whether its connection takes nothing now; twisted.web has no public word for it."""
    return getattr(request.channel, "_waitingForTransport", False)
