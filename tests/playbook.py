"""A session's conversation as a script: what happens (`>>`), and all that the session wants done about it (`<<`).

    assert (
        Playbook()
        >> Connected()
        >> Server(b"220 mail.example.com\\r\\n")
        << ToClient(b"220 mail.example.com\\r\\n")
    )

After `Session(...)` every event is fed in the order written, and what the session returns for it must be exactly the
actions written behind it.  When it is not, the assertion fails with a diff of the two conversations.  `Wait` lets time
pass as an edge would: it calls `time_passed` at each deadline on the way.

What is only told to the log (`EhloReplied`, `StarttlsAnswered`, `SaidPrivately`, a client's name that is none) is left
out unless the playbook is `loud`; then `Told("ehlo …")`, `Told("starttls …")`, `Told("privately …")` and
`Told("client-name-invalid …")` stand for it.  `Notice` matches a reply
of the proxy's own by its beginning and words in it, behind whatever goes to the client in the same write.

Whatever is played, these must hold: nothing follows `End`; what goes to one peer in a row is one action; the session
holds no more bytes than it may; it keeps no byte once it has let go of both directions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Self

from proxy.smtp.session.events import (
    Action,
    DeadlineNearer,
    EhloReplied,
    End,
    Found,
    ReadOn,
    SaidPrivately,
    StarttlsAnswered,
    ToClient,
    ToServer,
)
from proxy.smtp.session.policy import DestinationMemory, SessionPolicy
from proxy.smtp.session.session import Session
from proxy.smtp.session.terms import MAX_HELD, MAX_REPLY_LINE, MAX_WAITING, Phase

BANNER = b"220 mail.example.com ESMTP\r\n"
READ_ON = ReadOn()
DEADLINE_NEARER = DeadlineNearer()
SHORTEST = 1.0  # seconds: no time-out of the tests' policies is shorter
MAX_SEGMENT = 65536  # what an edge reads at once, and so what may come on top of a limit


# -- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Connected:
    """A server is connected."""

    name: str = "mail.example.com"
    address: str = "192.0.2.1"
    port: int = 25
    another_left: bool = False


@dataclass(frozen=True)
class Unreachable:
    """None could be."""

    status: str = "4.4.1"
    cause: str = "connection refused"
    destination: str = "mail.example.com port 25"


@dataclass(frozen=True)
class Server:
    """The server says this, all of it in one turn."""

    data: bytes


@dataclass(frozen=True)
class Client:
    """The client says this, in one turn."""

    data: bytes


@dataclass(frozen=True)
class ServerEnds:
    """The server closes, or resets."""

    reset: bool = False


@dataclass(frozen=True)
class ClientEnds:
    """The client closes, or resets."""

    reset: bool = False


@dataclass(frozen=True)
class Wait:
    """So many seconds pass."""

    seconds: float


@dataclass(frozen=True)
class Drain:
    """The service stops."""


@dataclass(frozen=True)
class ServerTlsReady:
    """The handshake with the server succeeded, and its identity is right."""


@dataclass(frozen=True)
class ServerTlsFailed:
    """It did not, or it is not."""

    reason: str = "the certificate has expired"


@dataclass(frozen=True)
class ClientTlsReady:
    """The handshake with the client succeeded."""


@dataclass(frozen=True)
class ClientTlsFailed:
    """It did not."""

    reason: str = "no shared cipher"


Event = (
    Connected
    | Unreachable
    | Server
    | Client
    | ServerEnds
    | ClientEnds
    | Wait
    | Drain
    | ServerTlsReady
    | ServerTlsFailed
    | ClientTlsReady
    | ClientTlsFailed
)


# -- expectations that are no actions --------------------------------------------------------------------------------


class Notice:
    """A `ToClient` that ends with a reply of the proxy's own: `Notice("421 4.4.2", "no reply in time")`."""

    def __init__(self, start: str, *words: str, behind: bytes = b"") -> None:
        self.start = start.encode()
        self.words = words
        self.behind = behind

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ToClient) or not other.data.startswith(self.behind):
            return False
        line = other.data[len(self.behind) :]
        whole = line.endswith(b"\r\n") and line.count(b"\n") == 1 and line.isascii() and len(line) <= 512
        return whole and line.startswith(self.start + b" ") and all(word.encode() in line for word in self.words)

    __hash__ = None  # type: ignore[assignment]  # it equals many actions

    def __repr__(self) -> str:
        behind = f"{self.behind!r} + " if self.behind else ""
        return f"Notice({behind}{self.start.decode()!r} … {', '.join(map(repr, self.words))})"


class Told:
    """`EhloReplied` or `StarttlsAnswered`, in words: `ehlo good`, `ehlo greeting-not-first`, `starttls accepted`."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __eq__(self, other: object) -> bool:
        return told(other) == self.words

    __hash__ = None  # type: ignore[assignment]  # it equals many actions

    def __repr__(self) -> str:
        return f"Told({self.words!r})"


def told(action: object) -> str | None:
    if isinstance(action, EhloReplied):
        ids = " ".join(finding.id for finding in action.result.findings)
        return "ehlo " + ("refused" if action.result.refused else ids or "good")
    if isinstance(action, StarttlsAnswered):
        return "starttls " + action.result
    if isinstance(action, Found) and action.phase == "client" and not action.repaired:
        return f"{action.finding} {action.lines[0].decode('latin-1')}"
    if isinstance(action, SaidPrivately):
        return "privately " + action.line.decode("ascii").rstrip()
    return None


# -- feeding ---------------------------------------------------------------------------------------------------------


def joined(actions: Iterable[Action]) -> list[Action]:
    """What goes to one peer in a row as one, as one call of a session has it."""
    result: list[Action] = []
    for action in actions:
        match result[-1:], action:
            case [ToClient(before)], ToClient(data):
                result[-1] = ToClient(before + data)
            case [ToServer(before)], ToServer(data):
                result[-1] = ToServer(before + data)
            case _:
                result.append(action)
    return result


class Player:
    """A session, and the clock that it is fed by; `happens` is what an edge does with one event."""

    def __init__(self, session: Session, memory: DestinationMemory, now: float = 1000.0) -> None:
        self.session = session
        self.memory = memory
        self.now = now
        self.ended = False
        self.looks_at = float("inf")

    def happens(self, event: Event) -> list[Action]:
        actions = list(self._fed(event))
        self._looks_at_deadline(DEADLINE_NEARER in actions)
        actions = [action for action in actions if action != DEADLINE_NEARER]
        while READ_ON in actions:
            assert actions.count(READ_ON) == 1, "it is told once a call"
            actions.remove(READ_ON)
            if isinstance(actions[-1], End):
                break
            actions = joined(actions + self.session.read_on(self.now))
        self._check(actions)
        return actions

    def _looks_at_deadline(self, told: bool) -> None:
        """As an edge does: when it is told, and once in the shortest span; then it knows of each that comes."""
        deadline = self.session.deadline
        if told or self.now >= self.looks_at:
            self.looks_at = self.now + SHORTEST if deadline is None else min(self.now + SHORTEST, deadline)
        assert deadline is None or deadline >= self.looks_at, "a deadline came that was not told"

    def _fed(self, event: Event) -> Iterable[Action]:
        session, now = self.session, self.now
        match event:
            case Connected(name, address, port, another_left):
                return session.server_connected(
                    now, name=name, address=address, port=port, memory=self.memory, another_left=another_left
                )
            case Unreachable(status, cause, destination):
                return session.unreachable(status, cause, destination, now)
            case Server(data):
                return session.server_data(data, now)
            case Client(data):
                return session.client_data(data, now)
            case ServerEnds(reset):
                return session.server_ended(reset, now)
            case ClientEnds(reset):
                return session.client_ended(reset, now)
            case Wait(seconds):
                return self._waited(seconds)
            case Drain():
                return session.drain(now)
            case ServerTlsReady():
                return session.server_tls_ready(now)
            case ServerTlsFailed(reason):
                return session.server_tls_failed(reason, now)
            case ClientTlsReady():
                return session.client_tls_ready(now)
            case ClientTlsFailed(reason):
                return session.client_tls_failed(reason, now)

    def _waited(self, seconds: float) -> list[Action]:
        until = self.now + seconds
        actions: list[Action] = []
        while (deadline := self.session.deadline) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            actions += self.session.time_passed(self.now)
        self.now = until
        return actions + self.session.time_passed(until)

    def _check(self, actions: list[Action]) -> None:
        session = self.session
        for action, following in zip(actions, [*actions[1:], None], strict=False):
            assert not self.ended, f"{action!r} follows End"
            self.ended = isinstance(action, End)
            if isinstance(action, ToClient | ToServer):
                assert type(following) is not type(action), "two writes where one would do"
        assert len(session.answers.lines) <= MAX_REPLY_LINE, "more of a reply line is held than is read"
        assert len(session.client.lines) <= MAX_WAITING + MAX_SEGMENT, "more of the client's is held than may wait"
        assert len(session.answers.held) <= MAX_HELD + MAX_REPLY_LINE, "more of a reply is held than is read"
        if session.phase in (Phase.RELEASED, Phase.ENDED):
            assert not len(session.answers.lines), "a byte of the server's is kept"
            assert not len(session.client.lines), "a byte of the client's is kept"
            assert not len(session.answers.held), "a reply is kept"
            assert session.deadline is None, "time is still asked for"


class Playbook:
    """The script of one conversation."""

    def __init__(
        self,
        policy: SessionPolicy | None = None,
        *,
        trusted: bool = True,
        address: str = "198.51.100.7",
        memory: DestinationMemory | None = None,
        loud: bool = False,
    ) -> None:
        """`trusted`: the client may use XCLIENT, as most tests don't care for."""
        self.memory = memory if memory is not None else DestinationMemory()
        self.session = Session(policy or SessionPolicy(), 1000.0, client_trusted=trusted, client_address=address)
        self.player = Player(self.session, self.memory)
        self.loud = loud
        self.steps: list[tuple[Event, list[object]]] = []

    def __rshift__(self, event: Event) -> Self:
        self.steps.append((event, []))
        return self

    def __lshift__(self, expected: object) -> Self:
        self.steps[-1][1].append(expected)
        return self

    def __bool__(self) -> bool:
        """Play what was not played yet.  AssertionError with a diff when it goes another way."""
        __tracebackhide__ = True
        wanted: list[str] = []
        seen: list[str] = []
        good = True
        steps, self.steps = self.steps, []
        for event, expected in steps:
            line = f">> {shorten(event)}"
            actions: list[object] = [
                action for action in self.player.happens(event) if self.loud or told(action) is None
            ]
            if actions == expected:
                shown = [f"    << {shorten(action)}" for action in actions]
                wanted += [line, *shown]
                seen += [line, *shown]
            else:
                good = False
                wanted += [line, *(f"    << {shorten(action)}" for action in expected)]
                seen += [line, *(f"    << {shorten(action)}" for action in actions)]
                break
        if not good:
            diff = difflib.unified_diff(wanted, seen, "as it should be", "as it is", n=1000, lineterm="")
            raise AssertionError("the conversation goes another way\n" + "\n".join(diff))
        return True

    @property
    def waits_for(self) -> float | None:
        """Seconds to the session's deadline."""
        deadline = self.session.deadline
        return None if deadline is None else round(deadline - self.player.now, 6)


def shorten(action: object) -> str:
    """An action or an event on a line, bytes cut."""
    if isinstance(action, ToClient | ToServer | Client | Server) and len(action.data) > 300:
        return f"{type(action).__name__}({action.data[:150]!r} … {action.data[-100:]!r}, {len(action.data)} bytes)"
    if told(action) is not None:
        return f"Told({told(action)!r})"
    if isinstance(action, End):
        given = [f"{field.name}={getattr(action, field.name)!r}" for field in fields(action)]
        return f"End({', '.join(given)})"
    return repr(action)


# -- beginnings ------------------------------------------------------------------------------------------------------

EHLO = b"EHLO client.example\r\n"
GOOD = b"250-mail.example.com\r\n250-STARTTLS\r\n250 8BITMIME\r\n"


def greeted(
    policy: SessionPolicy | None = None,
    *,
    trusted: bool = True,
    loud: bool = False,
    memory: DestinationMemory | None = None,
) -> Playbook:
    """A session in which the banner was just shown."""
    book = Playbook(policy, trusted=trusted, loud=loud, memory=memory)
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER)
    return book


def after_ehlo(
    policy: SessionPolicy | None = None, reply: bytes = GOOD, *, memory: DestinationMemory | None = None
) -> Playbook:
    """A session in which a good reply to EHLO was just shown."""
    book = greeted(policy, memory=memory)
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(reply) << ToClient(reply)
    return book
