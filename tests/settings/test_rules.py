"""Settings that contradict each other, and destinations that lead back here."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from proxy.settings import SettingsError, parse, rules

OWN = {ip_address("192.0.2.1"), ip_address("2001:db8::1"), ip_address("127.0.0.1"), ip_address("::1")}
GOOD = {"listen": '["127.0.0.1:2525"]', "destination": '["192.0.2.10:25"]'}


def document(*routes: dict[str, str], head: str = "") -> str:
    tables = ["\n".join(f"{key} = {value}" for key, value in {**GOOD, **route}.items()) for route in routes]
    return head + "".join(f"\n[[route]]\n{table}\n" for table in tables)


def problems(text: str) -> list[tuple[str, str]]:
    try:
        parse(text, "test.toml")
    except SettingsError as error:
        return [(problem.key, problem.expected) for problem in error.problems]
    return []


def of(**route: str) -> list[tuple[str, str]]:
    """The problems of one route; `__` in a key is a dot."""
    return problems(document({key.replace("__", "."): value for key, value in route.items()}))


def test_a_listener_and_a_destination_are_all_that_is_needed() -> None:
    assert of() == []


def test_a_route_without_listener_and_destination_says_both() -> None:
    assert [key for key, _ in of(listen="[]", destination="[]")] == ["route[0].listen", "route[0].destination"]


@pytest.mark.parametrize("text", ["", "route = []", "[log]\nlevel = 'info'"])
def test_no_route_at_all_is_an_error(text: str) -> None:
    assert problems(text) == [("route", "at least one [[route]]")]


def test_two_routes_have_two_names() -> None:
    text = document({"name": '"a"'}, {"name": '"a"', "listen": '["127.0.0.1:2526"]'})
    assert problems(text) == [("route[1].name", "a name of its own; route[0] has this one")]


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("127.0.0.1:25", "127.0.0.1:25", True),
        ("0.0.0.0:25", "127.0.0.1:25", True),
        ("127.0.0.1:25", "0.0.0.0:25", True),
        ("[::]:25", "[::1]:25", True),
        ("[::1]:25", "[0::1]:25", True),
        ("systemd:smtp", "systemd:smtp", True),
        ("0.0.0.0:25", "[::]:25", False),
        ("0.0.0.0:25", "0.0.0.0:26", False),
        ("127.0.0.1:25", "127.0.0.2:25", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("systemd:smtp", "systemd:smtp6", False),
    ],
)
def test_an_address_is_listened_on_once(first: str, second: str, clash: bool) -> None:
    two_routes = problems(
        document({"name": '"a"', "listen": f'["{first}"]'}, {"name": '"b"', "listen": f'["{second}"]'})
    )
    assert [key for key, _ in two_routes] == (["route[1].listen[0]"] if clash else [])
    one_route = of(listen=f'["{first}", "{second}"]')
    assert [key for key, _ in one_route] == (["route[0].listen[1]"] if clash else [])


def test_the_admin_listener_is_a_listener_too() -> None:
    text = document({"listen": '["0.0.0.0:2525"]'}, head='[admin]\nlisten = "127.0.0.1:2525"')
    assert [key for key, _ in problems(text)] == ["admin.listen"]


@pytest.mark.parametrize(
    ("route", "key"),
    [
        ({"destination": '["original", "192.0.2.10"]'}, "destination"),
        ({"destination": '"original"', "original_ports": "[]"}, "original_ports"),
        ({"proxy_protocol": "true"}, "trusted_proxies"),
        ({"xclient": "true", "source": '"client"'}, "xclient"),
        ({"source": '"2001:db8::2"'}, "source"),
        ({"source": '"client"', "destination": '["[2001:db8::2]:25"]'}, "source"),
        ({"repair__add": '["AUTH PLAIN", "auth LOGIN"]'}, "repair.add[1]"),
        ({"tls__certificate": '"c.pem"'}, "tls.key"),
        ({"tls__key": '"k.pem"'}, "tls.certificate"),
        ({"tls__client_certificate": '"c.pem"'}, "tls.client_key"),
        ({"tls__client_key": '"k.pem"'}, "tls.client_certificate"),
        ({"tls__verify": '"pin"'}, "tls.pins"),
    ],
)
def test_a_contradiction_is_told_at_one_key(route: dict[str, str], key: str) -> None:
    assert [where for where, _ in of(**route)] == [f"route[0].{key}"]


PAIR = {"tls__mode": '"bridge"', "tls__certificate": '"c.pem"', "tls__key": '"k.pem"'}


@pytest.mark.parametrize(
    ("route", "keys"),
    [
        ({**PAIR}, []),
        ({"tls__mode": '"bridge"'}, ["tls.certificate", "tls.key"]),
        ({"tls__mode": '"bridge"', "tls__client": '"implicit"', "tls__key": '"k.pem"'}, ["tls.certificate"]),
        ({"tls__mode": '"bridge"', "tls__client": '"none"'}, []),
        ({**PAIR, "tls__server": '"none"'}, ["tls.server"]),
        ({**PAIR, "tls__server": '"none"', "destination": '["localhost:25"]'}, ["tls.server"]),
        ({**PAIR, "tls__server": '"none"', "destination": '["127.0.0.1:25", "192.0.2.1:25"]'}, ["tls.server"]),
        ({**PAIR, "tls__server": '"none"', "destination": '["127.0.0.1:25", "[::1]:25"]'}, []),
        ({**PAIR, "tls__server": '"none"', "tls__verify": '"none"'}, []),
        ({**PAIR, "repair__remove": '["STARTTLS"]'}, ["repair.remove"]),
        ({**PAIR, "repair__remove": '["STARTTLS"]', "tls__required": "false"}, []),
        ({**PAIR, "repair__add": '["STARTTLS"]'}, []),
        ({**PAIR, "repair__add": '["STARTTLS"]', "tls__client": '"none"'}, ["repair.add"]),
        ({"repair__remove": '["STARTTLS"]'}, []),
    ],
)
def test_bridge_mode_has_what_it_needs(route: dict[str, str], keys: list[str]) -> None:
    assert [where for where, _ in of(**route)] == [f"route[0].{key}" for key in keys]


@pytest.mark.parametrize(
    "route",
    [
        {"source": '"client"'},
        {"source": '"client"', "destination": '["mail.domain1.com"]', "listen": '["[::1]:25"]'},
        {"source": '"client"', "destination": '["[2001:db8::2]"]', "listen": '["systemd:smtp6"]'},
        {"source": '"192.0.2.1"', "destination": '["[2001:db8::2]", "192.0.2.10"]'},
        {"source": '"192.0.2.1"', "destination": '"original"'},
        {"proxy_protocol": "true", "trusted_proxies": '["192.0.2.0/24"]'},
        {"trusted_proxies": '["192.0.2.0/24"]'},
        {"repair__add": '["SIZE 10000"]', "repair__remove": '["SIZE"]'},
    ],
)
def test_what_makes_sense_together_is_accepted(route: dict[str, str]) -> None:
    assert of(**route) == []


def test_a_rule_is_silent_about_what_could_not_be_read() -> None:
    """The default that stands in is not what the operator wrote."""
    assert [key for key, _ in of(listen='["localhost:25"]')] == ["route[0].listen[0]"]
    assert [key for key, _ in of(destination="25")] == ["route[0].destination"]
    assert [key for key, _ in of(proxy_protocol="true", trusted_proxies='["x"]')] == ["route[0].trusted_proxies[0]"]
    assert [key for key, _ in of(tls__mode='"bridge"', tls__certificate="1", tls__key="2")] == [
        "route[0].tls.certificate",
        "route[0].tls.key",
    ]
    assert [key for key, _ in of(tls__verify='"pin"', tls__pins='["x"]')] == ["route[0].tls.pins[0]"]
    assert [key for key, _ in problems('[[route]]\nlisten = ["127.0.0.1:25"]\ndestinations = ["192.0.2.10"]')] == [
        "route[0].destinations"
    ]


def listening(*listen: str) -> str:
    return document({"listen": "[" + ", ".join(f'"{one}"' for one in listen) + "]"})


@pytest.mark.parametrize(
    ("listen", "host", "port", "found"),
    [
        ("0.0.0.0:25", "192.0.2.1", 25, True),
        ("0.0.0.0:25", "127.0.0.1", 25, True),
        ("0.0.0.0:25", "127.9.9.9", 25, True),
        ("0.0.0.0:25", "0.0.0.0", 25, True),
        ("0.0.0.0:25", "192.0.2.10", 25, False),
        ("0.0.0.0:25", "192.0.2.1", 26, False),
        ("0.0.0.0:25", "2001:db8::1", 25, False),
        ("[::]:25", "2001:db8::1", 25, True),
        ("[::]:25", "::1", 25, True),
        ("[::]:25", "192.0.2.1", 25, False),
        ("192.0.2.1:25", "192.0.2.1", 25, True),
        ("192.0.2.1:25", "127.0.0.1", 25, False),
        ("127.0.0.1:25", "127.0.0.1", 25, True),
        ("127.0.0.1:25", "0.0.0.0", 25, True),
        ("127.0.0.2:25", "127.0.0.1", 25, False),
        ("127.0.0.2:25", "0.0.0.0", 25, False),
        ("[::1]:25", "::", 25, True),
        ("127.0.0.1:0", "127.0.0.1", 2525, False),
        ("systemd:smtp", "127.0.0.1", 25, False),
        ("[fe80::1%eth0]:25", "fe80::1%eth0", 25, True),
    ],
)
def test_a_connection_leads_back_where_a_listener_would_take_it(listen: str, host: str, port: int, found: bool) -> None:
    settings = parse(listening(listen), "test.toml")
    assert (rules.leads_to(rules.listening(settings), host, port, OWN) is not None) is found


def test_a_destination_that_is_one_of_our_listeners_is_an_error_wherever_it_stands() -> None:
    text = document(
        {"name": '"a"', "listen": '["127.0.0.1:2525"]', "destination": '["192.0.2.10:25", "127.0.0.1:2526"]'},
        {"name": '"b"', "listen": '["127.0.0.1:2526"]', "destination": '["127.0.0.1:2527"]'},
        head='[admin]\nlisten = "127.0.0.1:2527"',
    )
    found = problems(text)
    assert [key for key, _ in found] == ["route[0].destination[1]", "route[1].destination[0]"]
    assert "leads back to the proxy itself" in found[0][1]
    assert "127.0.0.1:2526 (route[1].listen[0])" in found[0][1]
