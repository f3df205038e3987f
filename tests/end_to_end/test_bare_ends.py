"""Bridge mode with a server that ends without close_notify, as many do: an ordinary end, however clients take it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bridge.parties import Keys, Server, bridge, ending, starttls
from tests.certificates import make
from tests.proxy_process import running_proxy
from tests.scripted import Peer, ScriptedServer, begin_message


def leave(client: Peer) -> None:
    client.close()


def read_on(client: Peer) -> None:
    """OpenSSL answers the bare FIN with an alert."""
    assert ending(client) == "fin"
    client.close()


def half_close(client: Peer) -> None:
    """The client is the first to end its side, without close_notify, and still reads to the end."""
    socket.socket.shutdown(client.sock, socket.SHUT_WR)  # SSLSocket.shutdown would forget TLS
    with pytest.raises(ssl.SSLEOFError):
        client.sock.recv(100)
    client.close()


@pytest.mark.parametrize("way", [leave, read_on, half_close])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_mail_to_a_server_that_ends_bare_is_a_completed_session(
    tmp_path: Path, way: Callable[[Peer], None], version: str
) -> None:
    keys, issued = Keys(tmp_path), make("good")
    server = Server(keys.server(issued), ends="fin")
    with (
        ScriptedServer(server) as listening,
        running_proxy({"route": [bridge(listening.port, keys=keys, issued=issued)]}) as running,
    ):
        client = starttls(running.port, keys.client(version))
        assert client.say(b"EHLO client.example").startswith(b"250-")
        begin_message(client)
        client.send(b"Subject: hi\r\n\r\nhello\r\n.\r\n")
        assert client.reply()[:3] == b"250"
        assert client.say(b"QUIT")[:3] == b"221"
        way(client)
        assert running.wait_for("session-end")["outcome"] == "completed"
    assert len(server.mails) == 1
