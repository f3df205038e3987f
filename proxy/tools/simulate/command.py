"""`simulate`: a broken destination server for a lab, with a certificate of its own.

Prints `listening ADDR:PORT`, then each mail that it accepts; with `as_json` each as one JSON object a line.  Stays
until SIGTERM or SIGINT.  What it says is in `proxy.tools.simulate.replies`, how it speaks in
`proxy.tools.simulate.server`; this module only puts them together and shows what comes.

Exit: 0 after a signal; 1 when it can't start (port taken) or can't tell what it has to; 2 for an unknown finding or
fault, or a file that can't be read or is no transcript.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TextIO

from twisted.internet.error import CannotListenError

from proxy.settings.values import Endpoint
from proxy.tools.dialogue import printable
from proxy.tools.replay import MAX_TRANSCRIPT, NotATranscript
from proxy.tools.simulate.faults import FAULTS, NO_FAULT, Fault
from proxy.tools.simulate.incoming import Mail
from proxy.tools.simulate.replies import BROKEN, DEFAULT, GOOD_REPLIES, NAME, SimulatedReplies, adapted, from_bytes
from proxy.tools.simulate.server import ServerSideTls, SimulatedServer
from proxy.tools.simulate.transcript import fault_of
from proxy.tools.simulate.weak import certificate_for

NO_FINDING = "none"  # --finding none: a server without fault
MAX_REPLY_FILE = 1024 * 1024  # bytes
BACKLOG = 1024  # with Twisted's 50 a burst leaves clients that wait for a banner from a connection that is none
DEFAULT_LISTEN = Endpoint("127.0.0.1", 2525)


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """As on the command line."""

    listen: Endpoint = DEFAULT_LISTEN
    finding: str = DEFAULT
    fault: str = ""  # one of `FAULTS`, in place of `finding`
    reply: str = ""  # a file of raw bytes, in place of `finding`
    transcript: str = ""  # a file of `[route.record]`, in place of `finding`
    tls: bool = True
    save: str = ""
    as_json: bool = False
    name: str = NAME.decode()
    broken_inside_tls: bool = False
    save_certificate: str = ""


class Mistake(Exception):
    """Something that the person at the command line got wrong."""


def replies_for(options: SimulateOptions) -> SimulatedReplies:
    """What the server will say.  Raises `Mistake`."""
    if options.reply:
        try:
            with open(options.reply, "rb") as file:
                replies = from_bytes(file.read(MAX_REPLY_FILE))
        except OSError as error:
            raise Mistake(f"--reply: {error}") from error
    elif options.finding == NO_FINDING:
        replies = GOOD_REPLIES
    elif options.finding in BROKEN:
        replies = BROKEN[options.finding]
    else:
        raise _unknown("finding", options.finding, BROKEN)
    changed = adapted(replies, options.name.encode("latin-1", "replace"), options.tls, options.broken_inside_tls)
    if options.reply:  # those bytes are the person's own
        return SimulatedReplies(changed.banner, replies.ehlo, changed.inside_tls)
    return changed


def fault_for(options: SimulateOptions) -> Fault:
    """What the server does wrong, with all that it says.  Raises `Mistake`."""
    if options.transcript:
        try:
            with open(options.transcript, "rb") as file:
                return fault_of(file.read(MAX_TRANSCRIPT + 1))
        except (OSError, NotATranscript, ValueError) as error:
            raise Mistake(f"--transcript: {error}") from error
    if not options.fault:
        return replace(NO_FAULT, replies=replies_for(options))
    if options.fault not in FAULTS:
        raise _unknown("fault", options.fault, FAULTS)
    fault = FAULTS[options.fault]
    name = options.name.encode("latin-1", "replace")
    return replace(fault, replies=adapted(fault.replies, name, options.tls, options.broken_inside_tls))


def _unknown(kind: str, id_: str, known: Iterable[str]) -> Mistake:
    if id_ in FAULTS or id_ in BROKEN:
        other = "fault" if kind == "finding" else "finding"
        return Mistake(f"{id_!r} is no {kind} but a {other}: --{other} {id_}")
    near = difflib.get_close_matches(id_, known, 1)
    hint = f"; did you mean {near[0]}?" if near else "; `ehlo-proxy explain` lists them"
    return Mistake(f"no {kind} is called {id_!r}{hint}")


class Shown:
    """Tells of each mail on `out`, and saves it when asked to.

    Where nothing can be told any more `problem` says why, and `stop` is called.
    """

    def __init__(
        self, options: SimulateOptions, out: TextIO, err: TextIO, stop: Callable[[], None] = lambda: None
    ) -> None:
        self._options = options
        self._out = out
        self._err = err
        self._stop = stop
        self._number = 0
        self.problem: OSError | None = None

    def listening(self, at: Endpoint) -> None:
        if self._options.as_json:
            self._tell({"event": "listening", "listen": str(at), "port": at.port})
        else:
            self._print(f"listening {at}")

    def mail(self, mail: Mail) -> None:
        path = ""
        if self._options.save:
            try:
                path = self._save(mail.data)
            except OSError as error:
                print(f"ehlo-proxy simulate: not saved: {error}", file=self._err, flush=True)
        if self._options.as_json:
            self._tell(
                {
                    "event": "mail",
                    "from": mail.sender,
                    "to": list(mail.recipients),
                    "size": len(mail.data),
                    "tls": mail.tls or "clear",
                    "helo": mail.helo,
                    "client": mail.client,
                    "file": path,
                }
            )
            return
        to = ", ".join(f"<{recipient}>" for recipient in mail.recipients)
        how = mail.tls or "in clear"
        saved = f", saved as {path}" if path else ""
        line = f"mail from <{mail.sender}> to {to}, {len(mail.data)} bytes, {how}{saved}"
        self._print(printable(line))

    def _tell(self, told: dict[str, object]) -> None:
        self._print(json.dumps(told))

    def _print(self, line: str) -> None:
        if self.problem is not None:
            return
        try:
            print(line, file=self._out, flush=True)
        except OSError as error:
            self.problem = error
            self._stop()

    def _save(self, data: bytes) -> str:
        """The path of a new file with exactly these bytes; earlier ones stay."""
        while True:
            self._number += 1
            path = os.path.join(self._options.save, f"{self._number:04d}.eml")
            try:
                with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                    file.write(data)
            except FileExistsError:
                continue
            return path


def run(options: SimulateOptions, reactor: Any, out: TextIO, err: TextIO) -> int:
    """Serve until a signal.  `reactor` is Twisted's, not yet running."""
    try:
        fault = fault_for(options)
        if options.save:
            os.makedirs(options.save, exist_ok=True)
        tls = None
        if options.tls:
            names = list(dict.fromkeys((options.name, "localhost", options.listen.host)))
            certificate, key = certificate_for(fault.weakness, names)
            tls = ServerSideTls(certificate, key, fault.weakness)
            if options.save_certificate:
                with open(options.save_certificate, "wb") as file:
                    file.write(certificate)
    except (Mistake, ValueError, OSError) as error:
        print(f"ehlo-proxy simulate: {error}", file=err)
        return 2
    show = Shown(options, out, err, lambda: reactor.stop())
    server = SimulatedServer(reactor, fault.replies, tls, on_mail=show.mail, fault=fault)
    try:
        port = reactor.listenTCP(options.listen.port, server, interface=options.listen.host, backlog=BACKLOG)
    except CannotListenError as error:
        print(f"ehlo-proxy simulate: {error}", file=err)
        return 1
    reactor.callWhenRunning(show.listening, Endpoint(options.listen.host, port.getHost().port))
    reactor.run()
    if show.problem is not None:
        raise show.problem
    return 0
