"""The conversations with one address of a server, and what they show.

The first asks EHLO, STARTTLS, EHLO inside TLS and QUIT; never MAIL.  Further ones only answer a question that the first
has left: HELO where the connection ended on EHLO, another ClientHello where the handshake failed (`handshake`), and,
once for every server with an EHLO reply or `--repeat` times in all, EHLO twice and QUIT: whether STARTTLS is offered
every time, and whether a second EHLO is taken.

Every wait has an end, `NoAnswer` becomes the `problem` of what was seen; nothing is raised for anything that a server
does.  The judging of replies is `proxy.smtp.reply.repair`'s, of the certificate `proxy.net.tls.identity`'s.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from proxy.net.tls.channel import TlsChannel
from proxy.net.tls.names import literal_address
from proxy.net.tls.problem import TlsProblem
from proxy.smtp.lines import split_lines
from proxy.smtp.reply.ehlo import split_before_banner
from proxy.smtp.reply.findings import Finding
from proxy.smtp.reply.names import as_literal, is_dotted_domain, is_host
from proxy.smtp.reply.repair import EhloContext
from proxy.smtp.reply.replies import code_of
from proxy.tools.probe import handshake
from proxy.tools.probe.handshake import Hello, hello_size
from proxy.tools.probe.seen import Judged, Target, TlsSeen, Tried, dialogue_finding, judged, tls_seen
from proxy.tools.probe.wire import NoAnswer, Wire, connect, shown

LATER_TIMEOUT = 10.0  # seconds for each answer, in conversations behind the first


@dataclass(slots=True)
class Seen:
    """All that was seen at one address.  `problem`: what prevented the rest."""

    target: Target
    address: str
    ehlo_name: str = ""
    banner: bytes = b""
    banner_findings: tuple[Finding, ...] = ()
    before_tls: Judged | None = None
    starttls_reply: bytes = b""
    behind_starttls: bytes = b""  # what came in clear behind the 220
    starttls_ended: str = ""  # how the connection ended on STARTTLS
    tried: list[Tried] = field(default_factory=list)
    tls: TlsSeen | None = None
    after_tls: Judged | None = None
    dialogue: list[Finding] = field(default_factory=list)
    helo_reply: bytes = b""
    steps: dict[str, float] = field(default_factory=dict)  # seconds by name
    offers: list[bool] = field(default_factory=list)  # STARTTLS, connection by connection
    problem: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        replies = [reply for reply in (self.before_tls, self.after_tls) if reply is not None]
        found = [*self.banner_findings, *(each for reply in replies for each in reply.result.findings), *self.dialogue]
        return tuple(found)

    def message(self, finding_id: str) -> str:
        """What is told of that finding; "" where there is none."""
        return next((finding.message for finding in self.findings if finding.id == finding_id), "")

    def has(self, finding_id: str) -> bool:
        return any(finding.id == finding_id for finding in self.findings)


Progress = Callable[[str], None]


class _HandshakeFailed(Exception):
    """The ClientHello of one conversation led to nothing; `kind` as in `NoAnswer`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def look_at(target: Target, address: str, progress: Progress = lambda step: None) -> Seen:
    """Everything about one address."""
    seen = Seen(target, address)
    talk = _Talk(seen, progress)
    try:
        talk.first()
    except NoAnswer as problem:
        seen.problem = str(problem)
    else:
        talk.further()
    return seen


class _Talk:
    """What is said to one address, over as many connections as it takes."""

    def __init__(self, seen: Seen, progress: Progress) -> None:
        self._seen = seen
        self._progress = progress
        self._target = seen.target
        self._timeout = seen.target.asked.timeout
        self._name = seen.target.asked.ehlo  # to say in EHLO; "": this host's

    def first(self) -> None:
        """The whole conversation, and others where EHLO or the handshake fails.  Raises NoAnswer."""
        seen, name = self._seen, self._name
        self._to_the_end()
        refused = seen.before_tls
        if refused is None or not refused.result.refused or seen.has("ehlo-refused"):
            return
        if name and not is_host(name.encode("ascii", "replace")):  # is it the name?
            self._name = ""
            self._to_the_end()
            if seen.before_tls is not None and not seen.before_tls.result.refused:
                self._note("client-name-invalid", f"EHLO {name} is answered {shown(refused.raw)}, a good name is taken")

    def _to_the_end(self) -> None:
        try:
            self._whole(handshake.TODAY)
        except _HandshakeFailed as failed:
            self._try_others(failed.kind)

    def further(self) -> None:
        """Is it the same again?  A connection that fails here has no say."""
        seen, asked = self._seen, self._target.asked
        reply = seen.after_tls if self._target.implicit_tls else seen.before_tls
        if reply is None or reply.result.refused or seen.has("final-line-missing"):
            return  # nothing to compare, or a server that takes its time-out each time
        seen.offers.append(reply.offers_starttls)
        self._timeout = min(asked.timeout, LATER_TIMEOUT)
        for number in range(max(asked.repeat - 1, 1)):
            try:
                self._again(f"again {number + 2}")
            except (NoAnswer, _HandshakeFailed):
                break
        if len(set(seen.offers)) > 1:
            self._note(
                "starttls-not-steady",
                f"STARTTLS is offered on {sum(seen.offers)} of {len(seen.offers)} connections",
            )

    # ------------------------------------------------------------------ the conversations

    def _whole(self, hello: Hello) -> None:
        seen, target = self._seen, self._target
        with self._connection() as wire:
            if target.implicit_tls:
                self._tls(wire, hello, "handshake")
            self._banner(wire)
            if target.implicit_tls:
                seen.after_tls = self._ehlo(wire, True, "ehlo_tls")
                return
            seen.before_tls = self._ehlo(wire, False, "ehlo")
            if seen.before_tls.result.refused:
                return
            if not target.asked.tls or not (seen.before_tls.offers_starttls or seen.has("keyword-masked")):
                return
            if self._starttls(wire):
                self._tls(wire, hello, "handshake")
                seen.after_tls = self._ehlo(wire, True, "ehlo_tls")

    def _try_others(self, kind: str) -> None:
        """Other ClientHellos, until one is answered; each with a connection of its own."""
        if kind == "no-tls":
            return  # whatever it speaks, another ClientHello is not what it waits for
        self._timeout = min(self._timeout, LATER_TIMEOUT)
        silent = kind in ("silence", "end", "reset")
        for hello in handshake.AFTER_SILENCE if silent else handshake.AFTER_ALERT:
            try:
                with self._connection() as wire:
                    if not self._target.implicit_tls:
                        wire.banner()
                        self._say_ehlo(wire)
                        wire.say(b"STARTTLS")
                        if code_of(wire.reply("STARTTLS")) != 220:
                            return
                    self._tls(wire, hello, f"handshake_{hello.name}")
                    if self._target.implicit_tls:
                        self._banner(wire)
                    self._seen.after_tls = self._ehlo(wire, True, "ehlo_tls")
            except NoAnswer:
                if self._seen.tls is not None:
                    raise  # TLS is up: what is lost is what comes behind it
                continue
            except _HandshakeFailed:
                continue
            self._name_handshake(hello)
            return

    def _name_handshake(self, hello: Hello) -> None:
        seen = self._seen
        today, answered = seen.tried[0], seen.tried[-1]
        assert seen.tls is not None
        if hello is handshake.SMALL:
            self._note(
                "hello-unanswered",
                f"a ClientHello of {today.octets} octets is not answered ({today.result}), one of {answered.octets} is",
            )
        else:
            self._note(
                "tls-outdated",
                f"TLS comes up only with a ClientHello {hello.words}: {seen.tls.version}, {seen.tls.cipher}; "
                f"today's ClientHello fails: {today.result}",
            )

    def _again(self, step: str) -> None:
        with self._connection(step) as wire:
            if self._target.implicit_tls:
                self._tls(wire, handshake.HELLOS[self._seen.tried[-1].hello], "", noted=False)
            wire.banner()
            first = self._say_ehlo(wire)
            if first.result.refused:
                return
            self._seen.offers.append(first.offers_starttls)
            wire.say(self._ehlo_line())
            try:
                second = wire.ehlo_reply(b"").raw
            except NoAnswer as problem:
                if problem.kind in ("end", "reset"):
                    self._note("ehlo-repeat-refused", "the connection ends on a second EHLO")
                return
            if code_of(second) >= 400 and not self._seen.has("ehlo-repeat-refused"):
                self._note("ehlo-repeat-refused", f"a second EHLO is answered {shown(second)}")

    # ------------------------------------------------------------------ their parts

    @contextmanager
    def _connection(self, step: str = "") -> Iterator[Wire]:
        seen, target = self._seen, self._target
        started = time.monotonic()
        self._progress(step or "connect")
        sock = connect(seen.address, target.port, self._timeout, target.source)
        seen.steps.setdefault("connect", time.monotonic() - started)
        seen.ehlo_name = self._name or own_name(sock)
        wire = Wire(sock, self._timeout, lambda: self._progress(""))
        try:
            yield wire
        finally:
            wire.goodbye()

    def _banner(self, wire: Wire) -> None:
        seen = self._seen
        try:
            with self._timed("banner", wire):
                before = split_before_banner(wire.banner())
        except NoAnswer as problem:
            if problem.kind != "silence" or self._target.implicit_tls:
                raise
            raise NoAnswer(f"{problem}; a server that waits for TLS is silent, too: try --implicit-tls") from None
        seen.banner, seen.banner_findings = before.banner, before.findings
        if code_of(seen.banner) != 220:
            raise NoAnswer(f"the server greets with {shown(seen.banner)}")
        lines = split_lines(seen.banner)
        if len(lines) > 1 and not seen.has("banner-multiline"):
            self._note("banner-multiline", f"the banner has {len(lines)} lines")

    def _ehlo(self, wire: Wire, inside_tls: bool, step: str) -> Judged:
        """EHLO and what the reply says; a refusal is looked into.  Raises NoAnswer."""
        seen = self._seen
        try:
            with self._timed(step, wire):
                reply = self._say_ehlo(wire, inside_tls)
        except NoAnswer as problem:
            if problem.kind not in ("end", "reset") or inside_tls:
                raise
            self._helo_instead(problem)
            raise
        code = code_of(reply.raw)
        if code == 421:  # RFC 5321 3.8: said at any time, about the service and not about EHLO
            raise NoAnswer(f"the server ends the session: {shown(reply.raw)}")
        if code >= 400 and inside_tls and not self._target.implicit_tls:
            self._note("ehlo-repeat-refused", f"EHLO inside TLS, a second one, is answered {shown(reply.raw)}")
        elif code >= 400:
            self._helo(wire, f"EHLO is answered {shown(reply.raw)}")
            if 400 <= code < 500 and code_of(seen.helo_reply) != 250:
                raise NoAnswer(f"the server refuses for now: {shown(reply.raw)}")
        return reply

    def _helo_instead(self, problem: NoAnswer) -> None:
        """The connection ended on EHLO: does a HELO of its own do better?"""
        try:
            with self._connection("HELO") as wire:
                wire.banner()
                self._helo(wire, str(problem))
        except NoAnswer:
            pass

    def _helo(self, wire: Wire, why: str) -> None:
        wire.say(b"HELO " + self._seen.ehlo_name.encode("ascii", "replace"))
        try:
            self._seen.helo_reply = wire.reply("HELO")
        except NoAnswer:
            return
        if code_of(self._seen.helo_reply) == 250:
            self._note("ehlo-refused", f"{why}; HELO is taken")

    def _starttls(self, wire: Wire) -> bool:
        """STARTTLS; True when the handshake may begin."""
        seen = self._seen
        wire.say(b"STARTTLS")
        try:
            with self._timed("starttls", wire):
                reply = seen.starttls_reply = wire.reply("STARTTLS")
        except NoAnswer as problem:
            seen.starttls_ended = str(problem)
            return False
        code = code_of(reply)
        if code != 220:
            masked = seen.before_tls is not None and not seen.before_tls.offers_starttls
            if code >= 400 and not masked:
                self._note("starttls-refused", f"STARTTLS is offered, and answered {shown(reply)}")
            elif code < 400:
                self._note("starttls-reply-code", f"STARTTLS is answered {shown(reply)} in place of 220")
            return False
        seen.behind_starttls = wire.behind()
        return not seen.behind_starttls

    def _tls(self, wire: Wire, hello: Hello, step: str, noted: bool = True) -> None:
        """The handshake with this ClientHello.  Raises _HandshakeFailed; NoAnswer for what is wrong on this host."""
        seen, asked = self._seen, self._target.asked
        name = asked.name or self._target.host
        try:
            context = hello.context(asked.ca_file)
        except TlsProblem as problem:
            raise NoAnswer(f"no TLS on this host: {problem.reason}") from None
        channel = TlsChannel.towards_server(context, wire.sock, name)
        octets = hello_size(context, channel.connection.get_servername() or b"")
        kind = result = ""
        with self._timed(step):
            try:
                wire.start_tls(channel, self._timeout)
            except NoAnswer as problem:
                kind, result = problem.kind, str(problem)
        if noted:
            seen.tried.append(Tried(hello.name, hello.words, octets, result))
        if kind:
            raise _HandshakeFailed(kind)
        if noted:
            seen.tls = tls_seen(channel, asked, self._target.host)

    def _say_ehlo(self, wire: Wire, inside_tls: bool = False) -> Judged:
        wire.say(self._ehlo_line())
        banner = split_lines(self._seen.banner)[0] if self._seen.banner else b""
        return judged(wire.ehlo_reply(banner), self._context(banner, inside_tls))

    def _ehlo_line(self) -> bytes:
        return b"EHLO " + self._seen.ehlo_name.encode("ascii", "replace")

    def _context(self, banner: bytes, inside_tls: bool) -> EhloContext:
        host = self._target.host
        return EhloContext(
            banner=banner,
            destination_name=b"" if literal_address(host) else host.encode("ascii", "replace"),
            destination_address=self._seen.address.encode("ascii", "replace"),
            client_name=self._seen.ehlo_name.encode("ascii", "replace"),
            inside_tls=inside_tls,
            client_trusted=False,
        )

    def _note(self, finding_id: str, message: str) -> None:
        self._seen.dialogue.append(dialogue_finding(finding_id, message))

    @contextmanager
    def _timed(self, step: str, wire: Wire | None = None) -> Iterator[None]:
        """Tell that the step begins, and keep how long it took, up to the last bytes on the wire; "": neither."""
        if step:
            self._progress(step)
        started = time.monotonic()
        try:
            yield
        finally:
            ended = wire.heard_at if wire is not None and wire.heard_at > started else time.monotonic()
            if step:
                self._seen.steps[step] = ended - started


def own_name(sock: socket.socket) -> str:
    """This host's name for EHLO; its address as a literal where it has no name with a dot (RFC 5321 4.1.1.1)."""
    name = socket.getfqdn()
    if is_dotted_domain(name.encode("ascii", "replace")):
        return name
    return as_literal(str(sock.getsockname()[0]).encode("ascii")).decode("ascii")
