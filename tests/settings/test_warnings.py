"""What is legal but unwise is said, and nothing else is."""

from __future__ import annotations

import base64

import pytest

from proxy.settings import parse, warnings

PIN = f'["sha256:{base64.b64encode(bytes(32)).decode()}"]'
BRIDGE = 'tls.mode = "bridge"\ntls.certificate = "c.pem"\ntls.key = "k.pem"\n'
NAMED = 'tls.verify_name = "mail.domain1.com"\n'


def found(route: str = "", head: str = "", listen: str = "0.0.0.0:25", to: str = '["192.0.2.10"]') -> dict[str, str]:
    text = f'{head}\n[[route]]\nlisten = ["{listen}"]\ndestination = {to}\n{route}\n'
    return {warning.key: warning.text for warning in warnings(parse(text, "test.toml"))}


@pytest.mark.parametrize(
    "route",
    [
        "",
        'allow_clients = ["192.0.0.0/8", "2001:db8::/32"]',
        "timeouts.banner = 300\ntimeouts.command = 300",
        "timeouts.idle = '10m'\ntimeouts.half_closed = '10m'\ntimeouts.connect = 1\ntimeouts.abort = 1",
        BRIDGE + NAMED,
        BRIDGE + NAMED + f"tls.verify = 'pin'\ntls.pins = {PIN}",
        "trusted_proxies = ['192.0.2.0/24']\nxclient = true",
    ],
)
def test_nothing_is_said_about_what_is_wise(route: str) -> None:
    assert found(route) == {}


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "128.0.0.0/1", "2000::/3"])
@pytest.mark.parametrize("listen", ["0.0.0.0:25", "[::]:25", "192.0.2.1:25", "systemd:smtp"])
def test_strangers_can_reach_the_server_through_a_wide_listener(network: str, listen: str) -> None:
    assert network in found(f'allow_clients = ["{network}"]', listen=listen)["route[0].allow_clients"]


def test_on_loopback_all_clients_may_be_allowed() -> None:
    assert found('allow_clients = ["0.0.0.0/0"]', listen="127.0.0.1:25") == {}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("banner", "'4m'", "240 s is less than the 5 minutes of RFC 5321 4.5.3.2.1"),
        ("command", 10, "RFC 5321 4.5.3.2.7"),
        ("idle", "'5m'", "RFC 5321 4.5.3.2.6"),
        ("half_closed", "'9m'", "540 s is less than the 10 minutes of RFC 5321 4.5.3.2.6"),
    ],
)
def test_a_time_out_under_rfc_5321_is_named_with_its_clause(key: str, value: object, says: str) -> None:
    assert says in found(f"timeouts.{key} = {value}")[f"route[0].timeouts.{key}"]


@pytest.mark.parametrize(
    ("route", "key"),
    [
        ("allow_clients = []", "allow_clients"),
        ("trusted_proxies = ['0.0.0.0/0']\nproxy_protocol = true", "trusted_proxies"),
        ("xclient = true\nsend_proxy_protocol = 2", "xclient"),
        ("original_ports = [25, 587]", "original_ports"),
        ("original_networks = ['192.0.2.0/24']", "original_networks"),
        ("repair.remove = ['STARTTLS']", "repair.remove"),
        ("repair.unterminated_after = '5m'", "repair.unterminated_after"),
        ("record.bytes = 1", "record.bytes"),
        ("record.sessions = 1", "record.sessions"),
        ("tls.verify = 'none'", "tls"),
        ("tls.required = false", "tls"),
        (BRIDGE, "tls.verify_name"),
        (BRIDGE + "tls.verify = 'none'", "tls.verify"),
        (BRIDGE + NAMED + f"tls.pins = {PIN}", "tls.pins"),
        (BRIDGE + NAMED + "tls.keylog = '/tmp/keys'", "tls.keylog"),
        (BRIDGE + NAMED + "tls.minimum_version = '1.0'", "tls.minimum_version"),
        (BRIDGE + NAMED + "tls.required = false", "tls.required"),
        (BRIDGE + NAMED + "tls.client_minimum_version = '1.0'", "tls.client_minimum_version"),
        (BRIDGE + NAMED + "tls.server_minimum_version = '1.1'", "tls.server_minimum_version"),
        (BRIDGE + NAMED + "tls.groups = 'classic'", "tls.groups"),
        (BRIDGE + NAMED + "tls.security_level = 0", "tls.security_level"),
        ("repair.remove = ['CHUNKING']", "repair.remove"),
        ("repair.client_name = 'printer.domain1.com'", "repair.client_name"),
        ("tls.mode = 'bridge'\ntls.client = 'none'\ntls.server = 'none'\ntls.verify = 'none'", "tls"),
    ],
)
def test_it_is_said_what_is_unwise_or_without_effect(route: str, key: str) -> None:
    assert list(found(route)) == [f"route[0].{key}"]


WITHOUT_SERVER = "tls.verify = 'none'\ntls.server = 'none'\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("tls.minimum_version = '1.1'", "on both sides; OpenSSL's security level becomes 0 there"),
        ("tls.client_minimum_version = '1.0'", "TLS 1.0 is obsolete (RFC 8996), on the client's side; OpenSSL's"),
        ("tls.server_minimum_version = '1.0'", "TLS 1.0 is obsolete (RFC 8996), on the server's side; OpenSSL's"),
        ("tls.groups = 'classic'", "quantum computers, towards the server"),
        ("tls.security_level = 0", "0 takes keys and signatures that are too weak by default"),
        ("tls.security_level = 1", "1 takes keys and signatures that are too weak by default"),
        ("tls.verify = 'none'", "the server is not authenticated"),
        ("tls.required = false", "lets a client send its mail in clear"),
        ("tls.keylog = '/tmp/keys'", "whoever reads this file can read the mail"),
    ],
)
def test_every_weakening_is_told_and_on_which_side(line: str, says: str) -> None:
    ((key, text),) = found(BRIDGE + NAMED + line).items()
    assert key == f"route[0].{line.partition(' ')[0]}"
    assert says in text


@pytest.mark.parametrize("level", [1, 2])
def test_a_security_level_that_forbids_the_version_asked_for_is_told(level: int) -> None:
    """As tests/net/tls/test_limits.py shows: at level 1 OpenSSL speaks no TLS 1.0."""
    said = found(BRIDGE + NAMED + f"tls.security_level = {level}\ntls.server_minimum_version = '1.0'")
    assert said["route[0].tls.security_level"].startswith(f"with {level} OpenSSL speaks no TLS 1.0 towards the server")
    assert "becomes 0" not in said["route[0].tls.server_minimum_version"]


@pytest.mark.parametrize("key", ["groups = 'classic'", "security_level = 1", "server_minimum_version = '1.0'"])
def test_what_is_for_the_server_has_no_effect_on_a_server_without_tls(key: str) -> None:
    said = found(BRIDGE + WITHOUT_SERVER + f"tls.{key}", to='["127.0.0.1:26"]')
    assert said == {f"route[0].tls.{key.partition(' ')[0]}": 'has no effect where server = "none"'}


def test_what_is_for_the_client_has_no_effect_on_a_client_without_tls() -> None:
    said = found("tls.mode = 'bridge'\ntls.client = 'none'\ntls.client_minimum_version = '1.0'\n" + NAMED)
    assert said == {"route[0].tls.client_minimum_version": 'has no effect where client = "none"'}


def test_interception_for_everybody_is_said_in_its_own_words() -> None:
    said = found('allow_clients = ["0.0.0.0/0"]', to='"original"')["route[0].allow_clients"]
    assert "go anywhere through it" in said


def test_what_only_original_uses_is_not_without_effect_there() -> None:
    assert found("original_ports = [25, 587]", to='"original"') == {}


def test_what_does_not_reach_inside_tls_in_pass_through_does_in_bridge_mode() -> None:
    for line in ("repair.remove = ['CHUNKING']", "repair.client_name = 'printer.domain1.com'"):
        assert "inside TLS" in next(iter(found(line).values()))
        assert found(BRIDGE + NAMED + line) == {}


def test_hiding_8bitmime_alone_leaves_smtputf8_without_what_it_needs() -> None:
    assert "RFC 6531" in found(BRIDGE + NAMED + "repair.remove = ['8BITMIME']")["route[0].repair.remove"]
    assert found(BRIDGE + NAMED + "repair.remove = ['8BITMIME', 'SMTPUTF8', 'CHUNKING']") == {}


@pytest.mark.parametrize("to", ['["192.0.2.10:465"]', '["mail.domain1.com:465"]'])
def test_a_port_of_implicit_tls_has_nothing_to_repair_in_pass_through(to: str) -> None:
    assert 'server = "implicit"' in found(to=to)["route[0].destination"]
    assert "waits in vain" in found(BRIDGE + NAMED, to=to)["route[0].tls.server"]
    assert found(BRIDGE + NAMED + "tls.server = 'implicit'", to=to) == {}


def test_exchanges_of_another_domain_have_to_be_named() -> None:
    assert "domain1.com or lie below it" in found(BRIDGE, to='"mx:domain1.com"')["route[0].tls.verify_name"]
    assert found(BRIDGE + "tls.verify_name = ['.example.net', 'domain1.com']", to='"mx:domain1.com"') == {}


@pytest.mark.parametrize(
    ("head", "key"),
    [
        ("[service]\ndrain_timeout = '9m'", "service.drain_timeout"),
        ("[service]\nworkers = 8\n", ""),
        ("[admin]\nlisten = '0.0.0.0:9925'", "admin.listen"),
        ("[admin]\nlisten = '[::1]:9925'", ""),
        ("[admin]\nlisten = '0.0.0.0:9925'\nallow_clients = ['192.0.2.1']", ""),
        ("[admin]\nlisten = 'unix:/run/x'", ""),
        ("[admin]\nlisten = 'unix:/run/x'\nallow_clients = ['192.0.2.1']", "admin.allow_clients"),
        ("[admin]\nhealth_listen = '0.0.0.0:9926'", ""),
    ],
)
def test_the_service_as_a_whole(head: str, key: str) -> None:
    assert list(found(head=head)) == ([key] if key else [])


def test_fewer_sessions_than_workers() -> None:
    assert list(found("max_sessions = 4", head="[service]\nworkers = 8")) == ["route[0].max_sessions"]
