"""Addresses, names and ports: what is taken, in which form it comes out, and what is said about the rest."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest

from proxy.settings import values
from proxy.settings.problems import Unfit
from proxy.settings.values import Destination, Endpoint, Listen


def fault(read: Any, value: object) -> tuple[str, str | None]:
    with pytest.raises(Unfit) as caught:
        read(value)
    (one,) = caught.value.faults
    assert one.value == value
    return one.expected, one.nearest


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.0.0.0:25", Listen("0.0.0.0", 25)),
        ("[::]:25", Listen("::", 25)),
        ("[2001:DB8:0::1]:25", Listen("2001:db8::1", 25)),
        ("127.0.0.1:0", Listen("127.0.0.1", 0)),
        ("[fe80::1%eth0]:25", Listen("fe80::1%eth0", 25)),
        ("[::ffff:192.0.2.1]:25", Listen("192.0.2.1", 25)),
        ("systemd:smtp-v4", Listen(systemd="smtp-v4")),
    ],
)
def test_a_listener_is_an_address_with_a_port_or_a_socket_of_systemd(value: str, expected: Listen) -> None:
    assert values.listen(value) == expected
    assert values.listen(str(expected)) == expected


@pytest.mark.parametrize(
    ("value", "says", "near"),
    [
        ("0.0.0.0", "a port too", "0.0.0.0:25"),
        ("[::1]", "a port too", "[::1]:25"),
        ("25", "a port too", None),
        (":25", "not a name", "0.0.0.0:25"),
        ("*:25", "not a name", "0.0.0.0:25"),
        ("localhost:2525", "not a name", "127.0.0.1:2525"),
        ("::1", "in brackets", "[::1]:25"),
        ("::1:25x", "in brackets", None),
        ("[::1", "inside the brackets", None),
        ("[192.0.2.1]:25", "inside the brackets", None),
        ("[]:25", "inside the brackets", None),
        ("[::1]25", "behind the colon", None),
        ("192.0.2.1:", "behind the colon", None),
        ("192.0.2.1:-1", "behind the colon", None),
        ("192.0.2.1:smtp", "behind the colon", None),
        ("192.0.2.1:65536", "from 0 to 65535", None),
        ("192.0.2.1:99999999", "behind the colon", None),
        ("[fe80::1]:25", "the interface", None),
        ("[fe80::1%a b]:25", "inside the brackets", None),
        ("systemd:", "FileDescriptorName", None),
        ("systemd:a:b", "FileDescriptorName", None),
        (25, "a string", None),
    ],
)
def test_anything_else_is_no_listener(value: object, says: str, near: str | None) -> None:
    expected, nearest = fault(values.listen, value)
    assert says in expected
    assert nearest == near


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("192.0.2.10", Destination("address", "192.0.2.10", 25)),
        ("192.0.2.10:2525", Destination("address", "192.0.2.10", 2525)),
        ("[2001:db8::10]", Destination("address", "2001:db8::10", 25)),
        ("[2001:db8::10]:587", Destination("address", "2001:db8::10", 587)),
        ("mail.domain1.com", Destination("name", "mail.domain1.com", 25)),
        ("mail.domain1.com.:26", Destination("name", "mail.domain1.com", 26)),
        ("my_host:26", Destination("name", "my_host", 26)),
        ("3com.example", Destination("name", "3com.example", 25)),
        ("mx:domain1.com", Destination("mx", "domain1.com", 25)),
        ("mx:domain1.com:26", Destination("mx", "domain1.com", 26)),
        ("original", Destination("original", "", 0)),
    ],
)
def test_a_destination_is_an_address_a_name_a_mail_domain_or_original(value: str, expected: Destination) -> None:
    assert values.destination(value) == expected
    assert values.destination(str(expected)) == expected


@pytest.mark.parametrize(
    ("value", "says", "near"),
    [
        ("", "host name", None),
        ("192.0.2.10:0", "from 1 to 65535", None),
        ("192.0.2.300", "host name", None),
        ("1.2.3", "host name", None),
        ("2001:db8::10", "in brackets", "[2001:db8::10]:25"),
        ("a b", "host name", None),
        ("-a.example", "host name", None),
        ("a..example", "host name", None),
        ("a" * 64, "host name", None),
        (".".join(["a" * 50] * 6), "host name", None),
        ("bücher.example", "host name", "xn--bcher-kva.example"),
        ("\u00ad.example", "host name", None),
        ("é" * 80 + ".example", "host name", None),
        ("smtp://a.example", "not a URL", "a.example"),
        ("[mail.example]:25", "without brackets", "mail.example:25"),
        ("[mail.example]", "without brackets", "mail.example"),
        ("mx:", "host name", None),
        ("mx:192.0.2.1", "mail domain", "192.0.2.1:25"),
        ("original:25", "without a port", "original"),
        (["192.0.2.10"], "a string", None),
    ],
)
def test_anything_else_is_no_destination(value: object, says: str, near: str | None) -> None:
    expected, nearest = fault(values.destination, value)
    assert says in expected or "control characters" in expected
    assert nearest == near


def test_a_network_has_no_bits_of_a_host() -> None:
    assert str(values.network("192.0.2.0/24")) == "192.0.2.0/24"
    assert str(values.network("192.0.2.1")) == "192.0.2.1/32"
    assert str(values.network("::/0")) == "::/0"
    assert fault(values.network, "192.0.2.1/24")[1] == "192.0.2.0/24"
    for wrong in ("", "192.0.2.0/33", "domain1.com", "192.0.2", "*"):
        assert fault(values.network, wrong)[1] is None


def test_the_admin_listener_is_none_or_an_address() -> None:
    assert values.endpoint("") is None
    assert values.endpoint("[::1]:9925") == Endpoint("::1", 9925)
    for wrong in ("9925", "localhost:9925", "systemd:admin", 9925):
        assert fault(values.endpoint, wrong)


def test_a_source_is_none_an_address_or_the_clients() -> None:
    for right in ("", "client", "192.0.2.1", "2001:db8::1"):
        assert values.source(right) == right
    assert fault(values.source, "Client")[1] == "client"
    assert fault(values.source, "192.0.2.1:25")[1] is None


def test_a_certificates_name_is_a_host_or_an_address() -> None:
    assert values.server_name("mail.domain1.com") == "mail.domain1.com"
    assert values.server_name("[2001:DB8::1]") == "2001:db8::1"
    assert values.server_name("192.0.2.1") == "192.0.2.1"
    assert values.server_name("") == ""
    assert fault(values.server_name, "*.domain1.com")


READERS = {
    one.__name__: one
    for one in (values.listen, values.destination, values.network, values.endpoint, values.source, values.server_name)
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "value",
    [None, True, 5, 16**5000, math.nan, "\0", "[", "]", "%", "[%]:1", "a%b", "[::1%]:1", ":", "::", "é", [], {}],
    ids=lambda value: ascii(value)[:20] if not isinstance(value, int) else "int",
)
def test_a_reader_raises_nothing_but_unfit(read: Any, value: object) -> None:
    with contextlib.suppress(Unfit):
        read(value)
