"""docs/find-a-mail.md with real Postfix on both sides: from the sender's line to ours to the server's, by grep."""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clients import postfix as postfixes
from tests.clients.lab import make_certificates
from tests.clients.postfix import Postfix
from tests.loopback import free_port, wait_until
from tests.proxy_process import Running, route, running_proxy

pytestmark = pytest.mark.root

LEVELS = {"any": "encrypt", "clear": "none", "other": "secure match=other.domain1.com"}


class Scene:
    """The sender, the proxy and the server."""

    def __init__(self, sender: Postfix, proxy: Running, server: Postfix) -> None:
        self.sender = sender
        self.proxy = proxy
        self.server = server

    def mail(self, domain: str, sender: str = "a@sender.example") -> tuple[str, str]:
        """Send one; its recipient, and the sender's line about it."""
        recipient = f"{uuid.uuid4().hex}@{domain}"
        self.sender.submit(sender, recipient, b"Subject: hi\r\n\r\nhello\r\n")
        assert self.sender.delivery(recipient, 20) is not None, self.sender.log
        return recipient, grep(self.sender.log, f"to=<{recipient}>")[-1]

    def ours(self, *words: str) -> str:
        """The one line of ours with these words."""
        found = wait_until(lambda: grep("\n".join(self.proxy.lines), *words), 10, f"a line with {words}")
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


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    if reason := postfixes.missing():
        pytest.skip(reason)
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ehlo-find-")))
        folder.chmod(0o755)
        certificates = make_certificates(folder)
        takes = postfixes.receiver(folder) | {"smtpd_client_port_logging": "yes"}
        server = stack.enter_context(postfixes.running(folder / "server", certificates, {}, {}, takes, listen=port))
        routes = [
            route(port),
            route(f"127.0.0.1:{free_port()}", name="nobody"),
            route(port, name="strangers", allow_clients=["192.0.2.1/32"]),
        ]
        config = {"log": {"format": "text"}, "route": routes}
        proxy = stack.enter_context(running_proxy(config, ready=False, quiet=False))
        wait_until(lambda: grep("\n".join(proxy.lines), " info ready "), 20, "ready")
        listen = value(grep("\n".join(proxy.lines), " info ready ")[0], "listen").split(",")
        ports = [int(one.rpartition(":")[2]) for one in listen]
        ways = {f"{level}.example": f"{level}:[127.0.0.1]:{ports[0]}" for level in LEVELS}
        ways["nobody.example"] = f"clear:[127.0.0.1]:{ports[1]}"
        ways["strangers.example"] = f"clear:[127.0.0.1]:{ports[2]}"
        sender = stack.enter_context(postfixes.running(folder / "client", certificates, ways, LEVELS))
        yield Scene(sender, proxy, server)


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


def test_a_mail_whose_sender_does_not_like_the_certificate(scene: Scene) -> None:
    pattern = "session-end .* client=127.0.0.1 .* ehlo_name=sender.example "
    before = len(grep("\n".join(scene.proxy.lines), pattern))
    _recipient, told = scene.mail("other.example")
    assert re.search(r"status=deferred \(Server certificate not ", told)
    (end,) = wait_until(lambda: grep("\n".join(scene.proxy.lines), pattern)[before:], 10, "our line")
    assert value(end, "outcome") in ("completed", "client-reset")  # it closes with bytes of ours unread
    assert value(end, "tls") == "passthrough"
    assert scene.of_server(rf"\]:{value(end, 'source_port')}\b")
