"""The servers of the soak, in a process of their own: `python -m tests.soak.parties FOLDER`.

FOLDER holds `server.pem` and `server.key`, and `other.*`.  Prints one JSON line with the ports of its servers: `mail`
takes mail in clear and in TLS and answers EHLO with STARTTLS in front of the greeting; `behind` does so too and wants a
PROXY header first; `other` has a certificate that nobody should accept; `hostile` does one of the `misdeeds` with each
connection.  On each line of stdin it prints how many mails were taken; it ends when stdin does.
"""

from __future__ import annotations

import itertools
import json
import random
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from proxy.tools.simulate.replies import BROKEN as REPLIES
from proxy.tools.simulate.replies import Piece
from tests.scripted import BANNER, BROKEN, Mailbox, Peer, Script, servers

NAMES = ("mail", "behind", "other", "hostile")
LATE = b"250-late.example\r\n250 STARTTLS\r\n"
FLOOD = 1 << 20  # bytes of whatever has no end; the proxy gives up long before
PATIENCE = 4.0  # seconds that a silent peer stays; the routes to `hostile` wait for less


class Counted(list[bytes]):
    """Keeps nothing of what is appended, only counts it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._lock = threading.Lock()

    def append(self, one: bytes) -> None:
        with self._lock:
            self.count += 1


class Patient(Peer):
    """Waits for as long as a held session may be quiet."""

    def line(self, seconds: float = 300.0) -> bytes:
        return super().line(seconds)


class CountingMailbox(Mailbox):
    """A mailbox that may run for hours."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(BROKEN, tls=context)
        self.mails = self.taken = Counted()
        self.commands = Counted()

    def __call__(self, peer: Peer) -> None:
        with Patient(peer.sock) as patient:
            super().__call__(patient)


# -- what a hostile server does; each is a script, and some take the context of its TLS -----------------------------


def pieces(peer: Peer, parts: tuple[Piece, ...]) -> None:
    for part in parts:
        time.sleep(part.pause)
        peer.send(part.data)


def silent(peer: Peer) -> None:
    """Say nothing more, and stay until the proxy has had enough."""
    peer.sock.settimeout(PATIENCE)
    while peer.sock.recv(65536):
        pass


def flood(peer: Peer, data: bytes) -> None:
    """Send it over and over."""
    block = data * (1 + 8192 // len(data))
    for _ in range(FLOOD // len(block)):
        peer.sock.sendall(block)


def drip(peer: Peer, data: bytes) -> None:
    for at in range(len(data)):
        peer.sock.sendall(data[at : at + 1])
        time.sleep(0.001)


def on_banner(say: bytes, then: Callable[[Peer], None]) -> Script:
    """In place of a banner."""

    def script(peer: Peer) -> None:
        if say:
            peer.send(say)
        then(peer)

    return script


def on_ehlo(*say: bytes, then: Callable[[Peer], None]) -> Script:
    """In place of the EHLO reply; `say` goes in segments of its own."""

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        if say:
            peer.send(*say)
        then(peer)

    return script


def on_starttls(say: bytes, then: Callable[[Peer], None]) -> Script:
    """In place of an answer to STARTTLS, or to whatever comes behind EHLO."""

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(BROKEN)
        peer.line()
        if say:
            peer.send(say)
        then(peer)

    return script


def on_mail(step: bytes, say: bytes, then: Callable[[Peer], None]) -> Script:
    """A mailbox up to the command that begins so (`.` is the end of the message)."""

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        while True:
            line = peer.line()
            if line.startswith(step):
                break
            verb = line[:4]
            if verb == b"EHLO":
                peer.send(BROKEN)
            elif verb == b"DATA":
                peer.send(b"354 go on\r\n")
            elif verb == b"STAR":
                peer.send(b"454 4.7.0 not now\r\n")
            elif verb in (b"MAIL", b"RCPT"):
                peer.send(b"250 2.1.0 well\r\n")
        if say:
            peer.send(say)
        then(peer)

    return script


def finding(name: str) -> Script:
    """A server with one finding of the catalogue, and nothing behind EHLO."""

    def script(peer: Peer) -> None:
        pieces(peer, REPLIES[name].banner)
        peer.line()
        pieces(peer, REPLIES[name].ehlo)
        silent(peer)

    return script


def noise(peer: Peer) -> None:
    """Bytes that mean nothing, others each time."""
    peer.send(random.randbytes(random.randrange(1, 3000)))


def random_reply(peer: Peer) -> None:
    """An EHLO reply of random lines: nothing that is remembered of replies may grow."""
    peer.send(BANNER)
    peer.line()
    words = [b"STARTTLS", b"mail.example", b"SIZE %d" % random.randrange(1 << 40), b"X%d" % random.randrange(1 << 40)]
    random.shuffle(words)
    peer.send(b"".join(b"250-%b\r\n" % word for word in words) + b"250 HELP\r\n")
    silent(peer)


def half_handshake(context: ssl.SSLContext, then: Callable[[Peer], None]) -> Script:
    """STARTTLS is answered, the handshake is begun and not finished."""

    def handshake(peer: Peer) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(peer.sock.recv(65536))
        try:
            tls.do_handshake()
        except ssl.SSLError:
            pass
        peer.send(outgoing.read()[:-20])
        then(peer)

    return on_starttls(b"220 go ahead\r\n", handshake)


def misdeeds(context: ssl.SSLContext) -> dict[str, Script]:
    """Every one of them, by name."""
    reset, fin = Peer.reset, Peer.close
    ends: dict[str, Callable[[Peer], None]] = {"reset": reset, "fin": fin, "silence": silent, "noise": noise}
    made: dict[str, Script] = {}
    for how, end in ends.items():
        made[f"banner: {how}"] = on_banner(b"", end)
        made[f"half a banner: {how}"] = on_banner(b"220 mail.exam", end)
        made[f"EHLO: {how}"] = on_ehlo(then=end)
        made[f"half an EHLO reply: {how}"] = on_ehlo(b"250-STARTTLS\r\n250-mail", then=end)
        made[f"STARTTLS: {how}"] = on_starttls(b"", end)
        made[f"in TLS's place: {how}"] = on_starttls(b"220 go ahead\r\n", end)
        made[f"half a handshake: {how}"] = half_handshake(context, end)
        made[f"MAIL: {how}"] = on_mail(b"MAIL", b"", end)
        made[f"behind 354: {how}"] = on_mail(b"DATA", b"354 go on\r\n", end)
        made[f"dot: {how}"] = on_mail(b".\r\n", b"", end)
        made[f"dot, 250, {how}"] = on_mail(b".\r\n", b"250 2.0.0 taken\r\n", end)
    made |= {
        "421 banner": on_banner(b"421 4.3.2 not now\r\n", fin),
        "554 banner": on_banner(b"554 5.3.2 never\r\n", fin),
        "endless banner": on_banner(b"", partial(flood, data=b"220-mail.example\r\n")),
        "banner without a line end": on_banner(b"220 ", partial(flood, data=b"x" * 1000)),
        "endless EHLO reply": on_ehlo(then=partial(flood, data=b"250-X-WORD\r\n")),
        "EHLO reply without a line end": on_ehlo(b"250-", then=partial(flood, data=b"x" * 1000)),
        "EHLO reply without a last line": on_ehlo(b"250-mail.example\r\n250-STARTTLS\r\n", then=silent),
        "EHLO lines later": on_ehlo(b"250 mail.example\r\n", LATE, LATE, then=silent),
        "EHLO reply byte by byte": on_ehlo(then=lambda peer: (drip(peer, BROKEN), silent(peer))[0]),
        "EHLO refused": on_ehlo(b"502 5.5.1 no\r\n", then=silent),
        "replies that nobody asked for": on_ehlo(BROKEN, b"250 more\r\n", b"250 and more\r\n", then=silent),
        "a 220 that nobody asked for": on_ehlo(BROKEN, b"220 go ahead\r\n", then=silent),
        "random EHLO reply": random_reply,
        "injected behind 220": on_starttls(b"220 go ahead\r\n250 injected\r\n", silent),
        "injected behind 220, a fragment": on_starttls(b"220 go ahead\r\n25", silent),
        "injected behind 220, later": on_starttls(
            b"220 go ahead\r\n", lambda peer: (time.sleep(0.02), peer.send(b"250 injected\r\n"), silent(peer))[0]
        ),
        "STARTTLS answered 354": on_starttls(b"354 go on\r\n", silent),
        "STARTTLS refused": on_starttls(b"454 4.7.0 not now\r\n", silent),
        "reads nothing": on_mail(b"DATA", b"354 go on\r\n", lambda peer: time.sleep(PATIENCE)),
        **{f"finding {name}": finding(name) for name in REPLIES},
    }
    return made


def in_turn(scripts: dict[str, Script]) -> Script:
    """One script after the other, over and over, in an order of its own each time."""

    def order() -> Iterator[Script]:
        names = list(scripts)
        for _ in itertools.count():
            random.shuffle(names)
            yield from (scripts[name] for name in names)

    turns, lock = order(), threading.Lock()

    def script(peer: Peer) -> None:
        with lock:
            mine = next(turns)
        try:
            mine(peer)
        except OSError:
            pass  # the proxy has had enough: that is what it is for

    return script


def context_for(folder: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def main(folder: Path) -> None:
    good = CountingMailbox(context_for(folder, "server"))
    other = CountingMailbox(context_for(folder, "other"))
    hostile = in_turn(misdeeds(context_for(folder, "server")))

    def behind(peer: Peer) -> None:
        assert peer.line().startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
        good(peer)

    with servers([good, behind, other, hostile]) as made:
        print(json.dumps(dict(zip(NAMES, (server.port for server in made), strict=True))), flush=True)
        for _ in sys.stdin:
            failures = [repr(error) for server in made for error in server.failures]
            print(json.dumps({"mails": good.taken.count, "failures": failures}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
