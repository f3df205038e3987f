"""Signals: draining, reloading under load, the status; as an operator and a sender see them."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.end_to_end.lab import tls_contexts
from tests.loopback import free_port
from tests.proxy_process import Running, allowed, proxy, route, running_proxy
from tests.scripted import (
    BANNER,
    GOOD,
    Mailbox,
    Peer,
    ScriptedServer,
    begin_message,
    connect,
    greet,
    nameless,
    send_mail,
)

STOPPED = b"421 4.3.2 ehlo-proxy route r: the proxy is being stopped, try again\r\n"
FIXED = b"250-mail.example\r\n250-STARTTLS\r\n250-SIZE 10240000\r\n250 HELP\r\n"
MESSAGE = b"Subject: one\r\n\r\nbody\r\n.\r\n"

# -- SIGTERM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain_ends_each_session_where_it_may_be_ended(number: signal.Signals) -> None:
    server_tls, trusting = tls_contexts()
    mailbox = Mailbox(tls=server_tls)
    slow, told = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        if slow.is_set():
            told.wait(10)  # its banner is late
        mailbox(peer)

    with ScriptedServer(script) as server, proxy(server.port, admin=True) as running, ExitStack() as stack:
        port = running.port

        def client() -> Peer:
            return stack.enter_context(connect(port))

        waits = client()
        greet(waits)
        just_greeted = client()
        assert just_greeted.reply() == BANNER
        in_data = client()
        greet(in_data)
        begin_message(in_data)
        in_data.send(MESSAGE[:10])
        in_tls = client()
        greet(in_tls)
        in_tls.say(b"STARTTLS")
        in_tls.start_tls(trusting, server=False, name="mail.domain1.com")
        in_tls.say(b"EHLO inside")
        half = client()
        greet(half)
        half.send(b"NOO")
        slow.set()
        no_banner = client()
        time.sleep(0.1)
        assert running.get("/readyz")[0] == 200

        began = time.monotonic()
        running.signal(number)
        # Those that wait for a command hear it at once; so does who has had no banner.
        for one in (waits, just_greeted, half, no_banner):
            assert nameless(one.rest(2)) == STOPPED
        assert time.monotonic() - began < allowed(1)
        told.set()
        assert running.get("/readyz")[0] == 503
        assert running.get("/healthz")[0] == 200
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        # Those that have let go end by themselves.
        time.sleep(0.4)
        in_data.send(MESSAGE[10:])
        assert in_data.reply() == b"250 2.0.0 taken\r\n"
        assert in_tls.say(b"MAIL FROM:<>")[:3] == b"250"
        assert in_tls.say(b"QUIT") == b"221 bye\r\n"
        assert in_data.say(b"QUIT") == b"221 bye\r\n"
        for one in (waits, just_greeted, half, no_banner, in_data, in_tls):
            one.close()
        ended = time.monotonic()
        assert running.wait(5) == 0
        assert time.monotonic() - ended < allowed(2)
        assert running.wait_for("stopped")["sessions_cut"] == 0
        assert len(running.of("session-end", outcome="aborted")) == 4
        assert len(running.of("session-end", outcome="completed")) == 2
        assert mailbox.mails == [MESSAGE]


def test_ehlo_reply_that_is_under_way_is_shown_before_the_421() -> None:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(GOOD[:20])
        time.sleep(0.4)
        peer.send(GOOD[20:])
        peer.rest()

    with ScriptedServer(script) as server, proxy(server.port) as running, connect(running.port) as client:
        assert client.reply() == BANNER
        client.send(b"EHLO a\r\n")
        time.sleep(0.1)
        running.signal(signal.SIGTERM)
        assert nameless(client.rest()) == GOOD + STOPPED
        client.close()
        assert running.wait(5) == 0


def test_drain_timeout_cuts_what_is_left_and_says_so() -> None:
    with ScriptedServer(Mailbox()) as server:
        config = {"service": {"drain_timeout": 0.5}, "route": [route(server.port)]}
        with running_proxy(config) as running, connect(running.port) as client:
            greet(client)
            begin_message(client)
            began = time.monotonic()
            running.signal(signal.SIGTERM)
            assert client.drain_to(3) == "reset"
            assert 0.4 < time.monotonic() - began < allowed(1.5)
            assert running.wait(3) == 0
            assert running.wait_for("stopped")["sessions_cut"] == 1
            end = running.wait_for("session-end")
            assert (end["outcome"], end["by"]) == ("aborted", "proxy")


@pytest.mark.parametrize("workers", [1, 2])
def test_second_signal_ends_at_once(workers: int) -> None:
    with ScriptedServer(Mailbox()) as server:
        config = {"service": {"workers": workers}, "route": [route(server.port)]}
        with running_proxy(config) as running, connect(running.port) as client:
            greet(client)
            begin_message(client)
            running.signal(signal.SIGTERM)
            running.wait_for("drain")
            time.sleep(0.3)
            assert running.process.poll() is None
            began = time.monotonic()
            running.signal(signal.SIGTERM)
            assert client.drain_to(3) in ("reset", "fin")
            assert running.wait(3) == 0
            assert time.monotonic() - began < allowed(4)
            running.wait_for("stopped", sessions_cut=1)
            assert len(running.of("stopped")) == 1
            assert len(running.of("session-end")) == 1


def test_clients_that_the_kernel_has_connected_already_are_told() -> None:
    with ScriptedServer(Mailbox()) as server, proxy(server.port) as running, ExitStack() as stack:
        port = running.port
        running.signal(signal.SIGSTOP)  # nothing is accepted meanwhile
        clients = [stack.enter_context(connect(port)) for _ in range(20)]
        running.signal(signal.SIGTERM)
        running.signal(signal.SIGCONT)
        for client in clients:
            said = client.rest(3)
            assert nameless(said).endswith(STOPPED)
            assert client.ended == "fin"
            client.close()
        assert running.wait(5) == 0


# -- SIGHUP ----------------------------------------------------------------------------------------------------------


class Senders:
    """Clients that connect 200 times a second and each send EHLO and QUIT; whatever goes wrong is kept."""

    def __init__(self, port: int, rate: float = 200.0) -> None:
        self.port = port
        self.every = 4 / rate
        self.over = threading.Event()
        self.completed = 0
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def _run(self) -> None:
        due = time.monotonic()
        while not self.over.is_set():
            due += self.every
            try:
                with connect(self.port) as client:
                    assert client.reply() == BANNER
                    assert client.say(b"EHLO load") == FIXED
                    assert client.say(b"QUIT") == b"221 bye\r\n"
                with self._lock:
                    self.completed += 1
            except BaseException as problem:
                self.problems.append(repr(problem))
            time.sleep(max(0.0, due - time.monotonic()))

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(15)


@contextmanager
def reloadable(workers: int = 1) -> Iterator[tuple[Running, dict[str, Any], ScriptedServer]]:
    with ScriptedServer(Mailbox()) as server:
        config = {
            "service": {"workers": workers},
            "route": [route(server.port, name="r", listen=f"127.0.0.1:{free_port()}")],
        }
        with running_proxy(config) as running:
            yield running, config, server


@pytest.mark.parametrize("workers", [1, 2])
def test_ten_reloads_under_load_refuse_and_reset_nobody(workers: int) -> None:
    with reloadable(workers) as (running, config, server):
        second = route(server.port, name="second", listen=f"127.0.0.1:{free_port()}")
        with Senders(running.port) as senders:
            for number in range(10):
                time.sleep(0.15)
                # Routes come, change and go meanwhile; a bad file changes nothing.
                first = {**config["route"][0], "max_sessions": 1000 + number}
                running.reload({**config, "route": [first, second] if number % 2 else [first]})
                if number % 3 == 0:
                    running.reload({**config, "route": [{**first, "max_session": 1}]}, fails=True)
            time.sleep(0.2)
        assert senders.problems == []
        assert senders.completed > 100
        assert len(running.of("reload")) == 10
        running.wait_for("session-end", count=senders.completed)
        assert len(running.of("session-end", outcome="completed")) == senders.completed


def test_bad_configuration_changes_nothing_and_every_error_is_told() -> None:
    with reloadable() as (running, config, _), connect(running.port) as client:
        greet(client)
        bad = {**config, "route": [{**config["route"][0], "max_sessions": "many", "listenn": 1}]}
        told = running.reload(bad, fails=True)
        text = " ".join(told["errors"])
        assert "max_sessions" in text
        assert "listenn" in text
        running.path.write_text("this is [no TOML")
        running.signal(signal.SIGHUP)
        running.wait_for("reload-failed", count=2)
        running.path.unlink()
        running.signal(signal.SIGHUP)
        running.wait_for("reload-failed", count=3)
        assert client.say(b"NOOP")[:3] == b"250"
        with connect(running.port) as other:
            assert other.reply() == BANNER


def test_port_that_is_taken_fails_the_reload_and_changes_nothing() -> None:
    with reloadable() as (running, config, server), socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        more = [*config["route"], route(server.port, name="new", listen=f"127.0.0.1:{port}")]
        told = running.reload({**config, "route": more}, fails=True)
        assert f"127.0.0.1:{port}" in told["errors"][0]
        with connect(running.port) as client:
            assert client.reply() == BANNER


def test_new_sessions_go_by_the_new_configuration_and_old_ones_by_theirs() -> None:
    other = Mailbox(banner=b"220 other.example ESMTP\r\n")
    with reloadable() as (running, config, _), ScriptedServer(other) as new, ExitStack() as stack:
        old = stack.enter_context(connect(running.port))
        greet(old)
        listen = config["route"][0]["listen"]
        changed = route(new.port, listen=listen, allow_clients=["127.0.0.1/32"], repair={"remove": ["SIZE"]})
        running.reload({**config, "route": [changed]})
        fresh = stack.enter_context(connect(running.port))
        assert fresh.reply() == b"220 other.example ESMTP\r\n"
        assert b"SIZE" not in fresh.say(b"EHLO a")
        assert b"SIZE" in old.say(b"EHLO a")
        begin_message(old)
        old.send(MESSAGE)
        assert old.reply() == b"250 2.0.0 taken\r\n"
        # And one who may not come any more does not.
        running.reload({**config, "route": [{**changed, "allow_clients": ["192.0.2.1/32"]}]})
        stranger = stack.enter_context(connect(running.port))
        assert stranger.rest()[:9] == b"421 4.7.1"
        assert fresh.say(b"NOOP")[:3] == b"250"


def test_sessions_of_a_removed_route_drain() -> None:
    with ScriptedServer(Mailbox()) as server:
        gone = route(server.port, name="gone", listen=f"127.0.0.1:{free_port()}")
        kept = route(server.port, name="kept", listen=f"127.0.0.1:{free_port()}")
        service = {"drain_timeout": 1.5}
        with running_proxy({"service": service, "route": [kept, gone]}) as running, ExitStack() as stack:
            port = running.port_of("gone")
            waits, sends, stays = (stack.enter_context(connect(port)) for _ in range(3))
            greet(waits)
            for one in (sends, stays):
                greet(one)
                begin_message(one)
            running.reload({"service": service, "route": [kept]})
            assert (
                nameless(waits.rest(2)) == b"421 4.3.2 ehlo-proxy route gone: the proxy is being stopped, try again\r\n"
            )
            with pytest.raises(ConnectionRefusedError):
                connect(port)
            sends.send(MESSAGE)
            assert sends.reply() == b"250 2.0.0 taken\r\n"
            assert stays.drain_to(4) == "reset"
            running.wait_for("session-end", route="gone", count=3)


def test_sessions_of_a_removed_route_are_told_of_when_the_service_ends() -> None:
    with ScriptedServer(Mailbox()) as server:
        gone = route(server.port, name="gone", listen=f"127.0.0.1:{free_port()}")
        kept = route(server.port, name="kept", listen=f"127.0.0.1:{free_port()}")
        with running_proxy({"route": [kept, gone]}) as running, connect(running.port_of("gone")) as client:
            greet(client)
            begin_message(client)
            running.reload({"route": [kept]})
            running.signal(signal.SIGTERM)
            time.sleep(0.5)
            assert running.process.poll() is None, "it did not wait for a mail"
            client.send(MESSAGE)
            assert client.reply() == b"250 2.0.0 taken\r\n"
            client.say(b"QUIT")
            client.close()
            assert running.wait(5) == 0
            assert len(running.of("session-end", outcome="completed")) == 1


def test_reload_without_a_file_is_refused() -> None:
    with ScriptedServer(Mailbox()) as server:
        arguments = ["--listen", "127.0.0.1:0", "--destination", f"127.0.0.1:{server.port}"]
        with running_proxy(arguments=arguments, ready=False, quiet=False) as running:
            deadline = time.monotonic() + 15
            while not any(" info ready " in line for line in running.lines):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            running.signal(signal.SIGHUP)
            while not any(" warning reload-failed " in line for line in running.lines):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            line = next(line for line in running.lines if " info ready " in line)
            port = int(line.partition("listen=127.0.0.1:")[2].split()[0])
            with connect(port) as client:
                assert send_mail(client) == b"250 2.0.0 taken\r\n"
            assert running.stop(5) == 0


# -- SIGUSR1 ---------------------------------------------------------------------------------------------------------


def test_status_is_logged() -> None:
    with ScriptedServer(Mailbox()) as server, proxy(server.port) as running, connect(running.port) as client:
        greet(client)
        running.signal(signal.SIGUSR1)
        assert running.wait_for("status")["draining"] is False
        told = running.wait_for("status-route", route="r")
        assert told["sessions_open"] == 1
        destination = running.wait_for("status-destination", route="r")
        assert destination["address"] == f"127.0.0.1:{server.port}"
        assert "greeting-not-first" in destination["findings"]


@pytest.mark.long
@pytest.mark.alone
def test_ten_seconds_of_reloads_under_full_load() -> None:
    with reloadable(2) as (running, config, _), Senders(running.port, 400) as senders:
        until = time.monotonic() + 10
        number = 0
        while time.monotonic() < until:
            number += 1
            running.reload({**config, "route": [{**config["route"][0], "max_sessions": 1000 + number}]})
        senders.over.set()
        assert senders.problems == []
