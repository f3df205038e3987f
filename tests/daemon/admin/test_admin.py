"""The admin site: what each path says, to whom, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from proxy.daemon.admin import site as admin
from proxy.daemon.admin.access import Access, is_loopback
from proxy.daemon.admin.site import build_site
from proxy.daemon.admin.status import StatusBoard
from tests.daemon.daemons import Daemon
from tests.daemon.show_admin import board

HERE = IPv4Address("TCP", "127.0.0.1", 50000)


class Connection:
    """One connection to a site, in memory."""

    def __init__(self, site: admin.IProtocolFactory, peer: IAddress = HERE) -> None:
        self.transport = StringTransport(peerAddress=peer)
        protocol = site.buildProtocol(peer)
        assert protocol is not None
        self.protocol: IProtocol = protocol
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        self.transport.clear()
        self.protocol.dataReceived(data)
        return self.transport.value()


class Answer:
    """A response, taken apart."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *headers = head.decode("ascii").split("\r\n")
        self.code = int(status.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in headers)}


@contextmanager
def site_of(
    shown: StatusBoard, loopback: bool = True, access: Access | None = None, health_only: bool = False
) -> Iterator[tuple[admin.IProtocolFactory, Clock]]:
    clock = Clock()
    options = {"loopback": loopback, "access": access, "health_only": health_only, "reactor": clock}
    yield build_site(shown, now=lambda: 1700000000.0, **options), clock  # type: ignore[arg-type]  # a Clock is what it needs


def get(
    path: str,
    *,
    method: str = "GET",
    host: str | None = "127.0.0.1:9925",
    peer: IAddress = HERE,
    loopback: bool = True,
    shown: StatusBoard | None = None,
    more: str = "",
    access: Access | None = None,
    health_only: bool = False,
) -> Answer:
    host_line = f"Host: {host}\r\n" if host is not None else ""
    version = "1.1" if host is not None else "1.0"
    with site_of(shown or board("busy")[0], loopback, access, health_only) as (site, _clock):
        data = f"{method} {path} HTTP/{version}\r\n{host_line}{more}\r\n".encode("latin-1")
        return Answer(Connection(site, peer).send(data))


def test_status_json_is_the_status() -> None:
    answer = get("/status.json")
    assert answer.code == 200
    assert answer.headers["content-type"] == "application/json"
    status = json.loads(answer.body)
    assert set(status) == {"version", "started", "workers", "draining", "routes"}
    for route in status["routes"]:
        assert set(route) == {
            "name", "mode", "listen", "sessions_open", "sessions_limit", "sessions_total", "refused_total",
            "failed_total", "tls_total", "destinations",
        }  # fmt: skip
        for destination in route["destinations"]:
            assert set(destination) == {
                "name", "address", "up", "since", "reason", "findings", "before", "after", "certificate_not_after",
            }  # fmt: skip


def test_metrics_parse_with_prometheus_own_parser() -> None:
    answer = get("/metrics")
    assert answer.code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name for family in text_string_to_metric_families(answer.body.decode("utf-8"))}
    assert {"ehlo_proxy_sessions", "ehlo_proxy_ehlo_seconds", "ehlo_proxy_build_info"} <= families


def test_health_is_while_it_lives_and_readiness_while_it_accepts() -> None:
    shown, _daemon = board("quiet")
    assert get("/healthz", shown=shown).code == get("/readyz", shown=shown).code == 200
    shown.draining = True
    assert get("/healthz", shown=shown).code == 200
    answer = get("/readyz", shown=shown)
    assert (answer.code, answer.body) == (503, b"draining\n")


def test_the_page_comes_with_a_policy_that_allows_nothing_but_its_style_sheet() -> None:
    answer = get("/")
    assert answer.code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["style-src"].startswith("'sha256-")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "script-src" not in policy


@pytest.mark.parametrize("path", ["/", "/status.json", "/metrics", "/healthz", "/readyz", "/nothing"])
def test_every_answer_is_closed_to_other_sites_and_never_stored(path: str) -> None:
    answer = get(path)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["server"] == "ehlo-proxy"
    assert int(answer.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize("path", ["/", "/status.json", "/metrics", "/healthz", "/readyz"])
def test_head_is_get_without_the_body(path: str) -> None:
    answer, whole = get(path, method="HEAD"), get(path)
    assert answer.code == whole.code
    assert answer.headers["content-length"] == whole.headers["content-length"]
    assert answer.body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"])
def test_other_methods_are_refused(method: str) -> None:
    answer = get("/", method=method)
    assert answer.code == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/nothing", "/../etc/passwd", "/metrics/", "//", "/%2e", "/style.css", "/favicon.ico"]
)
def test_other_paths_do_not_exist(path: str) -> None:
    assert get(path).code == 404


def test_a_query_changes_nothing() -> None:
    assert get("/readyz?verbose=1").body == b"ready\n"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9925", "127.8.8.8", "localhost", "LOCALHOST:1", "[::1]:9925", "[::1]", None]
)
def test_a_loopback_listener_answers_to_loopback_names(host: str | None) -> None:
    assert get("/healthz", host=host).code == 200


@pytest.mark.parametrize(
    "host",
    [
        "rebind.example",
        "rebind.example:9925",
        "127.0.0.1.example",
        "192.0.2.1",
        "[2001:db8::1]",
        "localhost.example",
        "",
    ],
)
def test_a_loopback_listener_does_not_answer_to_other_names(host: str) -> None:
    answer = get("/status.json", host=host)
    assert answer.code == 421
    assert b"domain1" not in answer.body


def test_a_loopback_listener_does_not_answer_other_hosts() -> None:
    assert get("/", peer=IPv4Address("TCP", "192.0.2.9", 1)).code == 403
    assert get("/", peer=IPv6Address("TCP", "2001:db8::1", 1)).code == 403
    assert get("/", peer=IPv6Address("TCP", "::1", 1)).code == 200


def test_a_name_that_is_refused_is_told_how_to_be_allowed() -> None:
    answer = get("/", host="status.example:9925")
    assert answer.code == 421
    assert b'add "status.example" to host_names in [admin]' in answer.body
    assert b"<" not in get("/", host="<script>").body


@pytest.mark.parametrize("local", [True, False])
def test_names_in_host_names_are_answered(local: bool) -> None:
    access = Access(local=local, names=["Status.Example"])
    peer = HERE if local else IPv4Address("TCP", "192.0.2.9", 1)
    for host, code in (("status.example", 200), ("STATUS.example.:1", 200), ("127.0.0.1", 200), ("other.example", 421)):
        assert get("/healthz", host=host, access=access, peer=peer).code == code, host
    assert get("/healthz", host="192.0.2.1:9925", access=access, peer=peer).code == (421 if local else 200)


def test_only_clients_in_allow_clients_are_answered() -> None:
    access = Access(local=False, allow=[ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")])
    for client, code in (("192.0.2.9", 200), ("::ffff:192.0.2.9", 200), ("2001:db8::1", 200), ("198.51.100.1", 403)):
        kind = IPv6Address if ":" in client else IPv4Address
        answer = get("/status.json", access=access, peer=kind("TCP", client, 1))
        assert answer.code == code, client
    assert answer.body == b"198.51.100.1 is not in admin.allow_clients\n"
    access.change([ip_network("198.51.100.0/24")], [])
    assert get("/status.json", access=access, peer=IPv4Address("TCP", "198.51.100.1", 1)).code == 200, "a reload"


def test_a_unix_socket_asks_neither_for_client_nor_name() -> None:
    access = Access(local=False, allow=[ip_network("192.0.2.0/24")], names=["status.example"])
    assert get("/status.json", access=access, peer=UNIXAddress(b"/run/x"), host="anything").code == 200


def test_the_health_listener_has_health_and_readiness_for_everybody_and_nothing_else() -> None:
    stranger = {"access": Access(anybody=True), "peer": IPv4Address("TCP", "198.51.100.1", 1), "host": "anything"}
    for path, code in (("/healthz", 200), ("/readyz", 200), ("/", 404), ("/status.json", 404), ("/metrics", 404)):
        answer = get(path, health_only=True, **stranger)  # type: ignore[arg-type]  # the values of a table
        assert answer.code == code, path
        assert b"domain1" not in answer.body
    assert answer.body == b"there is /healthz /readyz\n"


def test_any_other_listener_is_the_operators_word() -> None:
    answer = get("/status.json", host="mx.example", peer=IPv4Address("TCP", "192.0.2.9", 1), loopback=False)
    assert answer.code == 200


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.255.0.1", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("::ffff:127.0.0.1", True), ("0.0.0.0", False), ("::", False), ("192.0.2.1", False), ("mx.example", False),
        ("", False),
    ],
)  # fmt: skip
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


def test_several_requests_go_over_one_connection() -> None:
    with site_of(board("quiet")[0]) as (site, clock):
        connection = Connection(site)
        for _ in range(3):
            request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
            assert connection.send(request).endswith(b"\r\n\r\nok\n")
            clock.advance(1)


def test_pipelined_requests_are_answered_in_turn_with_pauses() -> None:
    with site_of(board("quiet")[0]) as (site, clock):
        connection = Connection(site)
        connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
        other = Connection(site)
        other.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.transport.value().count(b"ok\n") == 1
        assert other.transport.value() == b""
        clock.advance(1)  # one at a time, and who asked first is first
        assert connection.transport.value().count(b"ok\n") == 2 - other.transport.value().count(b"ready\n")
        for _ in range(400):
            clock.advance(1)
        assert connection.transport.value().count(b"ok\n") == 400
        assert other.transport.value().count(b"ready\n") == 1


def test_a_connection_that_reads_nothing_gets_no_second_page() -> None:
    with site_of(board("quiet")[0]) as (site, clock):
        connection = Connection(site)
        connection.transport.producer.pauseProducing()  # it is full
        assert connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3) == b""
        clock.advance(20)
        assert connection.transport.value() == b""
        connection.transport.producer.resumeProducing()
        for _ in range(3):
            clock.advance(1)
        assert connection.transport.value().count(b"ok\n") == 3


def test_who_has_left_is_not_answered() -> None:
    with site_of(board("quiet")[0]) as (site, clock):
        first, second, third = (Connection(site) for _ in range(3))
        for connection in (first, second, third):
            connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        second.protocol.connectionLost(Failure(ConnectionDone()))
        clock.advance(1)
        clock.advance(1)
        assert [one.transport.value().count(b"ok\n") for one in (first, second, third)] == [1, 0, 1]


def test_a_body_is_thrown_away_as_it_comes() -> None:
    with site_of(board("quiet")[0]) as (site, _clock):
        connection = Connection(site)
        connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(100):
            assert connection.send(b"x" * 65536) == b""
        request = connection.protocol.wrappedProtocol._channel.requests[0]  # type: ignore[attr-defined]  # a look inside
        assert request.content.getvalue() == b""


def test_headers_are_bounded() -> None:
    with site_of(board("quiet")[0]) as (site, _clock):
        connection = Connection(site)
        connection.send(b"GET / HTTP/1.1\r\n")
        got = b""
        for _ in range(40):
            if not connection.transport.disconnecting:
                got += connection.send(b"X: " + b"y" * 1000 + b"\r\n")
        assert got.startswith(b"HTTP/1.1 400 ")


def test_a_silent_connection_is_ended() -> None:
    with site_of(board("quiet")[0]) as (site, clock):
        connection = Connection(site)
        clock.advance(admin.IDLE_TIMEOUT + 1)
        assert connection.transport.disconnecting


def test_idle_connections_do_not_lock_monitoring_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(admin, "ITCPTransport", lambda transport: transport)
    with site_of(board("quiet")[0]) as (site, _clock):
        connections = [Connection(site) for _ in range(10)]
        assert [connection.transport.disconnected for connection in connections] == [True] * 6 + [False] * 4
        request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert connections[-1].send(request).endswith(b"ready\n")


def test_a_bug_costs_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, _daemon = board("quiet")
    monkeypatch.setattr(shown, "metrics_text", lambda: 1 / 0)
    with site_of(shown) as (site, clock):
        pages = site.wrappedFactory.resource  # type: ignore[attr-defined]  # a look inside
        logged: list[object] = []
        monkeypatch.setattr(pages, "_log", type("Log", (), {"failure": lambda self, *a, **k: logged.append(a)})())
        connection = Connection(site)
        answer = Answer(connection.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        assert answer.code == 500
        assert b"ZeroDivision" not in answer.body
        assert len(logged) == 1
        clock.advance(1)
        assert Answer(connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")).code == 200


def test_the_web_server_is_imported_only_with_the_admin_listener() -> None:
    code = "import sys, proxy.daemon.reports, proxy.daemon.admin.status; print([m for m in sys.modules if 'web' in m])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_what_is_shown_is_what_there_is_now() -> None:
    daemon = Daemon()
    shown = StatusBoard("1", daemon.time, lambda: [daemon.reports.snapshot()], lambda: daemon.time)
    assert b'sessions_open{route="domain1"}' not in get("/metrics", shown=shown).body
    daemon.reports.session_started(daemon.story())
    assert b'ehlo_proxy_sessions_open{route="domain1"} 1.0' in get("/metrics", shown=shown).body
