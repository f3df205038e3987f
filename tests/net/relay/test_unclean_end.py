"""A peer that ends TCP without close_notify, as many servers do: it gets no alert, and can still be written to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from OpenSSL import SSL

from proxy.net.tls.channel import TlsChannel
from tests.certificates import make
from tests.tls_pair import receive, server_context, shake, tcp_pair, until


@contextmanager
def channels() -> Iterator[tuple[TlsChannel, TlsChannel, socket.socket]]:
    """Ours, which is the client's; the server's; and the server's socket."""
    with tcp_pair() as (near, far):
        ours = TlsChannel.towards_server(SSL.Context(SSL.TLS_METHOD), near, "")
        theirs = TlsChannel.towards_client(
            server_context(make("good")),
            far,
        )
        shake(ours, theirs)
        # TLS 1.3's session tickets are read with the first bytes
        assert theirs.send(b"250 ok\r\n") == 8
        assert receive(ours, 8) == b"250 ok\r\n"
        yield ours, theirs, far


def test_a_bare_fin_is_the_end_and_brings_no_alert() -> None:
    with channels() as (ours, theirs, far):
        assert ours.recv(100) is None
        far.shutdown(socket.SHUT_WR)
        until(lambda: ours.recv(100) == b"")
        assert not ours.clean_end
        with pytest.raises(BlockingIOError):
            far.recv(100)
        assert ours.send(b"QUIT\r\n") == 6
        assert receive(theirs, 6) == b"QUIT\r\n"


def test_what_came_before_a_bare_fin_comes_first() -> None:
    with channels() as (ours, theirs, far):
        theirs.send(b"221 bye\r\n")
        far.shutdown(socket.SHUT_WR)
        assert receive(ours, 4) == b"221 "
        assert receive(ours, 5) == b"bye\r\n"
        until(lambda: ours.recv(100) == b"")
        assert not ours.clean_end


def test_close_notify_is_no_bare_end() -> None:
    with channels() as (ours, theirs, far):
        theirs.shutdown()
        far.shutdown(socket.SHUT_WR)
        until(lambda: ours.recv(100) == b"")
        assert ours.clean_end
