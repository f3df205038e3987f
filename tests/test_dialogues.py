"""The conversations in `dialogues/*.chat`, as a mail person reads them, played through the session.

What stands in such a file:

    # text                 for the reader
    with: SETTING          before the first line; see `SETTINGS`
    C: line                the client says it, and the server hears just that
    S: line                the server says it, and the client hears just that
    C| line                the client says it, and the server does not hear it, or not now
    S| line                the server says it, and the client does not hear it, or not so
    >C line                what the client hears that nobody said just so
    >S line                what the server hears
    * event                something happens; see `happening`
    = action               the proxy does something else than to speak; see `DONE`

Lines of one speaker in a row are one segment; a blank line, or anything else between them, parts them.  All that is
heard must be written down, in its place.  A line ends with CRLF, unless it is written with `\\n` at its end, or with
`\\` (no line end).  Behind `…` any text may follow.  The session begins with the server connected, unless an event
says when.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from proxy.smtp.session.events import (
    Action,
    ClientTls,
    DropServer,
    EhloReplied,
    End,
    FinishServer,
    Found,
    FreshConnection,
    Injected,
    NextDestination,
    ReleaseClient,
    ReleaseServer,
    SaidPrivately,
    ServerTls,
    StarttlsAnswered,
    ToClient,
    ToServer,
    XclientOffered,
)
from proxy.smtp.session.policy import BridgePolicy, DestinationMemory, SessionPolicy
from proxy.smtp.session.session import Session
from tests.playbook import (
    Client,
    ClientEnds,
    ClientTlsReady,
    Connected,
    Drain,
    Event,
    Player,
    Server,
    ServerEnds,
    ServerTlsFailed,
    ServerTlsReady,
    Unreachable,
    Wait,
)

CHATS = sorted((Path(__file__).parent / "dialogues").glob("*.chat"))


@dataclass
class Setting:
    """What the `with:` lines ask for."""

    policy: SessionPolicy = field(default_factory=SessionPolicy)
    trusted: bool = True
    memory: DestinationMemory = field(default_factory=DestinationMemory)


def _mode(mode: str) -> Callable[[Setting, str], None]:
    def change(setting: Setting, _: str) -> None:
        setting.policy = replace(setting.policy, repair=setting.policy.repair._replace(mode=mode))

    return change


def _bridge(setting: Setting, text: str) -> None:
    words = text.split()
    assert words[0::2][:2] == ["client", "server"], text
    bridge = BridgePolicy(words[1], words[3], required="not required" not in text)
    setting.policy = replace(setting.policy, bridge=bridge, ehlo_name=b"proxy.example")


def _stranger(setting: Setting, _: str) -> None:
    setting.trusted = False


def _xclient(setting: Setting, _: str) -> None:
    setting.policy = replace(setting.policy, xclient=True)


def _ends_early(setting: Setting, _: str) -> None:
    setting.memory.saw_going_on(1000.0)


def _client_name(setting: Setting, text: str) -> None:
    setting.policy = replace(setting.policy, client_name=text.encode())


SETTINGS: dict[str, Callable[[Setting, str], None]] = {
    "mode observe": _mode("observe"),
    "mode off": _mode("off"),
    "bridge mode": _bridge,  # "bridge mode, client starttls server none", "… not required"
    "a client that is not trusted": _stranger,
    "xclient": _xclient,
    "a server that was seen to end early": _ends_early,
    "client_name": _client_name,
}


def happening(text: str) -> Event:
    """`* text`."""
    patterns: list[tuple[str, Callable[..., Event]]] = [
        (r"([0-9.]+) seconds? pass(?:es)?", lambda seconds: Wait(float(seconds))),
        (r"the client closes", ClientEnds),
        (r"the client resets", lambda: ClientEnds(True)),
        (r"the server closes", ServerEnds),
        (r"the server resets", lambda: ServerEnds(True)),
        (r"the service stops", Drain),
        (r"a server is connected", Connected),
        (r"a server is connected, and another destination is left", lambda: Connected(another_left=True)),
        (r"no server can be connected: (.*)", lambda why: Unreachable(cause=why)),
        (r"TLS with the server is ready, and its identity right", ServerTlsReady),
        (r"TLS with the server fails: (.*)", ServerTlsFailed),
        (r"TLS with the client is ready", ClientTlsReady),
    ]
    for pattern, event in patterns:
        if match := re.fullmatch(pattern, text):
            return event(*match.groups())
    raise ValueError(f"unknown event: {text}")


_DONE_ABOUT = {"late": "removes", "client": "puts right"}  # a finding, by its phase

DONE: dict[type[Action], Callable[..., str]] = {
    FinishServer: lambda action: "tells the server that the client has ended",
    ReleaseClient: lambda action: "lets go of what the client says",
    ReleaseServer: lambda action: "lets go of what the server says" + (": TLS" if action.tls else ""),
    NextDestination: lambda action: f"goes to the next destination: {action.reason}",
    FreshConnection: lambda action: "makes a fresh connection to the server",
    DropServer: lambda action: "drops the server",
    ServerTls: lambda action: "begins TLS with the server",
    ClientTls: lambda action: "begins TLS with the client",
    End: lambda action: f"over: {action.outcome}",
    Injected: lambda action: action.event,
    Found: lambda action: f"{_DONE_ABOUT[action.phase] if action.repaired else 'sees'}: {action.finding}",
    XclientOffered: lambda action: "tells the operator how to keep XCLIENT from strangers",
}

_SAID = {"C:": "client", "C|": "client", "S:": "server", "S|": "server"}
_HEARD = {"C:": ">S", "S:": ">C", ">C": ">C", ">S": ">S"}
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0rnt\\])")
_PLAIN = {b"0": b"\0", b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}


def octets(text: str) -> bytes:
    """The line as it goes over the wire."""
    raw = text.encode("utf-8")
    whole = not re.search(r"(?<!\\)(?:\\\\)*\\n$", text)
    if re.search(r"(?<!\\)(?:\\\\)*\\$", text):
        raw, whole = raw[:-1], False
    raw = _ESCAPE.sub(lambda m: _PLAIN[m[1]] if len(m[1]) == 1 else bytes([int(m[1][1:], 16)]), raw)
    return raw + b"\r\n" if whole else raw


@dataclass
class Turn:
    """What happens at once, and what is to be seen of it."""

    event: Event
    heard: dict[str, list[str]]
    done: list[str]
    at: int


def parsed(path: Path) -> tuple[Setting, list[Turn]]:
    setting = Setting()
    turns: list[Turn] = []
    speaker = ""
    said: list[bytes] = []

    def begin(event: Event, number: int) -> None:
        turns.append(Turn(event, {">C": [], ">S": []}, [], number))

    def spoken() -> None:
        nonlocal speaker
        if speaker:
            turns[-1].event = (Client if speaker == "client" else Server)(b"".join(said))
            said.clear()
            speaker = ""

    for number, line in enumerate(path.read_text().splitlines(), 1):
        mark, text = line[:2], line[3:]
        if not line.strip() or line.startswith("#"):
            spoken()
        elif line.startswith("with: "):
            for name, change in SETTINGS.items():
                if line[6:].startswith(name):
                    change(setting, line[6:].removeprefix(name).strip(" ,"))
                    break
            else:
                raise ValueError(f"{path.name}:{number}: unknown setting")
        elif mark in _SAID:
            if speaker != _SAID[mark]:
                spoken()
                speaker = _SAID[mark]
                begin(Drain(), number)
            said.append(octets(text))
            if mark in _HEARD:
                turns[-1].heard[_HEARD[mark]].append(text)
        elif mark in _HEARD:
            spoken()
            turns[-1].heard[mark].append(text)
        elif mark == "* ":
            spoken()
            begin(happening(line[2:]), number)
        elif mark == "= ":
            spoken()
            turns[-1].done.append(line[2:])
        else:
            raise ValueError(f"{path.name}:{number}: what is {line!r}?")
    spoken()
    first = next(turn for turn in turns if isinstance(turn.event, Server | Connected | Unreachable))
    if isinstance(first.event, Server):
        turns.insert(0, Turn(Connected(), {">C": [], ">S": []}, [], 0))
    return setting, turns


def agrees(expected: list[str], heard: bytes) -> bool:
    """What was heard is what is written; behind `…` any text may stand."""
    pattern = b"".join(
        re.escape(octets(text.split("…")[0])[:-2]) + rb"[^\r\n]*\r\n" if "…" in text else re.escape(octets(text))
        for text in expected
    )
    return re.fullmatch(pattern, heard) is not None


@pytest.mark.parametrize("path", CHATS, ids=lambda path: path.stem)
def test_dialogue(path: Path) -> None:
    setting, turns = parsed(path)
    session = Session(setting.policy, 1000.0, client_trusted=setting.trusted, client_address="198.51.100.7")
    player = Player(session, setting.memory)
    for turn in turns:
        actions = player.happens(turn.event)
        heard = {
            ">C": b"".join(action.data for action in actions if isinstance(action, ToClient)),
            ">S": b"".join(action.data for action in actions if isinstance(action, ToServer)),
        }
        done = [DONE[type(action)](action) for action in actions if type(action) in DONE]
        untold = (
            {type(action) for action in actions}
            - set(DONE)
            - {ToClient, ToServer, EhloReplied, StarttlsAnswered, SaidPrivately}
        )
        assert not untold
        where = f"{path.name}:{turn.at}"
        for side in (">C", ">S"):
            if not agrees(turn.heard[side], heard[side]):
                seen = heard[side].decode("utf-8", "backslashreplace").splitlines()
                diff = difflib.unified_diff(turn.heard[side], seen, "as written", "as heard", lineterm="")
                pytest.fail(f"{where}: {side}\n" + "\n".join(diff))
        assert done == turn.done, where


def test_there_are_dialogues() -> None:
    assert len(CHATS) >= 20
