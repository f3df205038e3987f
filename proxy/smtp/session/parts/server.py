"""The server that is connected: who it is, what its banner said, and its last word."""

from __future__ import annotations

from typing import Final

from proxy.smtp.session.policy import DestinationMemory

NOTHING_LEARNT: Final = DestinationMemory()  # shared, and never written to: where there is no server


class Server:
    """The destination of the session, once it is known."""

    __slots__ = (
        "_port", "address", "another_left", "banner", "completed", "fresh", "last_code", "memory",
        "name", "shown", "tls",
    )  # fmt: skip

    def __init__(self) -> None:
        self.name = b""  # empty when it is configured by address
        self.address = b""
        self._port = 0
        self.memory = NOTHING_LEARNT
        self.another_left = False  # a destination is left that was not tried yet
        self.banner = b""  # "220 " and its first word: all that is looked at, and the same in all sessions
        self.shown = False  # something of it has reached the client
        self.fresh = False  # this connection was made anew: what the client has said is said again
        self.tls = False  # bridge: what it says comes out of TLS
        self.last_code = 0  # of the last reply that the client has seen
        self.completed = False  # 221 was shown to the client

    def connected(self, name: str, address: str, port: int, memory: DestinationMemory | None, left: bool) -> None:
        """It is this one; `left`: another destination is."""
        self.name = b"" if name == address else name.encode("ascii", "replace")
        self.address = address.encode("ascii", "replace")
        self._port = port
        self.memory = memory if memory is not None else DestinationMemory()
        self.another_left = left

    def unreachable(self, text: str) -> None:
        """None could be connected; `text` says which."""
        self.name, self.address = text.encode("ascii", "replace"), b""

    @property
    def text(self) -> str:
        """What it is called in a reply of ours; empty before there is one."""
        name, address = self.name.decode(), self.address.decode()
        if not address:
            return name
        return f"{name} ({address}) port {self._port}" if name else f"{address} port {self._port}"

    def forget(self) -> None:
        """Nothing is known any more of the one that was connected; another will be."""
        self.banner = b""
        self.shown = self.tls = False
        self.last_code = 0

    def reopen(self) -> None:
        """Another connection is made, on which it has to be greeted first."""
        self.fresh = True

    def is_greeted(self) -> None:
        """It is where it was on the connection before."""
        self.fresh = False

    @property
    def may_be_left(self) -> bool:
        """Whether it can still be given up for the next destination: nothing of it was shown."""
        return self.another_left and not self.shown

    def greeted(self, banner: bytes) -> None:
        """The first line of its banner, as far as it is looked at."""
        self.banner = banner

    def is_shown(self) -> None:
        """Something of its banner goes to the client."""
        self.shown = True

    def said(self, code: int, private: bool = False) -> None:
        """A reply has ended with this code; `private`: the client has not seen it."""
        self.last_code = code
        if code == 221 and not private:
            self.completed = True

    def in_tls(self) -> None:
        """TLS is up, and its identity is right."""
        self.tls = True

    @property
    def said_its_last(self) -> bool:
        """221 or 421: nothing more can be expected of it."""
        return self.last_code in (221, 421)

    def outcome(self, otherwise: str) -> str:
        """`completed` if 221 was seen."""
        return "completed" if self.completed else otherwise
