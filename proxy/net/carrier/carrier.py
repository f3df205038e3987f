"""One session at the edge: feeds the pure `Session`, does what it is told, and carries the rest.

A `Carrier` is made when a client was admitted.  It dials, owns both connections, keeps the session's deadlines, tells
the observer, and sees the session to its end, which is told exactly once.  When the session has let go of both
directions it is dropped, and what is left is a relay: bytes, FIN for FIN, reset for reset, and two time-outs.
"""

from __future__ import annotations

import socket
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.net.carrier.actions import DO
from proxy.net.carrier.ending import Ends
from proxy.net.carrier.looking import HANDSHAKE_RECORD, Onlooker
from proxy.net.carrier.securing import Securing
from proxy.net.carrier.telling import TELL
from proxy.net.going_out.dial import Dial
from proxy.net.relay.connection import Connection
from proxy.net.relay.reading import PEER_FULL, SESSION_FULL, Reading
from proxy.smtp.session.events import Action, ToClient, ToServer
from proxy.smtp.session.session import Session

if TYPE_CHECKING:
    from proxy.net.carrier.shared import Shared
    from proxy.net.going_out.destination import Server
    from proxy.net.observer import Story

MAX_NAME: Final = 255  # octets of a client's name that are kept
IMPLICIT_TLS: Final = ":465"  # RFC 8314 7.3


class Carrier:
    """Made by a listener; `begin` starts it."""

    __slots__ = (
        "client", "connected_to", "dial", "due", "early", "ends", "onlooker", "original", "over",
        "route", "securing", "server", "session", "story",
    )  # fmt: skip

    def __init__(self, route: Shared, sock: socket.SocketType, story: Story, *, trusted: bool) -> None:
        """`sock` is accepted and non-blocking; `trusted`: this client may use XCLIENT."""
        self.route = route
        self.story = story
        now = monotonic()
        self.session: Session | None = Session(
            route.policy, now, client_trusted=trusted, client_address=story.client, session_id=story.id
        )
        self.client = Connection("client", sock, self, route.poller, route.deadlines)
        self.server: Connection | None = None
        self.connected_to: Server | None = None  # the last one
        self.dial: Dial | None = None
        recorder = route.recorders.begin(story, now) if route.recorders is not None else None
        self.onlooker = Onlooker(story, recorder, route.observer)
        self.securing: Securing | None = None
        self.due: float | None = None  # what `deadlines` knows
        self.early = b""  # the beginning of a TLS record that came before the server was connected
        self.original: tuple[str, int] | None = None  # where the client wanted to go, when it was intercepted
        self.ends = Ends(now, route.settings.timeouts)
        self.over = False

    def __str__(self) -> str:
        """Whose deadline it is, for the log of slow turns."""
        return f"session {self.story.id} of route {self.story.route}"

    def begin(self, original: tuple[str, int] | None, *, registered: bool = False) -> None:
        """Connect first, and read the client meanwhile: what it says early waits."""
        route = self.route
        self.original = original
        if registered:
            route.poller.replace(self.client.sock.fileno(), self.client)
            route.poller.soon(self.client)  # what stands behind the PROXY header was told already
        else:
            route.poller.add(self.client.sock.fileno(), self.client)
        if route.secure is not None and route.implicit:
            self.secure().client()
            if self.over:
                return
        self.connect()

    def connect(self) -> None:
        """Dial, in place of what was dialled before."""
        if self.dial is not None:
            self.dial.cancel()
        story = self.story
        self.dial = Dial(self.route.dialer, self, (story.client, story.client_port), self.original, story)

    # -- what the dial tells -----------------------------------------------------------------------------------------

    def server_connected(self, sock: socket.SocketType, server: Server, mask: int) -> None:
        """The way is free: the session goes on with the server's banner."""
        route = self.route
        dial, session = self.dial, self.session
        assert dial is not None
        assert session is not None
        now = monotonic()
        story = self.story
        own, port = sock.getsockname()[:2]
        story.connected(server.where, server.host_name, port)
        self.connected_to = server
        connection = self.server = Connection("server", sock, self, route.poller, route.deadlines)
        connection.join(self.client)
        route.poller.replace(sock.fileno(), connection)
        route.observer.destination_connected(story, now - dial.started_at)
        if route.settings.send_proxy_protocol:
            connection.sender.write(route.proxy_header(self.client.sock, story))
        self.obey(
            session.server_connected(
                now,
                name=server.name,
                address=server.address,
                port=server.port,
                memory=route.memory_of(server, own),
                another_left=dial.another_left,
            )
        )
        early, self.early = self.early, b""
        if early and not self.over:
            self.client_data(early, now)
            self.client.resume(SESSION_FULL)
        if not self.over and self.server is connection:
            connection.ready(mask)

    def server_greeted(self) -> None:
        """The server works: it is not down, if it was, and where nothing else could be tried the dial is over."""
        dial = self.dial
        if dial is not None:
            dial.succeeded()
            if not dial.another_left:
                self.dial = None

    def server_unreachable(self, status: str, reason: str, server: Server | None) -> None:
        """No destination is left."""
        if self.session is not None:
            where = str(server) if server is not None else ", ".join(str(d) for d in self.route.settings.destination)
            self.obey(self.session.unreachable(status, reason, where, monotonic()))

    # -- what the connections tell -----------------------------------------------------------------------------------

    def client_data(self, data: bytes, now: float) -> None:
        """Bytes of the client that the session reads."""
        session = self.session
        if session is None or (data[:1] == HANDSHAKE_RECORD and self._tls_from_the_first_byte(data)):
            return
        if self.onlooker.reads:
            self.onlooker.read(True, data, now)
        self.obey(session.client_data(data, now))
        if self.session is None:
            if self.story.tls == "passthrough":
                self.onlooker.tls_passes(data)  # the ClientHello is what made the session let go
                self._show()
        elif not session.wants_client:
            self.client.pause(SESSION_FULL)

    def _tls_from_the_first_byte(self, data: bytes) -> bool:
        """Where the destination's port is 465 there is nothing to repair in clear: relay at once, both ways, unread.

        RFC 8314 3.3; elsewhere these bytes are an unknown command like any other.
        """
        story, server = self.story, self.server
        if self.client.octets > len(data) or self.route.policy.bridge is not None:
            return False
        if server is None:
            self.early += data
            self.client.pause(SESSION_FULL)
            return True
        if not story.destination.endswith(IMPLICIT_TLS) or server.octets:
            return False
        story.passes_through()
        self.onlooker.server_let_go(True)
        self.onlooker.tls_passes(data)
        server.let_go()
        self.client.let_go()
        self.server_relays()
        server.sender.write(data)
        return True

    def server_data(self, data: bytes, now: float) -> None:
        """Bytes of the server that the session reads."""
        if self.session is not None:
            if self.onlooker.reads:
                self.onlooker.read(False, data, now)
            self.obey(self.session.server_data(data, now))

    def ended(self, connection: Reading, reset: bool) -> None:
        """Nothing more comes from one side: it ended, or (`reset`) it is gone altogether."""
        ends = self.ends
        side = "client" if connection is self.client else "server"
        other = self.server if connection is self.client else self.client
        if reset and other is not None and not ends.first:
            if self.session is not None and not other.ended:
                other.ready(0)
                if self.over:
                    return
            if self.session is None or other is self.server:
                other.look_for_its_end()
        ends.came(side, connection, other, reset)
        now = monotonic()
        session = self.session
        if session is None:
            self._relay_ended(side, connection, other, reset)
        elif connection is self.client:
            self.obey(session.client_ended(reset, now))
        else:
            self.obey(session.server_ended(reset, now))
            if self.session is None and not self.over:
                self._relay_ended(side, connection, other, reset)

    def _relay_ended(self, side: str, connection: Reading, other: Connection | None, reset: bool) -> None:
        """FIN for FIN, reset for reset; `connection` is that of this side."""
        if reset:
            self.end(f"{side}-reset", side, "", reset_client=side == "server", reset_server=side == "client")
            return
        if other is None or other.ended:
            self.end("completed", side, "")
            return
        other.sender.finish(clean=connection.end_was_clean)
        self.half_closed()

    def half_closed(self) -> None:
        """One side was told that the other has ended."""
        self.ends.half_closed(monotonic())
        if self.client.relaying:
            self.set_deadline()

    def client_relays(self) -> None:
        """What the client sends is relayed from now on."""
        assert self.session is not None
        self.ends.active(self.session.now)
        self._show()

    def server_relays(self) -> None:
        """What the server sends is, too: the session reads no more."""
        self.forget_session()
        self.ends.active(monotonic())
        self.set_deadline()
        self._show()

    def _show(self) -> None:
        """Let the onlooker see what is relayed, until it has seen enough."""
        if self.onlooker.wants:
            self.client.flow.show_to(partial(self.onlooker.relayed, True))
            if self.server is not None:
                self.server.flow.show_to(partial(self.onlooker.relayed, False))

    def failed(self, error: BaseException) -> None:
        """A bug of ours; the poller has logged it."""
        self.end("error", "proxy", f"internal error: {type(error).__name__}", reset_client=True, reset_server=True)

    # -- doing what the session says ---------------------------------------------------------------------------------

    def obey(self, actions: list[Action]) -> None:
        """Carry the actions out, in order; but the peer has its bytes before anybody is told of them."""
        untold: Action | None = None
        for action in actions:
            kind = type(action)
            if kind is ToClient:
                self.client.sender.write(action.data)  # type: ignore[union-attr]  # told by its type
            elif kind is ToServer:
                if self.server is not None:
                    self.server.sender.write(action.data)  # type: ignore[union-attr]  # told by its type
            else:
                if untold is not None:
                    TELL[type(untold)](self, untold)
                do = DO.get(kind)
                if do is None:
                    untold = action
                    continue
                untold = None
                do(self, action)
                if self.over:
                    return
        if untold is not None:
            TELL[type(untold)](self, untold)
        if self.client.paused & SESSION_FULL and self.session is not None and self.session.wants_client:
            self.client.resume(SESSION_FULL)

    def read_on_later(self) -> None:
        """The session goes on with what the client has said when others have had their turn."""
        self.route.poller.later(self)

    def ready(self, mask: int) -> None:
        """It goes on."""
        self.obey(self.session.read_on(monotonic()) if self.session is not None else [])

    def forget_session(self) -> None:
        """Nothing is read any more."""
        session, self.session = self.session, None
        if session is not None:
            self.story.client_is(session.client_name[:MAX_NAME].decode("latin-1"))

    def drop_server(self) -> None:
        """Close the connection to the server without a word."""
        server, self.server = self.server, None
        if server is not None:
            self.story.left(server.octets)
            server.part()
            server.close(reset=False, abort_after=self.route.settings.timeouts.abort)
        self.client.resume(PEER_FULL)

    def secure(self) -> Securing:
        """This session's handshakes."""
        if self.securing is None:
            self.securing = Securing(self)
        return self.securing

    # -- time --------------------------------------------------------------------------------------------------------

    def set_deadline(self) -> None:
        """For a relay, also of one direction only: nothing for too long, either way."""
        when = self.ends.due(self.client, self.server)
        if self.due is None or when < self.due:
            self.due = when
            self.route.deadlines.at(when, self)

    def look_at_deadline(self) -> None:
        """For a session: at its deadline, or when another may have come that was not told."""
        session = self.session
        if session is not None:
            when, deadline = session.now + self.route.shortest, session.deadline
            if deadline is not None and deadline < when:
                when = deadline
            if self.due is None or when < self.due:
                self.due = when
                self.route.deadlines.at(when, self)

    def deadline_passed(self, now: float) -> None:
        """Some deadline that was set has come; the real one may have moved on since."""
        self.due = None
        if self.over:
            return
        now = monotonic()
        session = self.session
        if session is not None and not (self.client.relaying and session.deadline is None):
            self.obey(session.time_passed(now))
            if not self.over:
                self.look_at_deadline()
            return
        if now >= self.ends.due(self.client, self.server):
            self.end("timeout", "proxy", self.ends.too_late)
        else:
            self.set_deadline()

    def drain(self, quiet_for: float) -> None:
        """The service stops.  A session that has let go may end by itself, unless it has been quiet so long."""
        if self.session is not None:
            self.obey(self.session.drain(monotonic()))
        relays = self.session is None or self.client.relaying
        if not self.over and relays and monotonic() - self.ends.quiet_since(self.client, self.server) >= quiet_for:
            self.end("aborted", "proxy", "quiet while the service is being stopped")

    def tell_flow(self) -> None:
        """How many bytes there were until now, for who counts them while they flow."""
        story, server = self.story, self.server
        from_server = story.bytes_from_server + (server.octets if server is not None else 0)
        self.route.observer.bytes_flowed(story, self.client.octets, from_server)

    # -- the end -----------------------------------------------------------------------------------------------------

    def end(
        self, outcome: str, by: str, reason: str, *, reset_client: bool = False, reset_server: bool = False
    ) -> None:
        """Tell the end, once, and close what is open."""
        if self.over:
            return
        self.over = True
        route, story = self.route, self.story
        client, server = self.client, self.server
        let_go, inside_tls = self.session is None, story.tls == "passthrough"
        what, who = self.ends.judged(outcome, by, client, server, let_go=let_go, inside_tls=inside_tls)
        if what == "client-closed":
            reason = ""  # how the server followed
        failure = self.onlooker.tls_failure()
        if failure and outcome not in ("aborted", "error"):
            what, who, reason = "tls-failed", self.ends.first or by, failure
        story.ended(what, who, reason, client.octets, server.octets if server is not None else 0)
        if self.session is not None:
            self.forget_session()
        if self.due is not None:
            route.deadlines.cancel(self)
        if self.dial is not None:
            self.dial.cancel()
            self.dial = None
        if self.securing is not None:
            self.securing.cancel(clients_too=client.sender.pending is None)
        abort_after = route.settings.timeouts.abort
        client_clean = server is None or server.channel is None or server.end_was_clean
        if server is not None:
            server_clean = client.channel is None or client.end_was_clean
            server.close(reset=reset_server, abort_after=abort_after, clean=server_clean)
        client.close(reset=reset_client, abort_after=abort_after, clean=client_clean)
        self.onlooker.over()
        route.session_over(self)
        route.observer.session_ended(story, monotonic() - story.started_at)
