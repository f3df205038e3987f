"""One client's connection to the simulated server.

It knows EHLO, LHLO, HELO, MAIL, RCPT, DATA, BDAT, RSET, NOOP, VRFY, HELP, AUTH PLAIN and LOGIN (anyone, any password),
XCLIENT and XFORWARD (believed, and forgotten), STARTTLS and QUIT (RFC 5321, 3030, 3207, 4954).  A message is kept as
the exact bytes that were sent, with only the dots of DATA undone; nothing is added in front.  Plaintext behind
STARTTLS is forgotten (RFC 3207 4.2, CVE-2011-0411).  What a client says while a reply is on its way waits.  What it
does wrong, where it is told to, is a `proxy.tools.simulate.faults.Fault`; with a largest ClientHello the hello is read
in clear first, and OpenSSL sees it only when it is to be answered.

Limits: a line of 8 KiB, 10 minutes without a byte, an hour in all, and those of `proxy.tools.simulate.incoming`.  A
client that does not read what it is told, or talks on while a slow reply is on its way, is not read any further.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import Protocol as Shape

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.smtp.reply.names import is_full_name
from proxy.tools.simulate.faults import Fault, hello_size
from proxy.tools.simulate.incoming import Envelope, Mail, OutOfStep
from proxy.tools.simulate.replies import Piece, SimulatedReplies, without_starttls

MAX_LINE = 8 * 1024
IDLE_TIMEOUT = 600.0
SESSION_TIMEOUT = 3600.0
CLOSE_TIMEOUT = 5.0  # a client that does not answer our close is cut


class Serving(Shape):
    """What a session asks of its server."""

    clock: IReactorTime
    replies: SimulatedReplies
    tls: Any  # a ServerSideTls, or None: STARTTLS is refused
    fault: Fault
    answers: dict[bytes, bytes]
    behind_starttls: bytes
    implicit_tls: bool
    on_mail: Callable[[Mail], None]
    on_command: Callable[[bytes], None]

    def ended(self) -> None: ...


@implementer(IPushProducer)
class SimulatedSession(Protocol):
    """One client's connection.  `hides_tls`: this one is not offered STARTTLS.  `refused`: 421 is all that it gets."""

    def __init__(self, server: Serving, client: str, hides_tls: bool = False, refused: bool = False) -> None:
        self._server = server
        self._client = client
        self._held = bytearray()
        self._inside_tls = False
        self._silenced = False  # pieces of a reply are still to be sent: what the client says waits
        self._closing = False
        self._refused = refused
        self._full: bool | None = None  # the client does not read what it is told; None before its first octet
        self._paused = False  # it is not read itself
        self._timer: Any = None  # of silence
        self._end: Any = None  # of the session as a whole
        self._pause: Any = None  # between two pieces of a reply
        self._hides_tls = hides_tls
        self._hello_awaited = False  # its size is to be known before TLS begins
        self._hello_said = False  # in clear or inside TLS: not forgotten behind STARTTLS
        self._said: dict[bytes, int] = {}  # how often a verb of the script was said
        self._forget()

    def _forget(self) -> None:
        """As after the banner: RFC 3207 4.2 wants the client's name forgotten too."""
        self._helo = ""
        self._prompts: list[bytes] | None = None  # of a running AUTH dialogue
        self._reset_mail()

    def _reset_mail(self) -> None:
        self._envelope = Envelope()

    # ------------------------------------------------------------------- edge

    @property
    def _wire(self) -> Any:  # a TCP transport, which Twisted's types call an ITransport
        assert self.transport is not None
        return self.transport

    def connectionMade(self) -> None:
        self._wire.setTcpNoDelay(True)
        if self._refused:
            self._close(b"421 4.3.2 Too many sessions")
            return
        self._end = self._server.clock.callLater(SESSION_TIMEOUT, self._late)
        self._expect(IDLE_TIMEOUT)
        if self._server.implicit_tls:
            self._start_tls()
        self._say(self._server.replies.banner)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        self._expect(IDLE_TIMEOUT)
        if self._full is None:  # not before: with TLS from the first byte the banner waits for the client's hello
            self._full = False
            self._wire.registerProducer(self, True)
        self._held += data
        self._read()
        self._regulate()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        for timer in (self._timer, self._end, self._pause):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._end = self._pause = None
        self._server.ended()

    def pauseProducing(self) -> None:
        """Twisted's word for: what is to be sent has piled up."""
        self._full = True
        self._regulate()

    def resumeProducing(self) -> None:
        self._full = False
        self._read()
        self._regulate()

    def stopProducing(self) -> None:
        self.abort()

    def _regulate(self) -> None:
        """Read the client, or let it wait."""
        waits = not self._closing and bool(self._full or (self._silenced and len(self._held) > MAX_LINE))
        if waits != self._paused:
            self._paused = waits
            if waits:
                self._wire.pauseProducing()
            else:
                self._wire.resumeProducing()

    def abort(self) -> None:
        self._closing = True
        self._wire.abortConnection()

    def _expect(self, seconds: float) -> None:
        """The next byte, or the end, within so many seconds; else the connection is cut."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._server.clock.callLater(seconds, self._late)

    def _late(self) -> None:
        self.abort()

    def _start_tls(self) -> None:
        assert self._server.tls is not None
        self._wire.startTLS(self._server.tls)
        self._inside_tls = True

    def _read_hello(self) -> bool:
        """The ClientHello in clear: TLS begins with it, or it is too large and the client waits for ever."""
        size = hello_size(self._held)
        if size is None:
            return False
        if size > self._server.fault.largest_hello:
            self._held.clear()
            return False
        if len(self._held) < size:
            return False
        hello = bytes(self._held)
        self._held.clear()
        self._hello_awaited = False
        self._start_tls()
        self._wire.protocol.dataReceived(hello)
        return False

    def _say(self, pieces: tuple[Piece, ...]) -> None:
        """Send these pieces in order, each in a segment of its own."""
        for number, piece in enumerate(pieces):
            if piece.pause:
                self._silenced = True
                self._pause = self._server.clock.callLater(piece.pause, self._go_on, pieces[number:])
                return
            self._wire.write(piece.data)
        self._silenced = False

    def _go_on(self, pieces: tuple[Piece, ...]) -> None:
        self._pause = None
        if self._closing:
            return
        self._say((Piece(pieces[0].data), *pieces[1:]))
        self._read()
        self._regulate()

    def _reply(self, text: bytes) -> None:
        self._wire.write(text + b"\r\n")

    def _close(self, text: bytes) -> None:
        self._reply(text)
        self._closing = True
        self._held.clear()
        self._regulate()  # its own end is to be heard
        if self._full is not None:
            self._wire.unregisterProducer()
        self._wire.loseConnection()
        self._expect(CLOSE_TIMEOUT)

    # ---------------------------------------------------------------- reading

    def _read(self) -> None:
        """Take from what is held as much as is whole."""
        taken = True
        while taken and self._held and not self._silenced and not self._full and not self._closing:
            try:
                if self._hello_awaited:
                    taken = self._read_hello()
                elif self._envelope.awaits:
                    taken = self._read_message()
                else:
                    taken = self._read_line()
            except OutOfStep as fault:
                self._close(fault.reply)

    def _read_line(self) -> bool:
        end = self._held.find(b"\n") + 1
        if not end or end > MAX_LINE:
            if len(self._held) > MAX_LINE:
                self._close(b"500 5.5.2 Line too long")
            return False
        line = bytes(self._held[:end])
        del self._held[:end]
        if self._prompts is not None:
            self._credentials(line)
        else:
            self._server.on_command(line)
            self._command(line.strip())
        return True

    def _read_message(self) -> bool:
        data = self._envelope.take(self._held)
        if data is not None:
            self._accept(data)
        elif self._envelope.awaits:
            return False
        else:
            self._reply(b"250 OK, go on")
        return True

    def _accept(self, data: bytes) -> None:
        version = self._wire.getHandle().get_protocol_version_name() if self._inside_tls else ""
        sender, recipients = (self._envelope.sender or b"").decode("latin-1"), self._envelope.recipients
        to = tuple([recipient.decode("latin-1") for recipient in recipients])
        mail = Mail(sender, to, data, version, self._helo, self._client)
        self._reset_mail()
        self._server.on_mail(mail)
        self._reply(b"250 OK, message accepted")

    # --------------------------------------------------------------- commands

    def _command(self, line: bytes) -> None:
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        if verb in self._server.answers:
            self._wire.write(self._server.answers[verb])
            return
        if self._scripted(verb, argument):
            return
        action = _COMMANDS.get(verb)
        if action is None:
            self._reply(_CONSTANT.get(verb, b"500 5.5.1 Command not known"))
        else:
            action(self, argument.strip())

    def _scripted(self, verb: bytes, argument: bytes) -> bool:
        """Say what the script has for this verb, if it has anything."""
        key = b"TLS " + verb if self._inside_tls else verb
        turns = self._server.fault.script.get(key)
        if not turns:
            return False
        number = self._said.get(key, 0)
        self._said[key] = number + 1
        if verb in (b"EHLO", b"LHLO", b"HELO"):
            self._named(argument)
        self._say(turns[min(number, len(turns) - 1)])
        return True

    def _named(self, argument: bytes) -> bool:
        """The client has said its name; False when it got its refusal."""
        if self._server.fault.one_hello and self._hello_said:
            self._reply(b"503 5.5.1 Duplicate EHLO or HELO")
            return False
        if self._server.fault.full_names and not is_full_name(argument):
            self._reply(b"501 5.5.2 A domain with a dot or an address literal is wanted")
            return False
        self._hello_said = True
        self._reset_mail()
        self._helo = argument.decode("latin-1")
        return True

    def _ehlo(self, argument: bytes) -> None:
        if self._named(argument):
            replies = self._server.replies
            clear = without_starttls(replies.ehlo) if self._hides_tls else replies.ehlo
            self._say(replies.inside_tls if self._inside_tls else clear)

    def _hello(self, argument: bytes) -> None:
        if self._named(argument):
            self._reply(b"250 OK")

    def _mail(self, argument: bytes) -> None:
        self._reply(self._envelope.mail(argument))

    def _rcpt(self, argument: bytes) -> None:
        self._reply(self._envelope.rcpt(argument))

    def _data(self, argument: bytes) -> None:
        self._reply(self._envelope.data())

    def _bdat(self, argument: bytes) -> None:
        self._envelope.bdat(argument)
        self._read_message()  # a chunk of no octets is whole at once

    def _rset(self, argument: bytes) -> None:
        self._reset_mail()
        self._reply(b"250 OK")

    def _auth(self, argument: bytes) -> None:
        words = argument.split()
        kind = words[0].upper() if words else b""
        if kind not in (b"PLAIN", b"LOGIN"):
            self._reply(b"504 5.5.4 PLAIN or LOGIN")
            return
        asked = [b""] if kind == b"PLAIN" else [b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6"]
        self._prompts = asked[len(words) - 1 :]  # an initial response answers the first
        self._prompt()

    def _credentials(self, line: bytes) -> None:
        if line.strip() == b"*":
            self._prompts = None
            self._reply(b"501 5.7.0 As you wish")
        else:
            self._prompt()

    def _prompt(self) -> None:
        if self._prompts:
            self._reply(b"334 " + self._prompts.pop(0))
        else:
            self._prompts = None
            self._reply(b"235 2.7.0 Anyone is welcome here")

    def _xclient(self, argument: bytes) -> None:
        self._forget()
        self._say(self._server.replies.banner)

    def _starttls(self, argument: bytes) -> None:
        fault = self._server.fault
        if self._server.tls is None or self._hides_tls:
            self._reply(b"502 5.5.1 No TLS here")
        elif self._inside_tls:
            self._reply(b"503 5.5.1 TLS is on already")
        elif fault.closes:
            self._close(fault.ready.removesuffix(b"\r\n"))
        else:
            self._held.clear()
            self._forget()
            self._wire.write(fault.ready + self._server.behind_starttls)
            self._hello_awaited = fault.largest_hello > 0
            if not self._hello_awaited:
                self._start_tls()

    def _quit(self, argument: bytes) -> None:
        self._close(b"221 2.0.0 Goodbye")


_CONSTANT = {
    b"NOOP": b"250 OK",
    b"XFORWARD": b"250 OK",
    b"VRFY": b"252 2.5.2 Send it and see",
    b"HELP": b"214 2.0.0 RFC 5321",
}

_COMMANDS: dict[bytes, Callable[[SimulatedSession, bytes], None]] = {
    b"EHLO": SimulatedSession._ehlo,
    b"LHLO": SimulatedSession._ehlo,
    b"HELO": SimulatedSession._hello,
    b"MAIL": SimulatedSession._mail,
    b"RCPT": SimulatedSession._rcpt,
    b"DATA": SimulatedSession._data,
    b"BDAT": SimulatedSession._bdat,
    b"RSET": SimulatedSession._rset,
    b"AUTH": SimulatedSession._auth,
    b"XCLIENT": SimulatedSession._xclient,
    b"STARTTLS": SimulatedSession._starttls,
    b"QUIT": SimulatedSession._quit,
}
