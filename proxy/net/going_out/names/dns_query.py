"""One question to the name servers of this host, over UDP, or TCP where the answer is too long.

Each question has a socket of its own, connected to the server, so that the kernel takes only that server's datagrams
and picks a fresh port, and an answer counts only with the right number and question in it (RFC 5452 9).  What does not
fit is ignored, and the wait goes on.  A datagram is read only as far as one may be long that we have asked for.

A server that does not answer within `RETRY_AFTER` seconds, refuses the port, or answers with a failure of its own
(SERVFAIL, REFUSED, ...) is left for the next; after the last the round begins again until the time is over.  A round of
failures only is a failure at once.

Why not twisted.names.client: the first answer with the right number from the right address is its last word, also when
that server only says that it fails; and it reads messages as told in `dns_message`.

Left to others: caching, /etc/hosts, search domains and what an answer means (`proxy.net.going_out.names.resolver`).
"""

from __future__ import annotations

import random
import select
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from proxy.net.going_out.names.dns_message import (
    FAILURES,
    MAX_DATAGRAM,
    NO_ERROR,
    NO_SUCH_NAME,
    DnsAnswer,
    question,
    read_answer,
)

if TYPE_CHECKING:
    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Poller

RETRY_AFTER = 2.0  # seconds
DATAGRAMS_A_TURN = 64

_choose = random.SystemRandom()


class Query:
    """One question under way.  `done` is called once, with the answer or None, never from within the constructor."""

    def __str__(self) -> str:
        return "name lookup"

    def __init__(
        self,
        name: str,
        kind: int,
        servers: Sequence[tuple[str, int]],
        poller: Poller,
        deadlines: Deadlines,
        timeout: float,
        done: Callable[[DnsAnswer | None, str], None],
    ) -> None:
        """`kind` is a number of `dns_message`; `servers` are addresses and ports, in order; `timeout` in seconds.

        `done` gets the answer and "", or None and the reason in a few words.  Raises ValueError for a name that no
        question can hold."""
        self._question = question(0, name, kind)
        self._servers = servers
        self._poller = poller
        self._deadlines = deadlines
        self._done: Callable[[DnsAnswer | None, str], None] | None = done
        self._ends_at = deadlines.now() + timeout
        self._next = 0  # index of the next server
        self._failures = 0  # answers that were failures, in a row
        self._reason = "no answer from the name server"
        self._asked = b""  # the question that was sent, with its number
        self._sock: socket.socket | None = None
        self._stream: bytearray | None = None  # what came over TCP
        self._unsent = b""
        self._ask_next()

    def cancel(self) -> None:
        """Nobody wants the answer any longer."""
        self._done = None
        self._close()
        self._deadlines.cancel(self)

    # Asking.

    def _ask_next(self, stream: bool = False) -> None:
        """Ask the next server, or by `stream` the same one again over TCP."""
        self._close()
        now = self._deadlines.now()
        if now >= self._ends_at:
            self._finish(None, self._reason)
            return
        if not stream:
            self._next += 1
        server = self._servers[(self._next - 1) % len(self._servers)]
        # A server that can't even be asked has failed, but not within this call.
        wait = RETRY_AFTER if self._open(server, stream) else 0.0
        self._deadlines.at(min(now + wait, self._ends_at), self)

    def _open(self, server: tuple[str, int], stream: bool) -> bool:
        packed = self._asked = _choose.randrange(65536).to_bytes(2, "big") + self._question[2:]
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        try:
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            self._reason = f"the name server can't be asked: {error.strerror}"
            return False
        try:
            sock.connect_ex(server)
            if stream:
                self._stream = bytearray()
                self._unsent = len(packed).to_bytes(2, "big") + packed
            else:
                sock.send(packed)
            self._poller.add(sock.fileno(), self)
        except OSError as error:
            sock.close()
            self._reason = f"the name server can't be asked: {error.strerror}"
            return False
        self._sock = sock
        return True

    def _close(self) -> None:
        sock, self._sock = self._sock, None
        self._stream = None
        if sock is not None:
            self._poller.remove(sock.fileno())
            sock.close()

    # What comes back.

    def ready(self, mask: int) -> None:
        if self._sock is None:
            return
        try:
            if self._stream is None:
                self._read_datagrams()
            else:
                self._read_stream(mask)
        except BlockingIOError:
            pass
        except OSError as error:
            self._reason = f"no answer from the name server: {error.strerror}"
            self._failed_here()

    def _read_datagrams(self) -> None:
        for _ in range(DATAGRAMS_A_TURN):  # a flood of what does not fit may not hold us here
            sock = self._sock
            if sock is None or self._stream is not None:
                return
            self._judge(sock.recv(MAX_DATAGRAM))
        self._poller.soon(self)

    def _read_stream(self, mask: int) -> None:
        sock, stream = self._sock, self._stream
        assert sock is not None
        assert stream is not None
        if self._unsent and mask & (select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR):
            self._unsent = self._unsent[sock.send(self._unsent) :]
        for _ in range(4):  # 64 KiB is the longest message; a peer that sends more is not heard to its end here
            data = sock.recv(65536)
            stream += data
            length = int.from_bytes(stream[:2], "big") + 2
            if len(stream) >= max(2, length):
                if not self._judge(bytes(stream[2:length])):
                    self._failed_here()
                return
            if not data:
                self._reason = "the name server closed the connection"
                self._failed_here()
                return

    def _judge(self, data: bytes) -> bool:
        """Take the answer if it is one to our question.  What does not fit is not one."""
        answer = read_answer(data, self._asked)
        if answer is None:
            return False
        if answer.truncated and self._stream is None:
            self._ask_next(stream=True)
        elif answer.code in (NO_ERROR, NO_SUCH_NAME):
            self._finish(answer, "")
        else:
            self._reason = f"the name server fails ({FAILURES.get(answer.code, answer.code)})"
            self._failed_here()
        return True

    def _failed_here(self) -> None:
        """This server can't answer: the next, unless all have said so."""
        self._failures += 1
        if self._failures >= len(self._servers):
            self._finish(None, self._reason)
        else:
            self._ask_next()

    def _finish(self, answer: DnsAnswer | None, reason: str) -> None:
        self._close()
        self._deadlines.cancel(self)
        done, self._done = self._done, None
        if done is not None:
            done(answer, reason)

    def deadline_passed(self, now: float) -> None:
        if self._sock is None:
            self._failed_here()
        else:
            self._ask_next()

    def failed(self, error: BaseException) -> None:
        self._finish(None, "internal error")
