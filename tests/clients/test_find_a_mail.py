"""docs/find-a-mail.md with real Postfix on both sides: from the sender's line to ours to the server's, by grep."""

from __future__ import annotations

import re
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.clients import postfix as postfixes
from tests.clients.lab import make_certificates
from tests.clients.postfix import Postfix
from tests.loopback import free_port, public_folder, wait_until
from tests.proxy_process import Config, Running, route, running_proxy

pytestmark = pytest.mark.root

LEVELS = {
    "any": "encrypt",
    "clear": "none",
    "other": "secure match=other.domain1.com",
    "old": "encrypt protocols=TLSv1.2",  # which the server no longer speaks
    "slow": "none",  # under a name that makes the server wait
}
SLOW = "slow.sender.example"
WAITS = 3  # seconds, with the reply to that name's EHLO


class Scene:
    """The sender, the proxy and the server."""

    def __init__(self, sender: Postfix, proxy: Running, server: Postfix, port: int, stopping: int) -> None:
        self.sender = sender
        self.proxy = proxy
        self.server = server
        self.port = port  # the server's
        self.stopping = stopping  # where mail to stopping.example goes

    def submit(self, domain: str, sender: str = "a@sender.example") -> str:
        """Hand one in; its recipient."""
        recipient = f"{uuid.uuid4().hex}@{domain}"
        self.sender.submit(sender, recipient, b"Subject: hi\r\n\r\nhello\r\n")
        return recipient

    def mail(self, domain: str, sender: str = "a@sender.example") -> tuple[str, str]:
        """Send one; its recipient, and the sender's line about it."""
        recipient = self.submit(domain, sender)
        return recipient, self.told(recipient)

    def told(self, recipient: str) -> str:
        """The sender's line about it."""
        assert self.sender.delivery(recipient, 20) is not None, self.sender.log
        return grep(self.sender.log, f"to=<{recipient}>")[-1]

    def ours(self, *words: str, proxy: Running | None = None) -> str:
        """The one line of ours with these words."""
        lines = (proxy or self.proxy).lines
        found = wait_until(lambda: grep("\n".join(lines), *words), 10, f"a line with {words}")
        assert len(found) == 1, found
        return found[0]

    def of_server(self, *words: str) -> str:
        """The first line of the server with these words."""
        return wait_until(lambda: grep(self.server.log, *words), 10, f"a line of the server with {words}")[0]


def grep(log: str, *patterns: str) -> list[str]:
    """`grep A LOG | grep B`."""
    return [line for line in log.splitlines() if all(re.search(one, line) for one in patterns)]


def value(line: str, key: str) -> str:
    found = re.search(rf" {key}=(\S+)", line)
    assert found is not None, line
    return found[1]


def last_field(line: str, pattern: str) -> str:
    found = re.search(pattern, line)
    assert found is not None, line
    return found[1]


@contextmanager
def text_proxy(*routes: Config) -> Iterator[tuple[Running, list[int]]]:
    """A proxy whose log is as it stands outside of the journal, and its ports."""
    with running_proxy({"log": {"format": "text"}, "route": list(routes)}, ready=False, quiet=False) as proxy:
        ready = wait_until(lambda: grep("\n".join(proxy.lines), " info ready "), 20, "ready")[0]
        yield proxy, [int(one.rpartition(":")[2]) for one in value(ready, "listen").split(",")]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    if reason := postfixes.missing():
        pytest.skip(reason)
    port = free_port()
    with ExitStack() as stack:
        folder = stack.enter_context(public_folder())
        certificates = make_certificates(folder)
        takes = postfixes.receiver(folder) | {
            "smtpd_client_port_logging": "yes",
            "smtpd_tls_protocols": ">=TLSv1.3",
            "smtpd_delay_reject": "no",
            "smtpd_sender_restrictions": "",
            "smtpd_recipient_restrictions": (
                "check_sender_access inline:{ {refused.example = REJECT no} }, permit_mynetworks, reject"
            ),
            "smtpd_helo_restrictions": f"check_helo_access inline:{{ {{{SLOW} = sleep {WAITS}}} }}",
        }
        server = stack.enter_context(postfixes.running(folder / "server", certificates, {}, {}, takes, listen=port))
        routes = [
            route(port),
            route(f"127.0.0.1:{free_port()}", name="nobody"),
            route(port, name="strangers", allow_clients=["192.0.2.1/32"]),
            route(port, name="hasty", timeouts={"command": 1}),
        ]
        proxy, ports = stack.enter_context(text_proxy(*routes))
        stopping = free_port()
        ways = {f"{level}.example": f"{level}:[127.0.0.1]:{ports[0]}" for level in LEVELS}
        ways["nobody.example"] = f"clear:[127.0.0.1]:{ports[1]}"
        ways["strangers.example"] = f"clear:[127.0.0.1]:{ports[2]}"
        ways["hasty.example"] = f"slow:[127.0.0.1]:{ports[3]}"
        ways["stopping.example"] = f"slow:[127.0.0.1]:{stopping}"
        options = {"slow": f"smtp_helo_name = {SLOW}"}
        sender = stack.enter_context(postfixes.running(folder / "client", certificates, ways, LEVELS, options=options))
        yield Scene(sender, proxy, server, port, stopping)


@pytest.mark.parametrize("way", ["any", "clear"])
def test_a_mail_that_was_delivered(scene: Scene, way: str) -> None:
    recipient, told = scene.mail(f"{way}.example")
    queue_id = last_field(told, r"status=sent \(250 .* queued as (\w+)\)")
    port = last_field(scene.of_server(f"{queue_id}: client="), r"client=\S+\]:(\d+)")
    end = scene.ours(" session-end ", f" source_port={port} ")
    assert value(end, "outcome") == "completed"
    assert value(end, "ehlo_name") == "sender.example"
    assert value(end, "tls") == ("passthrough" if way == "any" else "none")
    # And back, from ours to the server's.
    assert recipient in scene.of_server(f"{queue_id}: to=")
    assert scene.of_server(rf"connect from \S+:{value(end, 'source_port')}$")


def test_a_mail_that_the_server_refused(scene: Scene) -> None:
    recipient, told = scene.mail("clear.example", "a@refused.example")
    assert re.search(r"status=bounced \(host .* said: 554 5\.7\.1 ", told)
    rejected = scene.of_server("NOQUEUE: reject", f"to=<{recipient}>")
    port = last_field(rejected, r"RCPT from \S+\]:(\d+):")
    assert value(scene.ours(" session-end ", f" source_port={port} "), "outcome") == "completed"


@pytest.mark.parametrize(("way", "outcome"), [("nobody", "unreachable"), ("strangers", "refused")])
def test_a_mail_that_the_proxy_turned_away(scene: Scene, way: str, outcome: str) -> None:
    _recipient, told = scene.mail(f"{way}.example")
    session = last_field(told, r"status=deferred \(.* 421 4\.\d\.\d .* \[(\w+)\]\)")
    end = scene.ours(" session-end ", f" session={session} ")
    assert " warning session-end " in end
    assert value(end, "outcome") == outcome
    assert value(end, "route") == way
    if outcome == "unreachable":
        assert scene.ours(" destination-failed ", f" route={way} ")
        assert value(end, "destination")


def test_a_mail_for_which_the_server_took_too_long(scene: Scene) -> None:
    _recipient, told = scene.mail("hasty.example")
    session = last_field(told, r"status=deferred \(.* 421 4\.4\.2 .* \[(\w+)\]\)")
    end = scene.ours(" warning session-end ", f" session={session} ")
    assert (value(end, "outcome"), value(end, "by"), value(end, "ehlo_name")) == ("timeout", "server", SLOW)
    assert scene.of_server(rf"lost connection after (EHLO|CONNECT) from \S+:{value(end, 'source_port')}$")


def test_a_mail_that_came_when_the_proxy_was_being_stopped(scene: Scene) -> None:
    with text_proxy(route(scene.port, name="stopping", listen=f"127.0.0.1:{scene.stopping}")) as (proxy, _):
        before = len(grep(scene.server.log, " connect from "))
        recipient = scene.submit("stopping.example")
        wait_until(lambda: grep(scene.server.log, " connect from ")[before:], 10, "a session at the server")
        proxy.signal(signal.SIGTERM)
        told = scene.told(recipient)
        session = last_field(told, r"status=deferred \(.* 421 4\.3\.2 .* \[(\w+)\]")
        end = scene.ours(" warning session-end ", f" session={session} ", proxy=proxy)
    assert (value(end, "outcome"), value(end, "by")) == ("aborted", "proxy")
    assert scene.of_server(rf"connect from \S+:{value(end, 'source_port')}$")


def test_a_mail_whose_tls_handshake_failed(scene: Scene) -> None:
    _recipient, told = scene.mail("old.example")
    assert re.search(r"status=deferred \(Cannot start TLS: handshake failure\)", told)
    end = scene.ours(
        " warning session-end ", " client=127.0.0.1 ", " ehlo_name=sender.example ", " outcome=tls-failed "
    )
    assert (value(end, "alert"), value(end, "by")) == ("protocol_version", "server")
    assert scene.of_server(rf"SSL_accept error from \S+:{value(end, 'source_port')}: ")


def test_a_mail_whose_sender_does_not_like_the_certificate(scene: Scene) -> None:
    pattern = "session-end .* client=127.0.0.1 .* ehlo_name=sender.example "
    before = len(grep("\n".join(scene.proxy.lines), pattern))
    _recipient, told = scene.mail("other.example")
    assert re.search(r"status=deferred \(Server certificate not ", told)
    (end,) = wait_until(lambda: grep("\n".join(scene.proxy.lines), pattern)[before:], 10, "our line")
    assert value(end, "outcome") == "completed"
    assert value(end, "tls") == "passthrough"
    assert scene.of_server(rf"\]:{value(end, 'source_port')}\b")
