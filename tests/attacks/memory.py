"""`python -m tests.attacks.memory [PART OF A NAME ...]`: what one hostile session makes the proxy hold, in KiB.

Two hundred sessions do the same; what the process grew by is divided by them.  Nobody gives way: the peers send as
much as is taken, and read nothing.  The bounds are what SECURITY.md says of one session.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.attacks import servers
from tests.attacks.field import Field, Serve
from tests.bridge.parties import Keys, bridge, hello, secure
from tests.certificates import NAME, Issued, root
from tests.loopback import wait_until
from tests.proxy_process import Running, route, running_proxy
from tests.scripted import BANNER, GOOD, Peer, ScriptedServer, connect

SESSIONS = 200
BOUND = 512 * 1024  # bytes: 256 KiB a direction
CERTIFICATE = 3 * 1024 * 1024  # where the server shows one of 64 KiB that is all names
PUSHED_FOR = 8.0  # seconds at most
NEVER = 3600.0  # the peers stay until the measure is taken

Push = Callable[[Field, Sequence[Peer]], None]


@dataclass(frozen=True)
class Hoard:
    """`push` is given all clients at once; in bridge mode they have done their handshake."""

    push: Push
    serve: Serve
    bridge: Mapping[str, Any] | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)
    bound: int = BOUND


# -- clients -----------------------------------------------------------------------------------------------------------


def quietly(ground: Field, clients: Sequence[Peer]) -> None:
    """Say nothing more."""


def pushes(data: bytes, first: bytes = b"EHLO a\r\n", times: int = 1) -> Push:
    """As much of `data` as is taken from each, `times` sends a round; until for a while nothing more was."""

    def push(ground: Field, clients: Sequence[Peer]) -> None:
        for client in clients:
            client.send(first)
            client.sock.setblocking(False)
        idle_since = time.monotonic()
        until = idle_since + PUSHED_FOR
        while idle_since + 1.0 > time.monotonic() < until:
            for client in clients:
                with contextlib.suppress(OSError):  # it is full
                    for _ in range(times):
                        client.sock.send(data)
                        idle_since = time.monotonic()
            time.sleep(0.005)

    return push


def lets_go(ground: Field, clients: Sequence[Peer]) -> None:
    """EHLO, MAIL and then as much as is taken; nothing is read behind the reply to EHLO."""
    for client in clients:
        client.say(b"EHLO a")
    pushes(b"z" * 16384, b"MAIL FROM:<>\r\n")(ground, clients)


# -- servers -----------------------------------------------------------------------------------------------------------


def _opened(ground: Field, peer: Peer) -> None:
    """Banner, and the handshake where the proxy asks for one."""
    peer.send(BANNER)
    if ground.keys.folder.name == "bridge":
        peer.line()
        peer.send(GOOD)
        peer.line()
        peer.send(b"220 go ahead\r\n")
        secure(peer, ground.keys.server(ground.ours), server=True)


def silent(ground: Field, peer: Peer) -> None:
    _opened(ground, peer)
    ground.wait()


def endless(start: bytes, again: bytes) -> Serve:
    """Answers EHLO with `start`, and then with `again` without end."""

    def serve(ground: Field, peer: Peer) -> None:
        _opened(ground, peer)
        peer.line()
        peer.send(start)
        ground.pour(peer, again)

    return serve


def floods(size: int) -> Serve:
    """Takes EHLO and MAIL, reads no more, and sends pieces of `size` without end."""

    def serve(ground: Field, peer: Peer) -> None:
        _opened(ground, peer)
        peer.line()
        peer.send(b"250-mail.example\r\n250 PIPELINING\r\n")
        peer.line()
        peer.send(b"250 ok\r\n")
        ground.pour(peer, b"2" * size)

    return serve


def long_chain(ground: Field, peer: Peer) -> None:
    peer.send(BANNER)
    peer.line()
    peer.send(GOOD)
    peer.line()
    peer.send(b"220 go ahead\r\n")
    secure(peer, ground.keys.server(servers.tiny_names()), server=True)
    ground.wait()


LINES = b"".join(b"250-A%05d %b\r\n" % (number, b"x" * 600) for number in range(98))
FLOODS = {
    "commands that nobody answers": Hoard(pushes(b"NOOP\r\n" * 600), silent),
    "line ends that nobody answers": Hoard(pushes(b"\r\n" * 2000), silent),
    "a line of the client without an end": Hoard(pushes(b"x" * 4000), silent),
    "two octets at a time behind EHLO": Hoard(pushes(b"NO", times=20), silent),
    "an EHLO reply of 98 long lines without an end": Hoard(pushes(b"NOOP\r\n" * 600), endless(LINES, b"")),
    "a line of the server of 64 KiB and more": Hoard(pushes(b"NOOP\r\n" * 600), endless(b"250-", b"x" * 16384)),
    "both flood and nobody reads": Hoard(lets_go, floods(65536)),
    "both flood, the server two octets at a time": Hoard(lets_go, floods(2)),
}
CHAIN = {"verify": "none"}
HOARDS: dict[str, Hoard] = {
    **{f"pass-through: {name}": hoard for name, hoard in FLOODS.items()},
    **{f"bridge: {name}": Hoard(hoard.push, hoard.serve, {}) for name, hoard in FLOODS.items()},
    "bridge: a certificate of 21,000 names": Hoard(quietly, long_chain, CHAIN, bound=CERTIFICATE),
    "bridge: nothing more": Hoard(quietly, silent, {}),
    "pass-through: nothing more": Hoard(quietly, silent),
}


# -- the measure -------------------------------------------------------------------------------------------------------


def _open(ground: Field, hoard: Hoard) -> Peer:
    if hoard.bridge is None:
        client = connect(ground.port)
        client.reply()
        return client
    client, _ = hello(ground.port)
    assert client.say(b"STARTTLS")[:3] == b"220"
    secure(client, ground.keys.client())
    return client


def _settled(running: Running) -> int:
    """The memory once it grows no more."""
    last = [running.memory]

    def still() -> bool:
        time.sleep(0.2)
        last.append(running.memory)
        return len(last) > 3 and max(last[-3:]) - min(last[-3:]) < 65536

    wait_until(still, 20, "the memory settles")
    return last[-1]


@contextmanager
def _running(hoard: Hoard, ground: Field) -> Iterator[Running]:
    with ScriptedServer(lambda peer: _played(hoard.serve, ground, peer)) as there:
        keys = {"max_sessions": 2 * SESSIONS, **hoard.keys}
        if hoard.bridge is None:
            made = route(there.port, **keys)
        else:
            tls = {"verify_name": NAME, **hoard.bridge}
            made = bridge(there.port, keys=ground.keys, issued=ground.ours, tls=tls, **keys)
        with running_proxy({"route": [made]}) as running:
            yield running


def _played(serve: Serve, ground: Field, peer: Peer) -> None:
    with contextlib.suppress(OSError, AssertionError):
        serve(ground, peer)


def a_session(hoard: Hoard, folder: Path, sessions: int = SESSIONS) -> float:
    """Bytes of memory a session."""
    keys_folder = folder / ("passthrough" if hoard.bridge is None else "bridge")
    keys_folder.mkdir(exist_ok=True)
    ground = Field(Keys(keys_folder), _ours())
    ground.lasts(NEVER)
    with _running(hoard, ground) as running, ExitStack() as stack:
        ground.port = running.port
        warm = [_open(ground, hoard) for _ in range(3)]
        for client in warm:
            client.close()
        before = _settled(running)
        clients = [stack.enter_context(_open(ground, hoard)) for _ in range(sessions)]
        hoard.push(ground, clients)
        grown = _settled(running) - before
        ended = len(running.of("session-end")) - len(warm)
        assert ended < sessions // 10, f"{ended} sessions ended while they were measured"
        ground.lasts(0.0)
        return grown / sessions


_issued: list[Issued] = []


def _ours() -> Issued:
    if not _issued:
        _issued.append(root().issue(NAME))
    return _issued[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("name", nargs="*", help="only those with one of these in their name")
    options = parser.parse_args()
    servers.prepare()
    print("| what the peers do | KiB a session | bound |\n|---|---|---|")
    bad = 0
    with tempfile.TemporaryDirectory(prefix="ehlo-memory-") as folder:
        for name, hoard in HOARDS.items():
            if not options.name or any(part in name for part in options.name):
                size = a_session(hoard, Path(folder), options.sessions)
                bad += size > hoard.bound
                print(f"| {name} | {size / 1024:.0f} | {hoard.bound // 1024} |", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
