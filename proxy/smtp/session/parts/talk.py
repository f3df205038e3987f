"""What is said and told in one call of the session, in order, and the replies that the server owes for it.

Everything that leaves goes through here, so that it leaves in as few writes as can be: what goes to one peer in a row
is one action.

Owed is one reply a command, in order (RFC 5321 4.2), the banner before all of them.  So the queue says what comes next,
and how it is read.  It has at most `MAX_OWED` entries; nothing may follow when it is full, and while what is pipelined
behind a command has to wait for the reply to it.
"""

from __future__ import annotations

from typing import Final

from proxy.smtp.session.events import Action, Found, ToClient, ToServer
from proxy.smtp.session.terms import MAX_COMMANDS, MAX_OWED, Phase, Reply

# What is pipelined behind these waits for their reply; and so it does behind a command of the proxy's own.
HOLDS_BACK: Final = (Reply.EHLO, Reply.UNREPAIRED, Reply.STARTTLS)


class Owed:
    """A reply that the server owes: its kind, when its command was sent, whether the client may see it."""

    __slots__ = ("at", "kind", "private")

    def __init__(self, kind: int, at: float, private: bool) -> None:
        self.kind = kind
        self.at = at
        self.private = private  # to a command of the proxy's own


class Talk:
    """The output of the call that is under way, its time, the phase, and the replies that are owed."""

    __slots__ = ("_actions", "_told", "_writes", "commands_left", "first", "now", "owed", "phase", "since")

    def __init__(self, now: float) -> None:
        self.now = now  # of the call that is under way
        self.since = now  # since when it has been the turn of whoever is waited for
        self.phase: int = Phase.CONNECTING
        self.owed: list[Owed] = []  # the oldest first
        self.first: Owed | None = None  # that one: what comes next
        self.commands_left = MAX_COMMANDS  # that may still be worked through in this call
        self._actions: list[Action] = []
        self._writes = 0  # how many of them are bytes for a peer
        self._told: tuple[str, ...] = ()  # findings outside of EHLO replies that were told of

    def begin(self, now: float) -> None:
        """Another call."""
        self.now = now
        self.commands_left = MAX_COMMANDS

    def works_through_one(self) -> None:
        """Another command of the client's."""
        self.commands_left -= 1

    def enter(self, phase: int) -> None:
        """What comes next is judged by the rules of this phase."""
        self.phase = phase

    def begin_turn(self) -> None:
        """Whoever is waited for has its whole time from now on."""
        self.since = self.now

    # -- what is owed ------------------------------------------------------------------------------------------------

    @property
    def may_follow(self) -> bool:
        """Whether another command may be sent behind what is owed."""
        owed = self.owed
        if not owed:
            return True
        last = owed[-1]
        return last.kind not in HOLDS_BACK and not last.private and len(owed) < MAX_OWED

    def owe(self, kind: int, private: bool = False) -> None:
        """A command was sent; `private`: the proxy's own, of which the client knows nothing."""
        owed = Owed(kind, self.now, private)
        self.owed.append(owed)
        if self.first is None:
            self.first = owed

    def await_banner(self, private: bool) -> None:
        """The server is to speak first; `private`: the client does not see it as it comes."""
        self.phase = Phase.OPENING
        self.owe(Reply.BANNER, private)

    def first_is_over(self) -> None:
        """The oldest was given: it is another's turn."""
        owed = self.owed
        del owed[0]
        self.first = owed[0] if owed else None
        self.since = self.now

    def first_passes_unrepaired(self) -> None:
        """The oldest is an EHLO reply that is too long: what is left of it goes as it comes."""
        self.owed[0].kind = Reply.UNREPAIRED

    def owe_from_now(self) -> None:
        """The banner is over: no server answers before it."""
        for owed in self.owed:
            owed.at = self.now

    def owe_nothing(self) -> None:
        """Nothing is owed any more."""
        self.owed.clear()
        self.first = None

    # -- what is said ------------------------------------------------------------------------------------------------

    def to_client(self, data: bytes) -> None:
        """Forward.  What goes there in the same call without another action between leaves in one write."""
        self._actions.append(ToClient(data))
        self._writes += 1

    def to_server(self, data: bytes) -> None:
        """The same towards the server."""
        self._actions.append(ToServer(data))
        self._writes += 1

    def ask(self, kind: int, line: bytes, private: bool = False) -> None:
        """Send a command, for which the server owes a reply."""
        self.owe(kind, private)
        self.to_server(line)

    def tell(self, action: Action) -> None:
        """Anything else that the edge is to do or to know."""
        self._actions.append(action)

    def tell_once(self, found: Found) -> None:
        """Tell of a finding outside of an EHLO reply, once a session, since a peer may show any number of them."""
        if found.finding not in self._told:
            self._told = (*self._told, found.finding)
            actions = self._actions
            at = len(actions)
            while at and type(actions[at - 1]) is ToServer:
                at -= 1  # commands that came in one segment leave in one
            actions.insert(at, found)

    def has_told(self, finding: str) -> bool:
        """Whether this one was told."""
        return finding in self._told

    def done(self) -> list[Action]:
        """The output of the call that ends here."""
        actions = self._actions
        self._actions = []
        if self._writes > 1:
            actions = joined(actions)
        self._writes = 0
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
