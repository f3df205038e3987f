"""Differential fuzzing of a proxy that runs: `python -m tests.fuzz.running --seconds 900 [--seed N [--one]]`.

Lanes run side by side; each has servers and routes of its own, and one dialogue at a time.  `--one` plays
a single seed, in every lane.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.fuzz.talk import Dialogue, Told, cut
from tests.proxy_process import Running, allowed, route, running_proxy
from tests.scripted import Peer, ScriptedServer, connect

LANES = 8
ENDS_WITHIN = 15.0
MAX_DIALOGUES = 1_000_000


def _send(rng: random.Random, sock: socket.socket, data: bytes, whole: bool = False) -> None:
    for piece in [data] if whole else cut(rng, data):
        sock.sendall(piece)
        if rng.random() < 0.3:
            time.sleep(rng.random() * 0.004)


def _drain(peer: Peer, until: float) -> tuple[bytes, str]:
    """All that still comes, and how it ended."""
    try:
        got = peer.rest(max(0.1, until - time.monotonic()))
    except TimeoutError:
        return bytes(peer.buffer), "late"
    return got, peer.ended


class Server:
    """The server's side of one dialogue: line by line, bodies and chunks by their rules."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.started = threading.Event()
        self.over = threading.Event()
        self.got = bytearray()
        self.rng = random.Random(told.dialogue.seed + 2)

    def __call__(self, peer: Peer) -> None:
        self.started.set()
        try:
            self._serve(peer)
        finally:
            self.told.server_got = bytes(self.got)
            self.over.set()

    def _say(self, peer: Peer, kind: str, data: bytes) -> None:
        self.told.server_sent.append((kind, data))
        _send(self.rng, peer.sock, data, self.told.dialogue.goes_on and kind == "ehlo")

    def _more(self, peer: Peer, until: float) -> bool:
        before = len(peer.buffer)
        there = peer._more(until)
        self.got += peer.buffer[before:]
        return there

    def _serve(self, peer: Peer) -> None:
        told, dialogue = self.told, self.told.dialogue
        until = time.monotonic() + allowed(ENDS_WITHIN)
        try:
            _send(self.rng, peer.sock, dialogue.before_banner)
            self._say(peer, "banner", dialogue.banner)
            for number in range(MAX_DIALOGUES):
                command = self._command(peer, until)
                if command is None or not self._answer(peer, number, command):
                    break
        except TimeoutError:
            told.server_saw = "late"
            return
        except ConnectionError:
            told.server_saw = "reset"
            return
        peer.finish()
        before = len(peer.buffer)
        rest, told.server_saw = _drain(peer, until)
        self.got += rest[before:]

    def _command(self, peer: Peer, until: float) -> bytes | None:
        """The next line, or the body that is due."""
        kind, reply = self.told.server_sent[-1]
        end = b"\r\n.\r\n" if kind == "data" and reply[:1] == b"3" else b"\n"
        while (at := peer.buffer.find(end)) < 0:
            if not self._more(peer, until):
                return None
        command = peer._take(at + len(end))
        words = command.split()
        if end == b"\n" and len(words) > 1 and words[0] == b"BDAT":
            while len(peer.buffer) < int(words[1]):
                if not self._more(peer, until):
                    return None
            peer._take(int(words[1]))
        return command if end == b"\n" else b"(body)\n"

    def _answer(self, peer: Peer, number: int, command: bytes) -> bool:
        """Say the reply; false when the server has said its last."""
        told, dialogue = self.told, self.told.dialogue
        told.commands.append(command)
        kind, reply = dialogue.reply(number, command)
        if number == dialogue.ends_at:
            told.ended_first = True
            if dialogue.server_end == "421":
                kind, reply = "421", b"421 4.3.2 closing\r\n"
            elif dialogue.server_end == "breaks off":
                reply = reply[: self.rng.randrange(1, len(reply))]
                told.cut_short = True
        self._say(peer, kind, reply)
        if kind == "quit":
            told.ended_first = True
        return not told.ended_first


def play(seed: int, port: int, server: ScriptedServer, *, goes_on: bool, strict: bool) -> Told:
    """One dialogue, from connecting to both ends."""
    told = Told(Dialogue(seed, goes_on, strict))
    dialogue = told.dialogue
    rng = random.Random(seed + 1)
    serving = Server(told)
    server.script = serving
    until = time.monotonic() + allowed(ENDS_WITHIN)
    sent = bytearray()
    with connect(port) as client:
        serving.started.wait(allowed(5.0))
        got = bytearray()
        with contextlib.suppress(ConnectionError):
            for burst in dialogue.client:
                for piece in cut(rng, burst):
                    client.sock.sendall(piece)
                    sent += piece
                    if rng.random() < 0.3:
                        time.sleep(rng.random() * 0.004)
                if rng.random() < 0.5:
                    with contextlib.suppress(TimeoutError):
                        client._more(time.monotonic() + rng.random() * 0.03)
        if dialogue.client_end == "leaves":
            got += client.now(rng.random() * 0.02)
            told.client_saw = client.ended or "left"
        else:
            if dialogue.client_end == "finishes":
                client.finish()
            rest, told.client_saw = _drain(client, until)
            got += rest
    told.client_sent, told.client_got = bytes(sent), bytes(got)
    if not serving.over.wait(allowed(ENDS_WITHIN) + 1):
        told.server_saw = "late"
    return told


def _lane(
    number: int, running: Running, servers: list[ScriptedServer], seeds: Iterator[int], until: float, most: int
) -> tuple[int, list[str]]:
    played = 0
    found: list[str] = []
    for seed in seeds:
        if time.monotonic() >= until or len(found) >= most:
            break
        goes_on, strict = seed % 5 == 0, number % 2 == 1
        told = play(seed, running.ports[2 * number + goes_on], servers[goes_on], goes_on=goes_on, strict=strict)
        played += 1
        if wrong := told.wrong():
            found.append(f"seed {seed}{' strict' if strict else ''}: {wrong}")
    return played, found


def fuzz(seconds: float, seed: int, *, lanes: int = LANES, one: bool = False, most: int = 5) -> tuple[int, list[str]]:
    """Play for so long; how many dialogues there were, and what went wrong, each with its seed."""
    with contextlib.ExitStack() as stack:
        servers = [[stack.enter_context(ScriptedServer(lambda _: None)) for _ in range(2)] for _ in range(lanes)]
        routes = [
            route(server.port, name=f"lane{number}-{goes_on}", trusted_proxies=["127.0.0.0/8"],
                  repair={"strict": number % 2 == 1, "unterminated_after": "0.5s"})
            for number, pair in enumerate(servers) for goes_on, server in enumerate(pair)
        ]  # fmt: skip
        running = stack.enter_context(running_proxy({"route": routes}))
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(lanes) as pool:
            lanes_played = [
                pool.submit(
                    _lane, number, running, servers[number],
                    iter([seed] if one else range(seed + number, seed + MAX_DIALOGUES, lanes)), until, most,
                )
                for number in range(lanes)
            ]  # fmt: skip
            results = [lane.result() for lane in lanes_played]
    return sum(played for played, _ in results), [line for _, found in results for line in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--one", action="store_true", help="play this seed alone")
    parser.add_argument("--most", type=int, default=5, help="findings after which a lane stops")
    options = parser.parse_args()
    played, found = fuzz(options.seconds, options.seed, one=options.one, most=options.most)
    print("\n".join(found))
    print(f"{played} dialogues from seed {options.seed}, {len(found)} went wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
