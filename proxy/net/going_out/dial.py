"""One session's way to a server: the state of a dial.  The rules are told in `proxy.net.going_out.dialer`.

At any time a dial does one of: wait for a look-up, race the addresses of one target, wait for the next turn to go on
to the next target, or, once connected, nothing.  It is over when the owner was told that nothing is left, when a bug
of ours was told, and after `cancel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from proxy.net.going_out.attempt import OUR_OWN, Attempt
from proxy.net.going_out.destination import (
    NAME_NOT_RESOLVED,
    NO_ANSWER_FROM_HOST,
    ROUTING_LOOP,
    Server,
    by_preference,
    interleave,
    key_of,
)
from proxy.net.going_out.names.wanted import NotResolved

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine, Sequence

    from twisted.python.failure import Failure

    from proxy.net.going_out.dialer import Dialer
    from proxy.net.observer import Story
    from proxy.settings import Destination

ATTEMPT_DELAY = 0.25  # seconds; RFC 8305 8, Connection Attempt Delay
ATTEMPT_TIMEOUT = 10.0  # seconds for one address

# Of several causes the one that comes last here is told.
_WEIGHT = {"": 0, NAME_NOT_RESOLVED: 1, ROUTING_LOOP: 2, NO_ANSWER_FROM_HOST: 3}

_log = Logger(namespace="proxy.net.going_out.dial")


class Dialling(Protocol):
    """Who waits for a server."""

    def server_connected(self, sock: socket.SocketType, server: Server, mask: int) -> None:
        """`sock` is connected, non-blocking, NODELAY, and the owner's.  It is registered in the poller: `replace` it
        now.  `mask` is what the poller said, data or an end among it; nothing of it is told again."""

    def server_unreachable(self, status: str, reason: str, server: Server | None) -> None:
        """There is nothing left to try: RFC 3463 status, a few words, and what was tried.  The dial is over."""

    def failed(self, error: BaseException) -> None:
        """A bug of ours, also one in `server_connected`.  The dial is over."""


class Dial:
    """One session's way to a server."""

    __slots__ = (
        "_attempts", "_blame", "_dialer", "_ends_at", "_left", "_lookup", "_original", "_outcome", "_owner", "_servers",
        "_source", "_story", "_target", "server", "started_at",
    )  # fmt: skip

    def __init__(
        self,
        dialer: Dialer,
        owner: Dialling,
        client: tuple[str, int],
        original: tuple[str, int] | None = None,
        story: Story | None = None,
    ) -> None:
        """Starts at once.  `original` is where the client wanted to go, for a destination `original`; `story` goes to
        the observer with each failure."""
        self._dialer = dialer
        self._owner: Dialling | None = owner
        self._source = client[0] if dialer.transparent else dialer.source  # the address to connect from; empty for any
        self._original = original
        self._story = story
        self.started_at = now = dialer.deadlines.now()  # of the attempt that was connected, once there is one
        self.server: Server | None = None  # that is connected
        self._left = dialer.in_order(now, original)
        self._target: Server | None = None  # whose addresses are tried
        self._servers: Sequence[Server] = ()  # its addresses that were not tried yet
        self._attempts: list[Attempt] = []  # under way
        self._lookup: Deferred[None] | None = None  # under way
        self._outcome: tuple[str, str, Server | None] = ("", "no destination", None)
        self._go_on(now)

    # What the session asks for.

    @property
    def another_left(self) -> bool:
        """Is there another destination to try with `next`?"""
        return bool(self._left)

    def next(self, reason: str) -> None:
        """The server that was connected is of no use, and closed by the owner: try the next destination."""
        server, target = self.server, self._target
        self.server = None
        if self._owner is not None and server is not None and target is not None:
            self._tell(server, reason)
            self._dialer.memory.failed(server.where, self._dialer.deadlines.now())
            self._give_up(target, NO_ANSWER_FROM_HOST, reason, server)

    def succeeded(self) -> None:
        """The server greeted: it is not down, if it was."""
        memory, server = self._dialer.memory, self.server
        if len(memory) and server is not None:
            memory.succeeded(key_of(server, self._original))
            memory.succeeded(server.key)
            memory.succeeded(server.where)

    def cancel(self) -> None:
        """The session is over.  A socket that was handed over stays the owner's."""
        self._owner = None
        self._left = ()
        self._stop()

    # What the poller and the deadlines call.

    def ready(self, mask: int) -> None:
        """The turn after a target was given up."""
        if self._owner is None:
            return
        if self._left:
            self._go_on(self._dialer.deadlines.now())
        else:
            owner, self._owner = self._owner, None
            owner.server_unreachable(*self._outcome)

    def failed(self, error: BaseException) -> None:
        owner = self._owner
        self.cancel()
        if owner is not None:
            owner.failed(error)

    def deadline_passed(self, now: float) -> None:
        """The last attempt has had its 250 ms."""
        self._begin_attempt(now)

    # Targets, one after the other.

    def _go_on(self, now: float) -> None:
        """Begin with the first of what is left."""
        first, self._left = self._left[0], self._left[1:]
        if isinstance(first, Server):
            self._target = first
            if first.address:
                self._race((first,), now)
            else:
                self._look_up(self._resolve(first))
        elif first.kind == "mx":
            self._target = domain = Server(first.host, "", first.port, first)
            self._look_up(self._exchanges(domain))
        elif first.kind == "original":
            self._begin_original(first, now)
        else:
            self._refuse(Server(first.host, first.host, first.port, first), ROUTING_LOOP, "that is this proxy itself")

    def _begin_original(self, destination: Destination, now: float) -> None:
        """Where the intercepted client wanted to go."""
        address, port = self._original or ("", 0)
        self._target = target = Server(address, address, port, destination)
        route = self._dialer.route
        refusal = (
            self._dialer.surroundings.original_refusal(address, port, route.original_ports, route.original_networks)
            if self._original
            else (ROUTING_LOOP, "the connection was not intercepted")
        )
        if refusal is None:
            self._race((target,), now)
        else:
            self._refuse(target, *refusal)

    def _look_up(self, asking: Coroutine[Deferred[None], None, None]) -> None:
        lookup = Deferred.fromCoroutine(asking)
        if not lookup.called:
            self._lookup = lookup
        lookup.addErrback(self._broke)

    async def _exchanges(self, domain: Server) -> None:
        """Put the exchanges of a mail domain in its place."""
        dialer = self._dialer
        try:
            exchanges = await dialer.names().exchanges(domain.name, dialer.route.timeouts.resolve)
        except NotResolved as problem:
            self._lookup = None
            self._refuse(domain, NAME_NOT_RESOLVED, str(problem))
            return
        self._lookup = None
        if not exchanges:
            self._refuse(domain, NAME_NOT_RESOLVED, "it has no usable mail exchange")
            return
        now = dialer.deadlines.now()
        targets = [Server(exchange.name, "", domain.port, domain.destination) for exchange in by_preference(exchanges)]
        down = [target for target in targets if dialer.memory.is_down(target.key, now)]
        self._left = (*[target for target in targets if target not in down], *self._left, *down)
        self._dialer.poller.soon(self)

    async def _resolve(self, target: Server) -> None:
        """Race what may be connected of the addresses of a name."""
        dialer = self._dialer
        try:
            addresses = await dialer.names().addresses(target.name, dialer.route.timeouts.resolve)
        except NotResolved as problem:
            self._lookup = None
            self._refuse(target, NAME_NOT_RESOLVED, str(problem))
            return
        self._lookup = None
        source = self._source
        if source:
            addresses = tuple(address for address in addresses if (":" in address) == (":" in source))
            if not addresses:
                self._refuse(target, NO_ANSWER_FROM_HOST, f"no address of the family of the source address {source}")
                return
        refusals = {address: dialer.surroundings.refusal(address, target.port) for address in addresses}
        usable = [address for address, refusal in refusals.items() if refusal is None]
        if usable:
            now = dialer.deadlines.now()
            servers = [target.at(address) for address in interleave(usable)]
            self._race(dialer.memory.down_last(servers, lambda server: server.where, now), now)
        else:
            refused = [refusal for refusal in refusals.values() if refusal is not None]
            loops = [refusal for refusal in refused if refusal[0] == ROUTING_LOOP]
            self._refuse(target, *[*loops, *refused, (NAME_NOT_RESOLVED, "it has no address")][0])

    def _broke(self, failure: Failure) -> None:
        """A look-up was cancelled, by us; all else is a bug of ours and ends this target."""
        self._lookup = None
        if failure.check(CancelledError) is None:
            _log.failure("A look-up went wrong: {target!r}", failure, target=self._target)
            if self._owner is not None and self._target is not None:
                self._refuse(self._target, NAME_NOT_RESOLVED, "internal error")

    # The addresses of one target.

    def _race(self, servers: Sequence[Server], now: float) -> None:
        self._servers = servers
        self._blame = False  # did the target do anything wrong?
        self._ends_at = now + self._dialer.connect_timeout
        self._begin_attempt(now)

    def _begin_attempt(self, now: float) -> None:
        """Connect the next address, or give the target up when none is left and none under way."""
        dialer = self._dialer
        while self._servers and now < self._ends_at:
            server, self._servers = self._servers[0], self._servers[1:]
            ends_at = min(now + ATTEMPT_TIMEOUT, self._ends_at)
            try:
                attempt = Attempt(self, dialer, server, self._source, now, ends_at)
            except OSError as error:
                self._note(server, error.strerror or str(error), error.errno or 0)
                continue
            self._attempts.append(attempt)
            if self._servers:
                dialer.deadlines.at(now + ATTEMPT_DELAY, self)
            return
        if not self._attempts and self._target is not None:
            _, reason, last = self._outcome
            self._give_up(self._target, NO_ANSWER_FROM_HOST, reason, last, self._blame)

    def attempt_failed(self, attempt: Attempt, reason: str, code: int) -> None:
        """One address did not answer, the next begins at once."""
        self._attempts.remove(attempt)
        self._note(attempt.server, reason, code)
        deadlines = self._dialer.deadlines
        deadlines.cancel(self)
        self._begin_attempt(deadlines.now())

    def attempt_won(self, attempt: Attempt, mask: int) -> None:
        """One address is connected, the others are forgotten."""
        self._attempts.remove(attempt)
        if self._attempts or self._servers:
            self._stop()
        self.server = attempt.server
        self.started_at = attempt.started_at
        if self._owner is not None:
            self._owner.server_connected(attempt.sock, attempt.server, mask)

    def _note(self, server: Server, reason: str, code: int) -> None:
        """One address failed."""
        self._tell(server, reason)
        self._outcome = (NO_ANSWER_FROM_HOST, reason, server)
        if code not in OUR_OWN:
            self._blame = True
            self._dialer.memory.failed(server.where, self._dialer.deadlines.now())

    def _stop(self) -> None:
        """Forget what is under way for the target."""
        self._servers = ()
        self._dialer.deadlines.cancel(self)
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.close()
        lookup, self._lookup = self._lookup, None
        if lookup is not None:
            lookup.cancel()

    # The end of a target.

    def _refuse(self, target: Server, status: str, reason: str) -> None:
        """A target that was not even tried."""
        self._tell(target, reason)
        self._give_up(target, status, reason, target)

    def _give_up(self, target: Server, status: str, reason: str, server: Server | None, blame: bool = True) -> None:
        """On to the next, in the next turn.  `blame`: it is tried last for a while."""
        if _WEIGHT[status] >= _WEIGHT[self._outcome[0]]:
            self._outcome = (status, reason, server)
        if blame:
            now = self._dialer.deadlines.now()
            memory = self._dialer.memory
            memory.failed(target.key, now)
            # A mail domain is down when its last exchange is.
            if not any(isinstance(one, Server) and one.destination is target.destination for one in self._left):
                memory.failed(key_of(target, self._original), now)
        self._dialer.poller.soon(self)

    def _tell(self, server: Server, reason: str) -> None:
        dialer = self._dialer
        if self._story is not None:
            self._story.tried(server.where, server.host_name)
        dialer.observer.destination_failed(dialer.route.name, server.where, server.host_name, reason, self._story)
