"""Processes that are killed: no mail is lost, none is taken twice, and what can go on goes on.

What is killed is killed by SIGKILL, by its own process id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.loopback import wait_until
from tests.proxy_process import TOP, Running, proxy, route, running_proxy
from tests.scripted import (
    BANNER,
    LIMIT,
    Mailbox,
    Peer,
    ScriptedServer,
    begin_message,
    connect,
    greet,
    nameless,
    send_mail,
)

MESSAGE = b"Subject: one\r\n\r\nonce only\r\n.\r\n"

# -- the server ------------------------------------------------------------------------------------------------------

SERVER = """
import sys, time
from tests.scripted import *
class Tells(Mailbox):
    def __call__(self, peer):
        if sys.argv[1] == "before the banner":
            time.sleep(60)
        super().__call__(peer)
with ScriptedServer(Tells(after_dot=60 if sys.argv[1] == "after the dot" else 0.0)) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""
STEPS = [
    "before the banner",
    "after the banner",
    "after EHLO",
    "after MAIL",
    "after RCPT",
    "in the message",
    "after the dot",
]


@contextmanager
def server_process(step: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, step], cwd=TOP, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize("step", STEPS)
def test_server_killed_at_any_step_is_a_temporary_failure_and_the_mail_arrives_once(step: str) -> None:
    with server_process(step) as (process, port), ExitStack() as stack:
        mailbox = Mailbox()
        after = stack.enter_context(ScriptedServer(mailbox))
        running = stack.enter_context(proxy(port))
        with connect(running.port) as client:
            if step == "before the banner":
                time.sleep(0.2)
            else:
                assert client.reply() == BANNER
            for name, command in (("EHLO", b"EHLO a"), ("MAIL", b"MAIL FROM:<>"), ("RCPT", b"RCPT TO:<b@x>")):
                if STEPS.index(step) < 2 or STEPS.index(step) < STEPS.index(f"after {name}"):
                    break
                assert client.say(command)[:1] == b"2"
            if step in ("in the message", "after the dot"):
                assert client.say(b"DATA")[:3] == b"354"
                client.send(MESSAGE if step == "after the dot" else MESSAGE[:20])
                time.sleep(0.1)
            process.kill()
            process.wait()
            said = client.rest(5)
            if STEPS.index(step) < 3:  # before the letting go there is a line in which it can be said
                assert said.startswith(b"421 4.4.2 ehlo-proxy route r: ")
            else:
                assert said == b""
            assert b"250" not in said
        # The sender tries again when the server is back.
        running.reload({"route": [route(after.port)]})
        with connect(running.port) as client:
            greet(client)
            begin_message(client)
            client.send(MESSAGE)
            assert client.reply()[:3] == b"250"
        assert mailbox.mails == [MESSAGE]


# -- the proxy ---------------------------------------------------------------------------------------------------------


def base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


def worker_of(running: Running, client: Peer) -> int:
    """The process id of the worker that has this client's session; the session's name in the log has it."""
    port = client.sock.getsockname()[1]
    session = str(running.wait_for("session-start", client_port=port)["session"])
    return next(pid for pid in running.children if session[7:9] == base36(pid % 36**2).zfill(2))


@contextmanager
def two_workers(mailbox: Mailbox, **keys: object) -> Iterator[Running]:
    with ScriptedServer(mailbox) as server:
        config = {
            "service": {"workers": 2, "drain_timeout": 10},
            "log": {"level": "debug"},
            "route": [route(server.port, timeouts={"abort": 1}, **keys)],
        }
        with running_proxy(config) as running:
            yield running


def in_a_message(running: Running, stack: ExitStack, number: int) -> list[tuple[Peer, int]]:
    """So many clients in the middle of a message, each with its worker."""
    found = []
    for _ in range(number):
        client = stack.enter_context(connect(running.port))
        greet(client)
        begin_message(client)
        client.send(MESSAGE[:20])
        found.append((client, worker_of(running, client)))
    return found


def test_worker_killed_in_mid_message_breaks_its_own_sessions_only_and_is_replaced() -> None:
    mailbox = Mailbox()
    with two_workers(mailbox) as running, ExitStack() as stack:
        before = set(running.children)
        assert len(before) == 2
        clients = in_a_message(running, stack, 16)
        victim = clients[0][1]
        assert {pid for _, pid in clients} == before, "all went to one worker"
        os.kill(victim, signal.SIGKILL)
        died = running.wait_for("worker-died")
        assert died["pid"] == victim
        for client, pid in clients:
            if pid == victim:
                assert client.rest(5) == b""
            else:
                client.send(MESSAGE[20:])
                assert client.reply() == b"250 2.0.0 taken\r\n"
        assert len(mailbox.mails) == sum(pid != victim for _, pid in clients)
        wait_until(lambda: len(running.children) == 2 and victim not in running.children, 10, "it is replaced")
        replaced = next(iter(set(running.children) - before))
        wait_until(lambda: serves(running, replaced), 10, "the new one serves")


def serves(running: Running, pid: int) -> bool:
    with connect(running.port) as client:
        port = client.sock.getsockname()[1]
        assert send_mail(client) == b"250 2.0.0 taken\r\n"
        session = str(running.wait_for("session-start", client_port=port)["session"])
        return session[7:9] == base36(pid % 36**2).zfill(2)


def test_parent_killed_in_mid_message_cuts_no_session_and_leaves_no_process() -> None:
    mailbox = Mailbox()
    with two_workers(mailbox) as running, ExitStack() as stack:
        workers = running.children
        clients = in_a_message(running, stack, 8)
        idle = stack.enter_context(connect(running.port))
        greet(idle)
        os.kill(running.pid, signal.SIGKILL)
        # Nobody would restart what is lost, so they end; but not before their mail is through.
        assert nameless(idle.rest(5)) == b"421 4.3.2 ehlo-proxy route r: the proxy is being stopped, try again\r\n"
        time.sleep(0.3)
        for client, _ in clients:
            client.send(MESSAGE[20:])
            assert client.reply() == b"250 2.0.0 taken\r\n"
            assert client.say(b"QUIT") == b"221 bye\r\n"
        assert len(mailbox.mails) == 8
        for client, _ in clients:
            client.close()
        idle.close()
        wait_until(lambda: not any(alive(pid) for pid in workers), 10, "the workers end")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_restart_between_the_final_dot_and_its_250_cuts_nothing(workers: int) -> None:
    mailbox = Mailbox(after_dot=1.0)
    with ScriptedServer(mailbox) as server, ExitStack() as stack:
        config = {"service": {"workers": workers}, "route": [route(server.port)]}
        running = stack.enter_context(running_proxy(config))
        port = running.port
        with connect(port) as client:
            greet(client)
            begin_message(client)
            client.send(MESSAGE)
            time.sleep(0.2)
            running.signal(signal.SIGTERM)
            running.wait_for("drain")
            # Its successor can take the port at once.
            again = stack.enter_context(running_proxy({"route": [route(server.port, listen=f"127.0.0.1:{port}")]}))
            with connect(again.port) as other:
                assert other.reply() == BANNER
            assert client.reply(LIMIT) == b"250 2.0.0 taken\r\n"
            assert client.say(b"QUIT") == b"221 bye\r\n"
        assert running.wait(5) == 0
        assert running.wait_for("stopped")["sessions_cut"] == 0
        assert mailbox.mails == [MESSAGE]


def test_server_that_comes_back_is_used_at_once() -> None:
    mailbox = Mailbox()
    with ScriptedServer(Mailbox()) as first:
        port = first.port
    # Nothing listens there any more.
    with proxy(port) as running:
        with connect(running.port) as client:
            assert client.rest().startswith(b"421 4.4.1 ")
        with ScriptedServer(mailbox, port=port), connect(running.port) as client:
            assert send_mail(client) == b"250 2.0.0 taken\r\n"
        assert len(mailbox.mails) == 1
