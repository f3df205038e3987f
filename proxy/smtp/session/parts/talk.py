"""What is said and told in one call of the session, in order, and the replies that the server owes for it.

Everything that leaves goes through here, so that it leaves in as few writes as can be: what goes to one peer in a row
is one action.

Owed is one reply a command, in order (RFC 5321 4.2), the banner before all of them.  So the queue says what comes next,
and how it is read.  It has at most `MAX_OWED` entries; nothing may follow when it is full, and while what is pipelined
behind a command has to wait for the reply to it.
"""

from __future__ import annotations

from typing import Final

from proxy.smtp.session.events import Action, DeadlineNearer, Found, ToClient, ToServer
from proxy.smtp.session.terms import MAX_COMMANDS, MAX_OWED, Phase, Reply

DEADLINE_NEARER: Final = DeadlineNearer()


class Owed:
    """A reply that the server owes: its kind, when its command was sent, whether the client may see it."""

    __slots__ = ("at", "kind", "private")

    def __init__(self, kind: int, at: float, private: bool) -> None:
        self.kind = kind
        self.at = at
        self.private = private  # to a command of the proxy's own


class Talk:
    """The output of the call that is under way, its time, the phase, and the replies that are owed."""

    __slots__ = ("_actions", "_told", "commands_left", "now", "owed", "phase", "since")

    def __init__(self, now: float) -> None:
        self.now = now  # of the call that is under way
        self.since = now  # since when it has been the turn of whoever is waited for
        self.phase: int = Phase.CONNECTING
        self.owed: list[Owed] = []  # the oldest first
        self.commands_left = MAX_COMMANDS  # that may still be worked through in this call
        self._actions: list[Action] = []
        self._told: tuple[str, ...] = ()  # findings outside of EHLO replies that were told of

    def begin(self, now: float) -> None:
        """Another call."""
        self.now = now
        self.commands_left = MAX_COMMANDS

    def enter(self, phase: int) -> None:
        """What comes next is judged by the rules of this phase."""
        self.phase = phase

    def begin_turn(self) -> None:
        """Whoever is waited for has its whole time from now on."""
        self.since = self.now

    # -- what is owed ------------------------------------------------------------------------------------------------

    @property
    def may_follow(self) -> bool:
        """Whether another command may be sent behind what is owed: not behind one of the proxy's own."""
        owed = self.owed
        if not owed:
            return True
        last = owed[-1]
        return last.kind > Reply.STARTTLS and not last.private and len(owed) < MAX_OWED

    def await_banner(self, private: bool) -> None:
        """The server is to speak first; `private`: the client does not see it as it comes."""
        self.phase = Phase.OPENING
        self.owed.append(Owed(Reply.BANNER, self.now, private))
        self.tell(DEADLINE_NEARER)

    def first_is_over(self) -> Owed:
        """The oldest was given, and is returned: it is another's turn."""
        self.since = self.now
        return self.owed.pop(0)

    def first_passes_unrepaired(self) -> None:
        """The oldest is an EHLO reply that is too long: what is left of it goes as it comes."""
        self.owed[0].kind = Reply.UNREPAIRED

    def banner_over(self) -> None:
        """The server has greeted: what was said to it meanwhile is answered from now on."""
        self.phase = Phase.COMMANDS
        for owed in self.owed:
            owed.at = self.now

    def owe_nothing(self) -> None:
        """Nothing is owed any more."""
        self.owed.clear()

    # -- what is said ------------------------------------------------------------------------------------------------

    def to_client(self, data: bytes) -> None:
        """Forward.  What goes there in the same call without another action between leaves in one write."""
        actions = self._actions
        if actions and type(last := actions[-1]) is ToClient:
            data = last.data + data
            actions.pop()
        actions.append(ToClient(data))

    def to_server(self, data: bytes) -> None:
        """The same towards the server."""
        actions = self._actions
        if actions and type(last := actions[-1]) is ToServer:
            data = last.data + data
            actions.pop()
        actions.append(ToServer(data))

    def ask(self, kind: int, line: bytes, private: bool = False) -> None:
        """Send a command, for which the server owes a reply; `private`: the proxy's own, of which the client knows
        nothing."""
        self.owed.append(Owed(kind, self.now, private))
        self.commands_left -= 1
        self.to_server(line)

    def tell(self, action: Action) -> None:
        """Anything else that the edge is to do or to know."""
        self._actions.append(action)

    def tell_once(self, found: Found) -> None:
        """Tell of a finding outside of an EHLO reply, once a session, since a peer may show any number of them."""
        if found.finding not in self._told:
            self._told = (*self._told, found.finding)
            actions = self._actions
            to_server = bool(actions) and type(actions[-1]) is ToServer  # what came in one segment leaves in one
            actions.insert(len(actions) - to_server, found)

    def has_told(self, finding: str) -> bool:
        """Whether this one was told."""
        return finding in self._told

    def done(self) -> list[Action]:
        """The output of the call that ends here."""
        actions = self._actions
        self._actions = []
        return actions
