"""What is said and told in one call of the session, in order, and what is owed for it.

Everything that leaves goes through here, so that it leaves in as few writes as can be: what goes to one peer in a row
is one action.
"""

from __future__ import annotations

from proxy.smtp.session.events import Action, Found, ToClient, ToServer
from proxy.smtp.session.parts.owed import OwedReplies
from proxy.smtp.session.terms import MAX_COMMANDS, Phase


class Talk:
    """The output of the call that is under way, its time, the phase, and the replies that are owed."""

    __slots__ = ("_told", "actions", "commands_left", "now", "owed", "phase", "stopped")

    def __init__(self, now: float) -> None:
        self.now = now  # of the call that is under way
        self.commands_left = MAX_COMMANDS  # that may still be worked through in it
        self.stopped = False  # it was ended because there are more
        self.phase: int = Phase.CONNECTING
        self.owed = OwedReplies()
        self.actions: list[Action] = []
        self._told: tuple[str, ...] = ()  # findings outside of EHLO replies that were told of

    def begin(self, now: float) -> None:
        """Another call."""
        self.now = now
        self.commands_left = MAX_COMMANDS
        self.stopped = False

    def worked_through(self, commands: int, more: bool) -> None:
        """So many commands of the client were; `more`: others wait that may be, too."""
        self.commands_left -= commands
        self.stopped = more

    def enter(self, phase: int) -> None:
        """What comes next is judged by the rules of this phase."""
        self.phase = phase

    def to_client(self, data: bytes) -> None:
        """Forward.  What goes there in the same call without another action between leaves in one write."""
        self.actions.append(ToClient(data))

    def to_server(self, data: bytes) -> None:
        """The same towards the server."""
        self.actions.append(ToServer(data))

    def ask(self, kind: int, line: bytes, private: bool = False) -> None:
        """Send a command, for which the server owes a reply; `private`: the proxy's own, of which the client knows
        nothing."""
        self.owed.add(kind, self.now, private)
        self.actions.append(ToServer(line))

    def tell(self, action: Action) -> None:
        """Anything else that the edge is to do or to know."""
        self.actions.append(action)

    def tell_once(self, found: Found) -> None:
        """Tell of a finding outside of an EHLO reply, once a session, since a peer may show any number of them."""
        if found.finding not in self._told:
            self._told = (*self._told, found.finding)
            at = len(self.actions)
            while at and type(self.actions[at - 1]) is ToServer:
                at -= 1  # commands that came in one segment leave in one
            self.actions.insert(at, found)

    def has_told(self, finding: str) -> bool:
        """Whether this one was told."""
        return finding in self._told

    def done(self) -> list[Action]:
        """The output of the call that ends here."""
        actions = self.actions
        if not actions:
            return []
        self.actions = []
        if len(actions) == 1:
            return actions
        before: type[Action] | None = None
        for action in actions:
            kind = type(action)
            if kind is before and (kind is ToClient or kind is ToServer):
                return joined(actions)
            before = kind
        return actions


def joined(actions: list[Action]) -> list[Action]:
    """The actions with what goes to the same peer in a row made one."""
    result: list[Action] = []
    parts: list[bytes] = []
    last: type[ToClient] | type[ToServer] | None = None
    for action in actions:
        if isinstance(action, (ToClient, ToServer)):
            kind = type(action)
            if kind is not last:
                if last is not None:
                    result.append(last(b"".join(parts)))
                    parts = []
                last = kind
            parts.append(action.data)
        else:
            if last is not None:
                result.append(last(b"".join(parts)))
                parts = []
                last = None
            result.append(action)
    if last is not None:
        result.append(last(b"".join(parts)))
    return result
