"""The relay on real sockets: exact bytes, flow control, ends passed on as they came, and its time-outs."""

from __future__ import annotations

import os
import queue
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from proxy.net.relay import splice
from proxy.net.relay.splice import MAX_PIPES
from tests.end_to_end.lab import Lab, case, open_lab
from tests.loopback import wait_until
from tests.proxy_process import Running, allowed, proxy
from tests.scripted import (
    BANNER,
    BROKEN,
    LIMIT,
    Peer,
    Script,
    ScriptedServer,
    connect,
    greet,
    together,
)

KIB = 1024
MIB = 1024 * KIB
BLOCK = random.Random(25).randbytes(MIB)  # every byte value, LF.LF and worse


def opens(peer: Peer) -> None:
    """The server's side of what `let_go` says."""
    peer.send(BANNER)
    assert peer.line()[:4] == b"EHLO"
    peer.send(BROKEN)
    assert peer.line()[:4] == b"MAIL"
    peer.send(b"250 2.1.0 well\r\n")


def let_go(client: Peer) -> Peer:
    """A session in which both directions are relayed."""
    greet(client)
    assert client.say(b"MAIL FROM:<>") == b"250 2.1.0 well\r\n"
    return client


def then(script: Script) -> Script:
    def whole(peer: Peer) -> None:
        opens(peer)
        script(peer)

    return whole


class HandsOver:
    """A server whose connections the test plays itself: `with server.peer() as peer`."""

    def __init__(self) -> None:
        self.peers: queue.Queue[Peer] = queue.Queue()
        self.over = threading.Event()

    def __call__(self, peer: Peer) -> None:
        opens(peer)
        self.peers.put(peer)
        self.over.wait(60)

    def get(self) -> Peer:
        return self.peers.get(timeout=LIMIT)


def takes_and_resets(peer: Peer) -> None:
    assert peer.line() == b"DATA\r\n"
    peer.send(b"354 go on\r\n")
    peer.until(b"\r\n.\r\n")
    peer.send(b"250 2.0.0 taken\r\n")
    peer.reset()


HANDED = HandsOver()
ABORT = 0.6
CASES = {
    "resets": case(then(takes_and_resets)),
    "handed": case(HANDED, timeouts={"abort": ABORT}),
    "talks": case(HANDED, timeouts={"idle": 1.5, "abort": ABORT}),
    "idle": case(HANDED, timeouts={"idle": 0.5, "abort": ABORT}),
    "half-closed": case(HANDED, timeouts={"half_closed": 0.5, "abort": ABORT}),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab(CASES) as lab:
        yield lab
        HANDED.over.set()


@pytest.fixture
def pair(lab: Lab) -> Iterator[tuple[Peer, Peer]]:
    with let_go(lab.connect("handed")) as client, HANDED.get() as server:
        yield client, server


def pipes_of(pid: int) -> int:
    """How many ends of pipes a process has open."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("pipe:")
    return found


# -- bytes -----------------------------------------------------------------------------------------------------------


def send_blocks(peer: Peer, count: int, *, chunk: int = MIB) -> None:
    for _ in range(count):
        for start in range(0, MIB, chunk):
            peer.sock.sendall(BLOCK[start : start + chunk])


def take_blocks(peer: Peer, count: int) -> None:
    for number in range(count):
        assert peer.take(MIB, 30) == BLOCK, f"block {number}"


def both_ways(client: Peer, server: Peer, count: int) -> None:
    together(
        [
            lambda: send_blocks(client, count),
            lambda: send_blocks(server, count),
            lambda: take_blocks(client, count),
            lambda: take_blocks(server, count),
        ]
    )


def test_64_mib_both_ways_are_exact_in_the_kernel(lab: Lab, pair: tuple[Peer, Peer]) -> None:
    before = pipes_of(lab.running.pid)
    both_ways(*pair, 64)
    assert pipes_of(lab.running.pid) >= before + 4
    client, server = pair
    client.finish()
    assert server.rest() == b""
    server.finish()
    assert client.rest() == b""
    end = lab.end("handed", outcome="completed")
    assert end["bytes_from_client"] > 64 * MIB
    assert end["bytes_from_server"] > 64 * MIB


def test_64_mib_both_ways_are_exact_when_no_pipe_is_left(lab: Lab, pair: tuple[Peer, Peer]) -> None:
    with ExitStack() as stack:
        others = []
        for _ in range(16):
            client = stack.enter_context(let_go(lab.connect("handed")))
            others.append((client, stack.enter_context(HANDED.get())))
        for _ in range(40):  # a direction takes a pipe when it is long, and nothing waits just then
            for other in others:
                both_ways(*other, 1)
            if (full := pipes_of(lab.running.pid)) >= 2 * MAX_PIPES:
                break
        assert full >= 2 * MAX_PIPES
        both_ways(*pair, 64)
        assert pipes_of(lab.running.pid) == full
    wait_until(lambda: pipes_of(lab.running.pid) <= full - 40, 5, "the pipes are given back")


@pytest.mark.parametrize("size", [1, 1448, 16383, 16384, 16385, 65536])
def test_bytes_are_exact_whatever_the_pieces(pair: tuple[Peer, Peer], size: int) -> None:
    client, server = pair
    data = BLOCK[: min(size * 200, MIB)]

    def send(peer: Peer) -> None:
        for start in range(0, len(data), size):
            peer.sock.sendall(data[start : start + size])

    together([lambda: send(client), lambda: send(server), lambda: client.take(0)])
    assert server.take(len(data)) == data
    assert client.take(len(data)) == data


@pytest.mark.parametrize("size", [10 * KIB, 200 * KIB, 700 * KIB, 6 * MIB, 40 * MIB])
def test_end_behind_bytes_that_had_to_wait_is_passed_on(pair: tuple[Peer, Peer], size: int) -> None:
    # The FIN comes while the server is not read, because the client is full: it must not be forgotten.
    client, server = pair
    data = (BLOCK * 40)[:size]
    sending = threading.Thread(target=lambda: (server.sock.sendall(data), server.finish()), daemon=True)
    sending.start()
    time.sleep(0.2)
    got = 0
    for _ in range(2000):  # in sips first, then as it comes
        piece = client.sock.recv(1448 if got < 2 * MIB else MIB)
        if not piece:
            break
        assert piece == data[got : got + len(piece)]
        got += len(piece)
    assert got == size
    sending.join(5)


# -- before the relay ------------------------------------------------------------------------------------------------


def test_commands_before_the_connection_wait_and_go_in_order() -> None:
    # A listener whose queue is full does not answer; the kernel tries again after a second.
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first = stack.enter_context(socket.socket())
        first.setblocking(False)
        first.connect_ex(listener.getsockname())
        with (
            proxy(listener.getsockname()[1], trusted_proxies=["127.0.0.1/32"]) as running,
            connect(running.port) as client,
        ):
            base = running.memory
            early = b"HELO a\r\nNOOP 1\r\nNOOP 2\r\nMAIL FROM:<>\r\nDATA\r\n" + BLOCK * 8
            sender = threading.Thread(target=lambda: suppressed(lambda: client.sock.sendall(early)))
            sender.start()
            time.sleep(0.4)
            assert running.memory - base < 2 * MIB  # 64 KiB wait in the proxy, the rest in the kernel
            listener.accept()[0].close()
            listener.settimeout(LIMIT)
            with Peer(listener.accept()[0]) as server:
                server.send(BANNER)
                assert server.take(len(early)) == early
            client.close()
            sender.join(5)


def suppressed(call: Callable[[], object]) -> None:
    with suppress(OSError):
        call()


@pytest.mark.parametrize("ends", [False, True])
def test_hundreds_of_commands_held_behind_ehlo_go_on_in_several_turns_and_in_order(ends: bool) -> None:
    held = b"".join(b"NOOP %d\r\n" % number for number in range(350)) + (b"" if ends else b"MAIL FROM:<>\r\n")
    got: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        assert peer.line() == b"EHLO a.example\r\n"
        time.sleep(0.3)
        assert not peer.buffer
        peer.send(b"250-mail.example\r\n250 HELP\r\n")
        got.append(peer.take(len(held)))
        peer.send(b"250 2.0.0 ok\r\n" * 350)
        if ends:
            assert peer.rest() == b""
            assert peer.ended == "fin"

    with (
        ScriptedServer(script) as server,
        proxy(server.port, trusted_proxies=["127.0.0.1/32"]) as running,
        connect(running.port) as client,
    ):
        assert client.line() == BANNER
        client.send(b"EHLO a.example\r\n" + held)
        if ends:
            client.sock.shutdown(socket.SHUT_WR)
        assert client.take(28 + 350 * 14).endswith(b"250 2.0.0 ok\r\n")
    assert got == [held]


def test_more_than_64_kib_held_behind_starttls_goes_on_when_it_is_refused() -> None:
    message = b"MAIL FROM:<>\r\nDATA\r\n" + BLOCK[: 300 * KIB]
    got: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        assert peer.line() == b"HELO a\r\n"
        peer.send(b"250 mail.example\r\n")
        assert peer.line() == b"STARTTLS\r\n"
        time.sleep(0.3)
        assert not peer.buffer
        peer.send(b"454 4.7.0 not now\r\n")
        got.append(peer.rest())  # the FIN, too, that came while nothing was read
        assert peer.ended == "fin"
        peer.send(b"250 ok\r\n")

    with (
        ScriptedServer(script) as server,
        proxy(server.port, trusted_proxies=["127.0.0.1/32"]) as running,
        connect(running.port) as client,
    ):
        assert client.reply() == BANNER
        assert client.say(b"HELO a") == b"250 mail.example\r\n"
        sender = threading.Thread(target=lambda: (client.sock.sendall(b"STARTTLS\r\n" + message), client.finish()))
        sender.start()
        assert client.reply() == b"454 4.7.0 not now\r\n"
        assert client.reply() == b"250 ok\r\n"
        sender.join(5)
    assert got == [message]


# -- flow control ----------------------------------------------------------------------------------------------------


def stuff(peer: Peer) -> int:
    """Send until nothing is taken for a while; how much went."""
    sent = 0
    peer.sock.settimeout(0.4)
    with suppress(TimeoutError):
        while sent < 64 * MIB:
            sent += peer.sock.send(BLOCK[: 256 * KIB])
    return sent


def test_stuck_receivers_cost_at_most_256_kib_a_direction() -> None:
    # Measured by what the process grows by, over many sessions stuck both ways.
    sessions = 60
    handed = HandsOver()
    with ScriptedServer(handed) as server, proxy(server.port) as running, ExitStack() as stack:
        pairs = []
        for _ in range(sessions):
            client = stack.enter_context(let_go(connect(running.port)))
            pairs.append((client, stack.enter_context(handed.get())))
        time.sleep(0.2)
        base = running.memory
        sent = together(
            [call for client, peer in pairs for call in (lambda c=client: stuff(c), lambda p=peer: stuff(p))], 128
        )
        assert min(sent) < 64 * MIB
        grown = running.memory - base
        assert grown < sessions * 2 * 256 * KIB, grown
        running.comes_to_rest()
        handed.over.set()


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["client", "server"])
def test_half_close_is_passed_on_and_the_other_direction_lives(lab: Lab, pair: tuple[Peer, Peer], first: str) -> None:
    client, server = pair
    one, other = (client, server) if first == "client" else (server, client)
    one.send(b"last words\r\n")
    one.finish()
    assert other.rest() == b"last words\r\n"
    assert other.ended == "fin"
    for _ in range(3):
        other.send(BLOCK[: 100 * KIB])
        assert one.take(100 * KIB) == BLOCK[: 100 * KIB]
    other.finish()
    assert one.rest() == b""
    assert one.ended == "fin"


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("when", ["at once", "behind bytes", "after the other's FIN", "after its own FIN"])
def test_reset_is_passed_on_as_a_reset(lab: Lab, pair: tuple[Peer, Peer], first: str, when: str) -> None:
    client, server = pair
    one, other = (client, server) if first == "client" else (server, client)
    if when == "behind bytes":
        one.send(b"x" * 1000)
        assert other.take(1000) == b"x" * 1000
    elif when == "after the other's FIN":
        other.finish()
        assert one.rest() == b""
    elif when == "after its own FIN":
        one.finish()
        assert other.rest() == b""
        other.ended = ""
    ended_first = first
    if when == "after the other's FIN":
        ended_first = "server" if first == "client" else "client"
    # A reset behind an end, of whichever side, is a way of closing.
    outcome = "completed" if when.startswith("after") else f"{first}-reset"
    before = len(lab.running.of("session-end", outcome=outcome, by=ended_first))
    one.reset()
    lab.running.wait_for("session-end", 3, outcome=outcome, by=ended_first, count=before + 1)
    if when == "after its own FIN":
        # The other has had our FIN: it finds the reset when it writes or waits.
        wait_until(lambda: failed_to_send(other), 3, "the other side is reset, too")
    else:
        assert other.drain_to(3) == "reset"


def failed_to_send(peer: Peer) -> bool:
    try:
        peer.sock.send(b"x")
    except OSError:
        return True
    return False


def test_half_closed_client_that_is_reset_while_it_is_sent_to_ends_the_session(
    lab: Lab, pair: tuple[Peer, Peer]
) -> None:
    client, server = pair
    client.finish()
    assert server.rest() == b""
    sent = threading.Event()

    def send() -> None:
        with suppress(OSError):
            while True:
                server.sock.sendall(BLOCK)
        sent.set()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    time.sleep(0.2)
    client.reset()
    assert sent.wait(5), "the server was let go on sending to nobody"


def test_250_that_is_followed_by_a_reset_is_delivered_a_hundred_times_of_a_hundred(lab: Lab) -> None:
    def once() -> tuple[bytes, str]:
        with let_go(lab.connect("resets")) as client:
            assert client.say(b"DATA") == b"354 go on\r\n"
            client.send(b"hello\r\n.\r\n")
            return client.rest(5), client.ended

    assert together([once] * 100, 4) == [(b"250 2.0.0 taken\r\n", "reset")] * 100


def test_250_is_delivered_too_when_the_client_was_still_sending(lab: Lab) -> None:
    # The proxy's write to the server fails before it has read the reply.
    for _ in range(20):
        with let_go(lab.connect("handed")) as client, HANDED.get() as server:
            client.send(b"x" * 1000)
            server.take(1000)
            server.send(b"552 5.3.4 too big\r\n")
            server.reset()
            with suppress(OSError):
                for _ in range(5):
                    client.send(b"y" * 1000)
            assert client.rest(5) == b"552 5.3.4 too big\r\n"


def test_bytes_that_wait_for_a_slow_client_are_delivered_before_the_reset_that_followed_them(lab: Lab) -> None:
    with let_go(lab.connect("handed", receive_buffer=4096)) as client, HANDED.get() as server:
        server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MIB)
        data = BLOCK[: 150 * KIB]
        server.sock.sendall(data)
        time.sleep(0.2)
        server.reset()
        time.sleep(0.2)
        got = client.rest(5)
        assert got == data[: len(got)]
        assert len(got) == len(data)


def test_client_that_talks_on_to_a_lost_server_and_reads_nothing_is_ended(lab: Lab) -> None:
    # The reset stands behind bytes that the client does not take; what it says meanwhile is for nobody.
    before = len(lab.running.of("session-end", route="talks"))
    with let_go(lab.connect("talks", receive_buffer=4096)) as client, HANDED.get() as server:
        stuff(server)
        server.reset()
        over = threading.Event()

        def talk() -> None:
            client.sock.settimeout(0.2)
            while not over.is_set():
                with suppress(TimeoutError):
                    try:
                        client.sock.send(BLOCK)
                    except ConnectionError:
                        return

        talking = threading.Thread(target=talk)
        talking.start()
        try:
            lab.running.wait_for("session-end", 5, route="talks", count=before + 1)
        finally:
            over.set()
            talking.join(5)
    assert not talking.is_alive()
    assert lab.running.of("session-end", route="talks")[-1]["outcome"] in ("server-reset", "timeout")


# -- time-outs -------------------------------------------------------------------------------------------------------


def test_idle_relay_is_ended_in_time_and_not_before(lab: Lab) -> None:
    with let_go(lab.connect("idle")) as client, HANDED.get() as server:
        for _ in range(4):  # a byte either way keeps it
            time.sleep(0.3)
            server.send(b".")
            assert client.take(1) == b"."
        began = time.monotonic()
        assert client.drain_to(3) == "fin"
        assert 0.3 < time.monotonic() - began < allowed(1.0)
        assert server.drain_to(3) == "fin"
    lab.end("idle", outcome="timeout", by="proxy")


def test_half_closed_relay_is_ended_in_time_and_not_before(lab: Lab) -> None:
    with let_go(lab.connect("half-closed")) as client, HANDED.get() as server:
        client.finish()
        assert server.rest() == b""
        server.ended = ""
        for _ in range(4):
            time.sleep(0.3)
            server.send(b".")
            assert client.take(1) == b"."
        began = time.monotonic()
        assert client.drain_to(3) == "fin"
        assert 0.3 < time.monotonic() - began < allowed(1.0)
    lab.end("half-closed", outcome="timeout", by="proxy")


def test_close_that_is_not_answered_becomes_a_reset(lab: Lab) -> None:
    base = lab.running.descriptors
    with let_go(lab.connect("idle")) as client, HANDED.get() as server:
        server.drain_to(3)  # FIN after the idle time-out; it is not answered
        began = time.monotonic()
        wait_until(lambda: failed_to_send(server), 3, "a reset")
        assert time.monotonic() - began < allowed(1.5)
        wait_until(lambda: lab.running.descriptors <= base, 3, "the descriptors are given back")
        assert client.drain_to(1) in ("fin", "reset")


def test_peer_that_does_not_read_its_last_words_is_reset_in_time(lab: Lab) -> None:
    base = lab.running.descriptors
    before = len(lab.running.of("session-end", outcome="server-reset"))
    with let_go(lab.connect("handed", receive_buffer=4096)) as client, HANDED.get() as server:
        sent = stuff(server)
        client.take(sent - 60 * KIB)  # so little is left that the proxy comes to see the reset
        server.reset()
        began = time.monotonic()
        lab.running.wait_for("session-end", outcome="server-reset", by="server", count=before + 1)
        spare = 2 * splice.MAX_SPARE  # a pipe of the pool may have been made for this
        wait_until(lambda: lab.running.descriptors <= base + spare, 3, "the descriptors are given back")
        assert time.monotonic() - began < allowed(2)
        client.rest(5)
        assert client.ended == "reset"


def test_nothing_is_left_of_all_of_this(lab: Lab) -> None:
    running: Running = lab.running
    wait_until(
        lambda: len(running.of("session-start")) == len(running.of("session-end")), 5, "every session has one end"
    )
    assert running.of("session-end", outcome="error") == []
