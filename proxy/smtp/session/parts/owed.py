"""What the server owes: one reply a command, in order (RFC 5321 4.2), the banner before all of them.

So the queue says what comes next, and how it is read.  It has at most `MAX_OWED` entries; `may_follow` is False when it
is full, and while what is pipelined behind a command has to wait for the reply to it.
"""

from __future__ import annotations

from typing import Final

from proxy.smtp.session.terms import MAX_OWED, Reply

# What is pipelined behind these waits for their reply; and so it does behind a command of the proxy's own.
HOLDS_BACK: Final = (Reply.EHLO, Reply.UNREPAIRED, Reply.STARTTLS)


class Owed:
    """A reply that the server owes: its kind, when its command was sent, whether the client may see it."""

    __slots__ = ("at", "kind", "private")

    def __init__(self, kind: int, at: float, private: bool = False) -> None:
        self.kind = kind
        self.at = at
        self.private = private  # to a command of the proxy's own


class OwedReplies:
    """All of them, the oldest first."""

    __slots__ = ("_all", "first", "may_follow")

    def __init__(self) -> None:
        self._all: list[Owed] = []
        self.first: Owed | None = None
        self.may_follow = True  # another command may be sent behind what is owed

    def __len__(self) -> int:
        return len(self._all)

    def add(self, kind: int, at: float, private: bool = False) -> None:
        """A command was sent at that time."""
        owed = Owed(kind, at, private)
        if self.first is None:
            self.first = owed
        self._all.append(owed)
        self.may_follow = not private and kind not in HOLDS_BACK and len(self._all) < MAX_OWED

    def first_is_over(self) -> None:
        """The oldest was given."""
        owed = self._all
        del owed[0]
        if owed:
            self.first = owed[0]
            self.may_follow = not owed[-1].private and owed[-1].kind not in HOLDS_BACK
        else:
            self.first = None
            self.may_follow = True

    def first_passes_unrepaired(self) -> None:
        """The oldest is an EHLO reply that is too long: what is left of it goes as it comes."""
        self._all[0].kind = Reply.UNREPAIRED

    def begin_at(self, now: float) -> None:
        """The banner is over: no server answers before it."""
        for owed in self._all:
            owed.at = now

    def clear(self) -> None:
        """Nothing is owed any more."""
        self._all.clear()
        self.first = None
        self.may_follow = True
