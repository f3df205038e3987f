"""Hostile and slow peers, with the limits in numbers.

Throughout, a control session on another route of the same process is served within a second; afterwards memory is
within 16 MiB of what it was, descriptors and sessions are back where they were, and nothing spins.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.attacks import floods
from tests.end_to_end.control import Control, control_process
from tests.end_to_end.lab import Lab, case, open_lab
from tests.loopback import wait_until
from tests.proxy_process import Running, allowed, route, running_proxy
from tests.scripted import (
    BANNER,
    BROKEN,
    GOOD,
    Mailbox,
    Peer,
    Script,
    ScriptedServer,
    begin_message,
    connect,
    greet,
    nameless,
    send_mail,
    together,
)

pytestmark = pytest.mark.alone

KIB, MIB = 1024, 1024 * 1024
FIXED = b"250-mail.example\r\n250-STARTTLS\r\n250-SIZE 10240000\r\n250 HELP\r\n"
SHORT = {"banner": 1, "command": 1, "idle": 1, "half_closed": 0.7, "abort": 0.4, "connect": 2}
MAX_GROWTH = 16 * MIB
SERVED_WITHIN = 1.0  # seconds for a whole control session


def peace(peer: Peer) -> None:
    raise AssertionError("no script was set")


class Arena:
    """A proxy with a route for the hostile and one for the control session."""

    def __init__(self, lab: Lab, control: Control) -> None:
        self.lab = lab
        self.control = control
        self.running: Running = lab.running
        self.opened = 0  # sessions of the hostile route
        self._counting = threading.Lock()
        for _ in range(30):  # warm: code, caches, allocator
            lab.server("hostile").script = Mailbox()
            with self.open() as client:
                send_mail(client)
        self.rest()
        self.memory = self.running.memory
        self.descriptors = self.running.descriptors

    def open(self, script: Script | None = None) -> Peer:
        if script is not None:
            self.lab.server("hostile").script = script
        self.is_opened()
        return self.lab.connect("hostile")

    def is_opened(self) -> None:
        """A client connects: one session more whose end is to be told."""
        with self._counting:
            self.opened += 1

    def open_sessions(self) -> int:
        """Of the routes that are attacked."""
        routes = json.loads(self.running.get("/status.json")[1])["routes"]
        return sum(int(one["sessions_open"]) for one in routes if one["name"] != "control")

    def ended(self) -> Counter[str]:
        """The sessions of the hostile route by outcome.  From the metrics: a storm fills the log, which loses lines."""
        families = text_string_to_metric_families(self.running.get("/metrics")[1].decode())
        samples = [sample for family in families for sample in family.samples]
        found: Counter[str] = Counter()
        for one in samples:
            if one.name == "ehlo_proxy_sessions_total" and one.labels["route"] == "hostile":
                found[one.labels["outcome"]] += int(one.value)
        return found

    def rest(self) -> None:
        """Until each session that was begun has told its end, and none is left."""
        wait_until(lambda: self.ended().total() == self.opened, 10, "the end of each session is told")
        wait_until(lambda: self.open_sessions() == 0, 8, "the sessions end")

    @contextmanager
    def outcomes(self) -> Iterator[Counter[str]]:
        """How the sessions ended that are had inside, once all have."""
        before = self.ended()
        found: Counter[str] = Counter()
        yield found
        self.rest()
        found.update(self.ended() - before)

    @contextmanager
    def besieged(self) -> Iterator[None]:
        """Assert, of whatever is done inside, that control sessions were served in time all the while, and that
        afterwards sessions, descriptors and memory are as they were, with no internal error."""
        before = len(self.control.took)
        yield
        slowest = self.control.slowest_since(before)
        assert slowest < allowed(SERVED_WITHIN), f"a control session took {slowest:.2f} s"
        self.calm()

    def calm(self) -> None:
        self.rest()
        wait_until(lambda: self.running.descriptors <= self.descriptors + 4, 5, "descriptors are back")
        self.running.comes_to_rest()
        grown = self.running.memory - self.memory
        assert grown < MAX_GROWTH, f"{grown // KIB} KiB more than before"
        assert self.running.of("internal-error") == []


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    trust = {"trusted_proxies": ["127.0.0.1/32"]}
    cases = {
        "hostile": case(peace, timeouts=SHORT, max_sessions=5000, **trust),
        "header": case(Mailbox(), proxy_protocol=True, timeouts=SHORT, **trust),
    }
    with control_process() as control:
        more = [route(control.port, name="control")]
        with open_lab(cases, more, admin={"listen": "127.0.0.1:0"}) as lab:
            arena = Arena(lab, control)
            control.begin(lab.port("control"))
            yield arena
            control.end()


def pour(peer: Peer, data: bytes, seconds: float = 1.5) -> int:
    """Send `data` again and again until the time is over or the peer is gone; how much went."""
    sent = 0
    until = time.monotonic() + seconds
    peer.sock.settimeout(0.2)
    while time.monotonic() < until:
        try:
            sent += peer.sock.send(data)
        except TimeoutError:
            continue
        except OSError:
            break
    return sent


def swallow(peer: Peer, seconds: float = 5.0) -> int:
    """Read until the end, keeping nothing but the last bytes; how much came."""
    got = 0
    until = time.monotonic() + seconds
    peer.sock.settimeout(0.2)
    while time.monotonic() < until:
        try:
            data = peer.sock.recv(MIB)
        except TimeoutError:
            continue
        except OSError:
            break
        if not data:
            break
        got += len(data)
        peer.buffer[:] = data[-2000:]
    return got


# -- one byte at a time ----------------------------------------------------------------------------------------------


def test_one_byte_at_a_time_on_either_side_is_served(arena: Arena) -> None:
    def script(peer: Peer) -> None:
        peer.send(*[bytes([byte]) for byte in BANNER], gap=0.002)
        assert peer.line() == b"EHLO slow.example\r\n"
        peer.send(*[bytes([byte]) for byte in BROKEN], gap=0.002)
        mailbox = Mailbox(banner=b"")
        mailbox(peer)
        assert mailbox.mails == [b"hi\r\n.\r\n"]

    with arena.besieged(), arena.open(script) as client:
        assert client.reply() == BANNER
        client.send(*[bytes([byte]) for byte in b"EHLO slow.example\r\n"], gap=0.002)
        assert client.reply() == FIXED
        client.send(*[bytes([byte]) for byte in b"MAIL FROM:<>\r\nRCPT TO:<b@x>\r\nDATA\r\n"], gap=0.002)
        assert [client.reply()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        client.send(*[bytes([byte]) for byte in b"hi\r\n.\r\n"], gap=0.002)
        assert client.reply()[:3] == b"250"
        assert client.say(b"QUIT")[:3] == b"221"


# -- without an end --------------------------------------------------------------------------------------------------


def endless(start: bytes, again: bytes, ehlo: bool) -> Script:
    def script(peer: Peer) -> None:
        if ehlo:
            peer.send(BANNER)
            peer.line()
        peer.send(start)
        pour(peer, again)

    return script


@pytest.mark.parametrize("name", floods.ENDLESS)
def test_server_that_never_ends_costs_nobody_else(arena: Arena, name: str) -> None:
    script = endless(*floods.ENDLESS[name])
    with arena.besieged(), arena.open(script) as reads, arena.open(script) as reads_not:
        for client in (reads, reads_not):
            client.send(b"EHLO a\r\n")
        swallow(reads, 0.6)
        assert arena.running.memory - arena.memory < MAX_GROWTH
    assert sum(map(len, arena.running.lines)) < 4 * MIB, "the log was written full"


@pytest.mark.parametrize("name", floods.COMMANDS)
def test_clients_that_never_end_cost_nobody_else(arena: Arena, name: str) -> None:
    def answers_nothing(peer: Peer) -> None:
        peer.send(BANNER)
        swallow(peer, 0.9)

    def reads_nothing(peer: Peer) -> None:
        peer.send(BANNER)
        time.sleep(0.9)

    def answers_all(peer: Peer) -> None:
        peer.send(BANNER)
        until = time.monotonic() + 0.9
        while time.monotonic() < until:
            data = peer.sock.recv(65536)
            if not data:
                return
            peer.sock.sendall(GOOD * data.count(b"EHLO") + b"250 ok\r\n" * (data.count(b"\n") - data.count(b"EHLO")))

    def pours(script: Script) -> Peer:
        client = arena.open(script)
        client.line()  # so the next script is not for this one
        return client

    with arena.besieged(), ExitStack() as stack:
        clients = [stack.enter_context(pours(script)) for script in (answers_nothing, reads_nothing, answers_all)]
        together([lambda c=client: pour(c, floods.COMMANDS[name], 0.6) for client in clients])  # and they read nothing
        assert arena.running.memory - arena.memory < MAX_GROWTH


@pytest.mark.parametrize("side", ["client", "server"])
def test_10_mib_without_a_line_end_pass(arena: Arena, side: str) -> None:
    data = b"x" * (10 * MIB)
    got: list[int] = []

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        if side == "server":
            peer.line()
            peer.send(data + b"\r\n")
        else:
            got.append(len(peer.until(b"\n")))
            peer.send(b"500 too long\r\n")

    with arena.besieged(), arena.open(script) as client:
        assert client.reply() == BANNER
        if side == "server":
            client.send(b"NOOP\r\n")
            assert len(client.line()) == len(data) + 2
        else:
            client.send(data + b"\r\n")
            assert client.reply() == b"500 too long\r\n"
            arena.lab.server("hostile").settle()
            assert got == [len(data) + 2]


# -- peers that do not do their part ---------------------------------------------------------------------------------


def test_peers_that_never_close_are_reset_in_time(arena: Arena) -> None:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        while peer.line() != b"QUIT\r\n":
            peer.send(b"250 ok\r\n")
        peer.send(b"221 bye\r\n")
        time.sleep(2.5)

    with arena.besieged(), ExitStack() as stack:
        clients = [stack.enter_context(arena.open(script)) for _ in range(40)]
        for client in clients:
            assert client.reply() == BANNER
            assert client.say(b"QUIT") == b"221 bye\r\n"
        wait_until(lambda: arena.running.descriptors <= arena.descriptors + 4, 6, "descriptors are back")


@pytest.mark.parametrize("step", ["before the banner", "after EHLO", "in a message", "after the dot"])
def test_peers_that_vanish_are_given_up_in_time(arena: Arena, step: str) -> None:
    # Neither side says or does anything any more; the time-outs are what is left.
    def script(peer: Peer) -> None:
        if step != "before the banner":
            peer.send(BANNER)
            peer.line()
            peer.send(BROKEN)
            if step != "after EHLO":
                for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"):
                    peer.line()
                    peer.send(reply)
        time.sleep(2.5)

    with arena.besieged(), arena.outcomes() as found, ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(arena.open(script))
            if step != "before the banner":
                greet(client)
            if step.startswith(("in", "after the dot")):
                begin_message(client)
                client.send(b"hi\r\n" + (b".\r\n" if step == "after the dot" else b""))
        arena.rest()
    assert found == {"timeout": 20}


def test_clients_that_vanish_while_much_is_sent_to_them(arena: Arena) -> None:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        pour(peer, b"x" * MIB, 1.5)

    with arena.besieged(), ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(arena.open(script))
            client.send(b"MAIL\r\n")
        time.sleep(0.5)
        assert arena.running.memory - arena.memory < MAX_GROWTH
        arena.rest()


@pytest.mark.parametrize("side", ["client", "server"])
def test_reset_at_every_step_of_the_dialogue(arena: Arena, side: str) -> None:
    ours = b"EHLO a\r\nNOOP\r\nMAIL FROM:<>\r\nRCPT TO:<b@x>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n"
    theirs = BANNER + BROKEN + b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n221 bye\r\n"

    if side == "client":

        def script(peer: Peer) -> None:
            peer.send(theirs)
            peer.rest(3)

        def once(cut: int) -> None:
            with arena.open() as client:
                client.send(ours[:cut])
                if cut % 2:
                    client.now(0.01)
                client.reset()

        arena.lab.server("hostile").script = script
        with arena.besieged(), arena.outcomes() as found:
            together([lambda cut=cut: once(cut) for cut in range(len(ours) + 1)], 8)
        assert found.total() == len(ours) + 1
        assert found.keys() <= {"client-reset", "client-closed", "completed"}
        return

    cuts = iter(range(len(theirs) + 1))

    def resets(peer: Peer) -> None:
        cut = next(cuts)
        peer.send(theirs[:cut])
        if cut % 2:
            peer.now(0.01)
        peer.reset()

    def meet(_: int) -> None:
        with suppress(OSError), arena.open() as client:  # the reset may come before the connection is noticed
            client.send(ours)
            client.rest(3)

    arena.lab.server("hostile").script = resets
    with arena.besieged(), arena.outcomes() as found:
        together([lambda cut=cut: meet(cut) for cut in range(len(theirs) + 1)], 8)
    assert found.total() == len(theirs) + 1
    assert found.keys() <= {"server-reset", "server-closed", "completed", "client-closed"}


# -- crowds ----------------------------------------------------------------------------------------------------------


class Crowd:
    """A server that greets every client and then does nothing, in one thread."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self.listener.getsockname()[1]
        self.socks: list[socket.socket] = []
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                with suppress(OSError):
                    sock.send(BANNER)
                self.socks.append(sock)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)
        for sock in self.socks:
            sock.close()


@pytest.fixture
def many() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 6000:
        pytest.skip(f"only {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_2000_idle_clients_hurt_nobody(many: None) -> None:
    crowd = Crowd()
    with ScriptedServer(Mailbox()) as server:
        routes = [
            route(crowd.port, name="crowd", max_sessions=2500, timeouts={"half_closed": 1, "abort": 0.5}),
            route(server.port, name="control"),
        ]
        with running_proxy({"route": routes}) as running:
            for _ in range(30):
                with connect(running.port_of("control")) as client:
                    send_mail(client)
            base, descriptors = running.memory, running.descriptors
            clients = []
            slowest = 0.0
            for number in range(2000):
                clients.append(connect(running.port_of("crowd")))
                if number % 200 == 0:
                    began = time.monotonic()
                    with connect(running.port_of("control")) as client:
                        send_mail(client)
                    slowest = max(slowest, time.monotonic() - began)
            for client in clients:
                assert client.line() == BANNER
            assert slowest < allowed(SERVED_WITHIN)
            running.comes_to_rest()
            each = (running.memory - base) / 2000
            assert each < 32 * KIB, f"{each / KIB:.1f} KiB a session"
            for client in clients:
                client.close()
            wait_until(lambda: running.descriptors <= descriptors, 10, "descriptors are back")
            assert running.memory - base < MAX_GROWTH
    crowd.close()


def test_reset_storm(arena: Arena) -> None:
    linger = struct.pack("ii", 1, 0)
    address = ("127.0.0.1", arena.lab.port("hostile"))
    arena.lab.server("hostile").script = Mailbox()

    def storm() -> None:
        for number in range(500):
            arena.is_opened()
            sock = socket.create_connection(address, timeout=10)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            if number % 3 == 0:
                sock.send(b"EHLO a\r\nMAIL FROM:<>\r\n")
            sock.close()

    with arena.besieged(), arena.outcomes() as found:
        together([storm] * 4)
    assert found == {"client-reset": 2000}


def test_connections_that_are_opened_and_closed_at_once(arena: Arena) -> None:
    arena.lab.server("hostile").script = Mailbox()
    with arena.besieged(), arena.outcomes() as found:
        for _ in range(1000):
            arena.open().close()
    assert found.total() == 1000
    assert found.keys() <= {"client-closed", "client-reset"}


# -- no descriptors left ---------------------------------------------------------------------------------------------


@contextmanager
def with_few_descriptors(number: int) -> Iterator[Running]:
    with ScriptedServer(Mailbox()) as server:
        config = {"route": [route(server.port, max_sessions=1000)]}
        with running_proxy(config, descriptors=number) as running:
            yield running


SURPLUS = b"421 4.3.2 ehlo-proxy route r: too many connections, try again\r\n"


def test_no_descriptors_left_surplus_clients_get_432_nothing_spins_and_it_recovers() -> None:
    with with_few_descriptors(128) as running, ExitStack() as stack:
        base = running.descriptors
        clients = [stack.enter_context(connect(running.port)) for _ in range(150)]
        said = together([lambda c=client: c.reply(5) for client in clients], 150)
        served = [client for client, reply in zip(clients, said, strict=True) if reply == BANNER]
        assert len(served) > 30
        assert {nameless(reply) for reply in said if reply != BANNER} == {SURPLUS}
        # Those that are served go on to be.
        assert set(together([lambda c=client: c.say(b"EHLO a") for client in served], 64)) == {FIXED}
        running.comes_to_rest()
        for client in clients:
            client.close()
        wait_until(lambda: running.descriptors <= base, 12, "descriptors are back")
        with connect(running.port) as client:
            assert send_mail(client) == b"250 2.0.0 taken\r\n"
        assert running.of("session-end", outcome="error") == []


def test_clients_that_are_refused_and_stay_do_not_block_the_next() -> None:
    # They take up what is left; then each is told with the descriptor in reserve.
    with with_few_descriptors(64) as running, ExitStack() as stack:
        clients = [stack.enter_context(connect(running.port)) for _ in range(300)]
        said = together([lambda c=client: c.reply(5) for client in clients], 100)
        assert {nameless(reply) for reply in said if reply != BANNER} == {SURPLUS}
        running.comes_to_rest()
        stack.close()
        wait_until(lambda: served_again(running), 10, "it serves again")


def served_again(running: Running) -> bool:
    with connect(running.port) as client:
        return client.reply() == BANNER


# -- PROXY headers ---------------------------------------------------------------------------------------------------

V1 = b"PROXY TCP4 127.0.0.9 127.0.0.1 40000 25\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x09\x7f\0\0\x01\x9c\x40\0\x19"


def test_headers_cut_at_every_byte_are_read(arena: Arena) -> None:
    def once(header: bytes, cut: int) -> None:
        with arena.lab.connect("header") as client:
            client.send(header[:cut], header[cut:] + b"EHLO a\r\n", gap=0.02)
            assert client.reply() == BANNER
            assert client.reply() == FIXED

    all_cuts = [(header, cut) for header in (V1, V2) for cut in range(1, len(header))]
    with arena.besieged():
        together([lambda h=header, c=cut: once(h, c) for header, cut in all_cuts], 16)
    arena.running.wait_for("session-end", route="header", count=len(all_cuts))
    ends = arena.running.of("session-end", route="header")
    assert {end["client"] for end in ends} == {"127.0.0.9"}


def test_headers_that_are_forged_or_broken_are_closed_without_a_word(arena: Arena) -> None:
    dice = random.Random(107)
    bad = [
        b"PROXY TCP4 127.0.0.9 127.0.0.1 40000\r\n",
        b"PROXY TCP5 127.0.0.9 127.0.0.1 40000 25\r\n",
        b"PROXY TCP4 ::1 127.0.0.1 40000 25\r\n",
        b"proxy TCP4 127.0.0.9 127.0.0.1 40000 25\r\n",
        b"PROXY TCP4 127.0.0.9 127.0.0.1 40000 25\n",
        b"PROXY " + b"x" * 200,
        b"EHLO a\r\n",
        b"\x16\x03\x01\0\xa5\x01\0\0\xa1\x03\x03",
        V2[:12] + b"\x31" + V2[13:],
        V2[:14] + b"\xff\xff" + V2[16:] + b"\0" * 5000,
        V2[:14] + b"\0\x04" + V2[16:],
        *(bytes(dice.randrange(256) for _ in range(30)) for _ in range(20)),
    ]
    before = len(arena.running.of("session-end", route="header", outcome="refused"))

    def once(data: bytes) -> None:
        with arena.lab.connect("header") as client:
            client.send(data)
            assert client.rest(6) == b""

    with arena.besieged():
        together([lambda data=data: once(data) for data in bad])
    # Twenty a minute are told one by one.
    arena.running.wait_for("session-end", route="header", outcome="refused", count=before + 1)


def test_nothing_is_left_in_the_end(arena: Arena) -> None:
    arena.calm()
    assert os.path.exists(f"/proc/{arena.running.pid}")
    assert not select.select([], [], [], 0)[0]
