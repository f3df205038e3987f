"""Original destinations and foreign sources, as far as one host without packet filter rules shows them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from proxy.net.going_out import transparent

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(params=["127.0.0.1", "::1"])
def accepted(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with (
        socket.create_server((request.param, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]),
    ):
        sock, _ = listener.accept()
        with sock:
            yield sock, listener.getsockname()[:2]


def test_a_direct_connection_names_the_listener_itself(
    accepted: tuple[socket.socket, tuple[str, int]],
) -> None:
    assert transparent.original_destination(accepted[0]) == accepted[1]


@pytest.mark.parametrize(
    ("family", "packed", "expected"),
    [
        (socket.AF_INET, "0200 0019 c0000201 0000000000000000", ("192.0.2.1", 25)),
        (socket.AF_INET6, "0a00 024b 00000000 20010db8000000000000000000000001 00000000", ("2001:db8::1", 587)),
        (socket.AF_INET6, "0a00 0019 00000000 fe800000000000000000000000000001 03000000", ("fe80::1%3", 25)),
    ],
)
@pytest.mark.skipif(sys.byteorder == "big", reason="the bytes are a little-endian host's")
def test_what_connection_tracking_says_is_read(family: int, packed: str, expected: tuple[str, int]) -> None:
    class Intercepted:
        def __init__(self) -> None:
            self.family = family

        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option) == (socket.IPPROTO_IPV6 if family == socket.AF_INET6 else socket.IPPROTO_IP, 80)
            content = bytes.fromhex(packed.replace(" ", ""))
            assert len(content) == size
            return content

    assert transparent.original_destination(Intercepted()) == expected  # type: ignore[arg-type]  # what it needs


@root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_transparent_socket_binds_to_a_foreign_address(family: int) -> None:
    address = "2001:db8::99" if family == socket.AF_INET6 else "192.0.2.99"
    with socket.socket(family) as sock:
        with pytest.raises(OSError):
            sock.bind((address, 0))
        transparent.bind_source(sock, address, transparent=True)
        assert sock.getsockname()[:2] == (address, 0)  # the port comes with the connection


def test_a_source_address_does_not_take_a_port_for_all_destinations() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
        transparent.bind_source(sock, "127.0.0.7", transparent=False)
        assert sock.getsockname() == ("127.0.0.7", 0)
        sock.connect(listener.getsockname())
        assert sock.getsockname()[1] != 0


def test_only_the_client_s_address_as_source_needs_a_capability() -> None:
    assert transparent.lacking("") == transparent.lacking("192.0.2.1") == ""


@root
def test_with_the_capability_nothing_is_lacking() -> None:
    assert transparent.lacking("client") == ""


@root
def test_without_the_capability_it_is_named() -> None:
    code = (
        "import os; from proxy.net.going_out.transparent import lacking;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "print(lacking('client'))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, timeout=30, capture_output=True, text=True)
    assert run.stdout == 'source = "client" needs the capability CAP_NET_ADMIN (or CAP_NET_RAW)\n'
