"""Clients and servers of bridge mode that a test can watch: what was said in clear, what inside TLS, and how it ended.

`Server` is a script for `tests.scripted.ScriptedServer`; `hello` and `secure` are the client's side. Their TLS is the
standard library's, so that no end of a test is the code under test. An end without close_notify is never taken for a
whole one: `ending` tells "close_notify", "fin" (a FIN without it) and "reset" apart.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.certificates import NAME, Issued, root
from tests.proxy_process import Config, Running, route, running_proxy
from tests.scripted import BANNER, BROKEN, GOOD, LIMIT, Peer, Script, ScriptedServer, connect, servers

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
INSIDE = b"250-AUTH PLAIN\r\n250-mail.example\r\n250-STARTTLS\r\n250 8bitmime\r\n"  # broken in three ways
INSIDE_REPAIRED = b"250-mail.example\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n"
MESSAGE = b"Subject: bridge\r\n\r\nhello\r\n"


class Keys:
    """Certificates as files, each written once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = str(folder / "ca.pem")
        (folder / "ca.pem").write_bytes(root().pem)
        self._paths: dict[int, tuple[str, str]] = {}
        self._kept: list[Issued] = []
        self._lock = threading.Lock()

    def files(self, issued: Issued) -> tuple[str, str]:
        """Certificate and key."""
        with self._lock:
            if id(issued) not in self._paths:
                paths = issued.write(self.folder, f"pair{len(self._paths)}")
                self._paths[id(issued)] = paths.certificate, paths.key
                self._kept.append(issued)
            return self._paths[id(issued)]

    def server(self, issued: Issued, version: str = "") -> ssl.SSLContext:
        """The context of a TLS server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.files(issued))
        _at(context, version)
        return context

    def client(self, version: str = "", alpn: list[str] | None = None) -> ssl.SSLContext:
        """The context of a client that trusts the tests' root."""
        context = ssl.create_default_context(cafile=self.ca)
        _at(context, version)
        if alpn is not None:
            context.set_alpn_protocols(alpn)
        return context


def _at(context: ssl.SSLContext, version: str) -> None:
    if version:
        context.minimum_version = context.maximum_version = VERSIONS[version]


def secure(peer: Peer, context: ssl.SSLContext, *, server: bool = False, name: str | None = None) -> ssl.SSLSocket:
    """The handshake; what is left of clear text in the peer's buffer must be nothing."""
    assert not peer.buffer
    peer.sock.settimeout(LIMIT)
    sock = context.wrap_socket(
        peer.sock,
        server_side=server,
        server_hostname=None if server else name or NAME,
        suppress_ragged_eofs=False,
    )
    peer.sock = sock
    return sock


def ending(peer: Peer, seconds: float = LIMIT) -> str:
    """What comes now is the end, and which: close_notify, fin, reset."""
    peer.sock.settimeout(seconds)
    try:
        data = peer.sock.recv(4096)
    except (ssl.SSLEOFError, ConnectionError):
        return _without_close_notify(peer)
    assert data == b"", data
    return "close_notify" if isinstance(peer.sock, ssl.SSLSocket) else "fin"


def _without_close_notify(peer: Peer) -> str:
    """The standard library tells no reset from a FIN inside TLS; the kernel does."""
    state = peer.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return "reset" if state == 7 else "fin"  # TCP_CLOSE


def until_starttls(peer: Peer, reply: bytes = GOOD) -> None:
    """The beginning of a server's script: up to its 220 to STARTTLS, behind which nothing was said yet."""
    peer.send(BANNER)
    peer.line()
    peer.send(reply)
    peer.line()
    peer.send(b"220 go ahead\r\n")


class Server:
    """A server that takes mail, in TLS or not, and keeps all that it was told.

    `context` None: it has no TLS. `implicit`: TLS from the first byte. `starttls`: its answer to STARTTLS, 220 to go
    on. `inside`: its EHLO reply inside TLS. `handshake`: in place of its own handshake, for one that goes wrong.
    `ends`: how it ends inside TLS after QUIT: close_notify or fin.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        *,
        implicit: bool = False,
        reply: bytes = BROKEN,
        inside: bytes = INSIDE,
        banner: bytes = BANNER,
        starttls: bytes = b"220 2.0.0 go ahead\r\n",
        handshake: Script | None = None,
        delay: float = 0.0,
        ends: str = "close_notify",
    ) -> None:
        self.context = context
        self.implicit = implicit
        self.reply = reply
        self.inside_reply = inside
        self.banner = banner
        self.starttls = starttls
        self.handshake = handshake
        self.delay = delay
        self.ends = ends
        self.clear: list[bytes] = []  # lines that came in clear
        self.inside: list[bytes] = []  # and inside TLS
        self.mails: list[bytes] = []
        self.endings: list[str] = []  # how its clients ended
        self.secured_at: list[float] = []
        self.sni: list[str | None] = []
        if context is not None:
            context.sni_callback = lambda _sock, name, _context: self.sni.append(name)

    def __call__(self, peer: Peer) -> None:
        if self.implicit:
            self._secure(peer)
        peer.send(self.banner)
        while True:
            line = self._line(peer)
            is_inside = isinstance(peer.sock, ssl.SSLSocket)
            (self.inside if is_inside else self.clear).append(line)
            verb = line[:4].upper()
            if verb in (b"EHLO", b"LHLO"):
                peer.send(self.inside_reply if is_inside else self.reply)
            elif verb == b"DATA":
                peer.send(b"354 go on\r\n")
                self.mails.append(peer.until(b"\r\n.\r\n"))
                peer.send(b"250 2.0.0 taken\r\n")
            elif verb == b"QUIT":
                peer.send(b"221 bye\r\n")
                self._end(peer)
                return
            elif verb == b"STAR" and not is_inside:
                time.sleep(self.delay)
                peer.send(self.starttls)
                if self.starttls[:3] == b"220":
                    self._secure(peer)
            else:
                peer.send(b"250 2.1.0 well\r\n")

    def _line(self, peer: Peer) -> bytes:
        while (end := peer.buffer.find(b"\n")) < 0:
            try:
                data = peer.sock.recv(65536)
            except (ssl.SSLEOFError, ConnectionError):
                self.endings.append(_without_close_notify(peer))
                raise
            if not data:
                self.endings.append("close_notify" if isinstance(peer.sock, ssl.SSLSocket) else "fin")
                raise ConnectionError
            peer.buffer += data
        line = bytes(peer.buffer[: end + 1])
        del peer.buffer[: end + 1]
        return line

    def _secure(self, peer: Peer) -> None:
        if self.handshake is not None:
            self.handshake(peer)
            raise ConnectionError
        assert self.context is not None
        secure(peer, self.context, server=True)
        self.secured_at.append(time.monotonic())

    def _end(self, peer: Peer) -> None:
        if isinstance(peer.sock, ssl.SSLSocket) and self.ends == "close_notify":
            with contextlib.suppress(OSError):
                peer.sock = peer.sock.unwrap()

    def wait_until(self, what: str, count: int = 1) -> None:
        """Until so many endings, mails or lines have come."""
        until = time.monotonic() + LIMIT
        while len(getattr(self, what)) < count:
            assert time.monotonic() < until, (what, getattr(self, what))
            time.sleep(0.005)


def bridge(*destinations: int | str, keys: Keys, issued: Issued, tls: Config | None = None, **more: Any) -> Config:
    """A route in bridge mode that shows `issued` to clients and trusts the tests' root; `tls` is more of its table."""
    certificate, key = keys.files(issued)
    table = {"mode": "bridge", "certificate": certificate, "key": key, "ca_file": keys.ca, **(tls or {})}
    if table.get("client") == "none":
        del table["certificate"], table["key"]
    if table.get("verify", "hostname") == "hostname" and table.get("server") != "none":
        table.setdefault("verify_name", NAME)
    return route(*destinations, tls=table, **more)


class Scene:
    """One route of the stage's proxy, with a server of its own."""

    def __init__(self, running: Running, server: ScriptedServer, name: str, ours: Issued) -> None:
        self.running = running
        self.server = server
        self.name = name
        self.ours = ours
        self.port = running.port_of(name)
        self.where = f"ehlo-proxy route {name}: 127.0.0.1 port {server.port}: ".encode()  # in what the proxy says

    def connect(self) -> Peer:
        """A client of this route."""
        return connect(self.port)

    def wait_for(self, event: str, count: int = 1, seconds: float = 10.0, **fields: Any) -> dict[str, Any]:
        return self.running.wait_for(event, seconds, count=count, route=self.name, **fields)

    def of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return self.running.of(event, route=self.name, **fields)


class Stage:
    """One proxy for all the tests of a process: each scene is a route of its own, put there by a reload."""

    def __init__(self, running: Running, keys: Keys, ours: Issued) -> None:
        self.running = running
        self.keys = keys
        self.ours = ours
        self._scenes = 0

    @contextlib.contextmanager
    def scene(
        self,
        script: Script,
        tls: Config | None = None,
        *,
        destination: str = "",
        more_destinations: Sequence[str] = (),
        **more: Any,
    ) -> Iterator[Scene]:
        """A server, and a route to it, or to `destination`; `tls` and `more` are the route's settings."""
        name = self._name()
        with ScriptedServer(script) as server:
            where = (destination or f"127.0.0.1:{server.port}", *more_destinations)
            made = bridge(*where, keys=self.keys, issued=self.ours, tls=tls, name=name, **more)
            self.running.reload({"log": {"level": "debug"}, "route": [made]})
            yield Scene(self.running, server, name, self.ours)

    @contextlib.contextmanager
    def scenes(self, scripts: Mapping[str, tuple[Script, Config]]) -> Iterator[dict[str, Scene]]:
        """The same for several at once: what each is called, its server, and the route's `tls`."""
        with servers([script for script, _ in scripts.values()]) as there:
            names = [self._name() for _ in there]
            routes = [
                bridge(server.port, keys=self.keys, issued=self.ours, tls=tls, name=name)
                for server, name, (_, tls) in zip(there, names, scripts.values(), strict=True)
            ]
            self.running.reload({"log": {"level": "debug"}, "route": routes})
            yield {
                called: Scene(self.running, server, name, self.ours)
                for called, server, name in zip(scripts, there, names, strict=True)
            }

    def _name(self) -> str:
        self._scenes += 1
        return f"scene{self._scenes}"


@contextlib.contextmanager
def staged(keys: Keys, ours: Issued) -> Iterator[Stage]:
    """The proxy of a stage."""
    first = bridge(1, keys=keys, issued=ours, name="curtain")
    with running_proxy({"log": {"level": "debug"}, "route": [first]}) as running:
        yield Stage(running, keys, ours)


def hello(port: int, context: ssl.SSLContext | None = None) -> tuple[Peer, bytes]:
    """A client that has said EHLO, in TLS from the first byte if `context` is given; and the EHLO reply."""
    client = connect(port)
    if context is not None:
        secure(client, context)
    assert client.reply()[:4] == b"220 "
    return client, client.say(b"EHLO client.example")


def starttls(port: int, context: ssl.SSLContext) -> Peer:
    """A client inside TLS after STARTTLS; it has not said EHLO there yet."""
    client, _ = hello(port)
    said = client.say(b"STARTTLS")
    assert said[:4] == b"220 ", said
    secure(client, context)
    return client
