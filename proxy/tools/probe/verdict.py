"""What it all means: the verdict, its cause in words, what cures it, and the TOML that does it.

The order of the questions is that of a sender: does one that follows the RFC see STARTTLS, does TLS then come up, and
is the reply inside it whole?  Each "no" is a `Fault` with the verdict that cures it; the gravest of them is the
verdict: `none`, `passthrough`, `add` (pass-through that shows STARTTLS), `bridge`, `server` (nothing of ours cures it).
Through bridge mode what pass-through cures is cured as well, so the lines of all faults go together.

Told, and no fault: a certificate that does not verify, `keyword-case`, and every finding that is only reported.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from proxy.smtp.reply.findings import Finding
from proxy.smtp.reply.names import is_dotted_domain
from proxy.smtp.reply.replies import code_of
from proxy.tools.probe.converse import Seen
from proxy.tools.probe.handshake import HELLOS
from proxy.tools.probe.names import Dane
from proxy.tools.probe.seen import Target, dialogue_finding
from proxy.tools.probe.wire import shown

VERDICTS = ("none", "passthrough", "add", "bridge", "server")
NO_ANSWER = ""  # the verdict of nothing
CERTIFICATE, KEY = "/etc/ehlo-proxy/tls/certificate.pem", "/etc/ehlo-proxy/tls/key.pem"

CURES = {
    "none": "Nothing is needed: you do not need this proxy.",
    "passthrough": "Cured by the proxy in pass-through, its default: it repairs the reply, TLS stays end to end.",
    "add": 'Cured by the proxy in pass-through with `add = ["STARTTLS"]`: the command gets through, so it is shown.',
    "bridge": "Cured by the proxy in bridge mode alone, where it ends TLS on both sides.",
    "server": "Nothing of the proxy's cures it: only the server's administrator, or the network's, can.",
    NO_ANSWER: "",
}
TRUST = (
    "A sender needs nothing here. Before a proxy stands there, the server's administrator has to take its address off "
    "that list; or, where clients may be trusted as the server trusts them, the route gets `xclient = true`."
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason for which a sender stumbles; `lines` go into the TOML, by table."""

    verdict: str
    cause: str
    lines: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Conclusion:
    """`verdict` "" where there was no answer to judge; `cause` is sentences."""

    verdict: str
    cause: str
    toml: str = ""
    told: str = ""  # in place of the verdict's usual cure

    @property
    def exit_code(self) -> int:
        return {NO_ANSWER: 3, "none": 0}.get(self.verdict, 1)

    @property
    def gravity(self) -> int:
        """For the worst of several; no answer is the worst."""
        return VERDICTS.index(self.verdict) if self.verdict else len(VERDICTS)

    @property
    def cure(self) -> str:
        return self.told or CURES[self.verdict]


def conclude(seen: Seen) -> Conclusion:
    """The verdict on one address."""
    faults = list(_faults(seen))
    reply = seen.after_tls if seen.target.implicit_tls else seen.before_tls
    if seen.target.problem or (reply is None and not faults):
        return Conclusion(NO_ANSWER, _sentence(seen.target.problem or seen.problem))
    if not faults and seen.problem:
        return Conclusion(NO_ANSWER, _sentence(seen.problem))
    told = ""
    for trusting in _trusting(seen):
        told = "" if faults else TRUST
        faults.append(Fault("none", trusting.cause, trusting.lines) if faults and trusting.lines else trusting)
    if not faults:
        toml = (
            to_paste(seen, "passthrough", ()) if seen.before_tls is not None and seen.before_tls.result.changed else ""
        )
        return Conclusion("none", _well(seen), toml)
    verdict = max((fault.verdict for fault in faults), key=VERDICTS.index)
    cause = " ".join(_sentence(fault.cause) for fault in faults)
    toml = "" if verdict == "server" else to_paste(seen, verdict, [line for fault in faults for line in fault.lines])
    return Conclusion(verdict, cause, toml, told)


@dataclass(frozen=True, slots=True)
class Result:
    """One target: its addresses with the conclusion on each, and the one that counts."""

    target: Target
    addresses: tuple[tuple[Seen, Conclusion], ...]
    dane: Dane | None = None

    @property
    def worst(self) -> tuple[Seen, Conclusion]:
        """An address that can't be reached beside others that can is passed over, as a sender does."""
        reached = [each for each in self.addresses if each[0].banner or each[0].tried or each[0].before_tls]
        return max(reached or self.addresses, key=lambda each: each[1].gravity)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all addresses, each id once."""
        found = {each.id: each for seen, _ in reversed(self.addresses) for each in reversed(seen.findings)}
        return tuple(found[each] for each in dict.fromkeys(f.id for seen, _ in self.addresses for f in seen.findings))


def result_of(target: Target, seen: list[Seen], dane: Dane | None = None) -> Result:
    """Judge what was seen at all addresses, and whether they agree on STARTTLS."""
    offers = {each.address: each.offers[0] for each in seen if each.offers}
    if len(set(offers.values())) > 1:
        without = ", ".join(address for address, offered in offers.items() if not offered)
        for each in seen:
            if not offers.get(each.address, True) and not each.has("starttls-not-steady"):
                told = f"STARTTLS is offered by other addresses of the name, and not by {without}"
                each.dialogue.append(dialogue_finding("starttls-not-steady", told))
    return Result(target, tuple((each, conclude(each)) for each in seen), dane)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _faults(seen: Seen) -> Iterator[Fault]:
    before, after = seen.before_tls, seen.after_tls
    reply = after if seen.target.implicit_tls else before
    if seen.has("ehlo-refused"):
        yield Fault("server", "EHLO is refused where HELO is taken, so no sender can see STARTTLS")
    elif seen.has("client-name-invalid"):
        ours = seen.ehlo_name if is_dotted_domain(seen.ehlo_name.encode("ascii", "replace")) else "devices.example"
        line = f"client_name = {json.dumps(ours)}  # a name of yours"
        told = seen.message("client-name-invalid")
        yield Fault(
            "passthrough", f"the server refuses senders with a bad name of their own: {told}", (("repair", line),)
        )
    elif reply is not None and reply.result.refused:
        yield Fault("server", f"the server refuses EHLO, and HELO as well: {shown(reply.raw)}")
    if before is not None and not before.result.refused:
        yield from _in_clear(seen)
    if seen.tried and seen.tls is None:
        yield _never_up(seen)
    elif len(seen.tried) > 1:
        yield _up_with_another(seen)
    if after is not None and after.result.refused and not seen.target.implicit_tls:
        yield Fault("server", f"EHLO inside TLS is refused: {shown(after.raw)}")
    elif after is not None and after.broken:
        ids = ", ".join(dict.fromkeys(each.id for each in after.result.findings if each.repaired))
        yield Fault("bridge", f"the EHLO reply inside TLS is broken ({ids}), where pass-through can't read it")


def _in_clear(seen: Seen) -> Iterator[Fault]:
    before = seen.before_tls
    assert before is not None
    ids = [each.id for each in (*seen.banner_findings, *before.result.findings) if each.repaired]
    if before.broken or any(each.repaired for each in seen.banner_findings):
        hidden = before.offers_starttls and not before.shows_starttls
        what = "a sender that follows the RFC does not see STARTTLS" if hidden else "senders stumble over it"
        yield Fault("passthrough", f"the EHLO reply is broken ({', '.join(dict.fromkeys(ids))}): {what}")
    if seen.has("starttls-not-steady"):
        told = seen.message("starttls-not-steady")
        yield Fault("server", f"a sender gets TLS or not, as chance has it: {told}")
    masked = not before.offers_starttls and seen.has("keyword-masked")
    if masked:
        yield _masked(seen)
    elif code := code_of(seen.starttls_reply):
        said = shown(seen.starttls_reply)
        if code >= 400:
            yield Fault("server", f"STARTTLS is offered and then refused: {said}")
        elif code != 220:
            yield Fault("server", f"STARTTLS is answered with a code other than 220: {said}")
    elif seen.starttls_ended:
        yield Fault("server", f"STARTTLS is offered, and then there is no answer to it: {seen.starttls_ended}")
    if seen.behind_starttls:
        said = shown(seen.behind_starttls)
        yield Fault("server", f"bytes in clear stand behind the 220 to STARTTLS, and no sender may go on: {said}")


def _masked(seen: Seen) -> Fault:
    mask = "a firewall on the way has overwritten STARTTLS in the EHLO reply"
    if code_of(seen.starttls_reply) == 220:
        return Fault("add", f"{mask}, but lets the command through", (("repair", 'add = ["STARTTLS"]'),))
    if not seen.target.asked.tls:
        return Fault("server", f"{mask}; the command was not tried (--no-tls)")
    said = shown(seen.starttls_reply) if seen.starttls_reply else seen.starttls_ended
    return Fault("server", f"{mask}, and does not let the command through either: {said}")


def _never_up(seen: Seen) -> Fault:
    said = "; ".join(dict.fromkeys(each.result for each in seen.tried))
    hellos = f"{len(seen.tried)} kinds of ClientHello" if len(seen.tried) > 1 else "the ClientHello"
    return Fault("server", f"TLS does not come up, with {hellos}: {said}")


def _up_with_another(seen: Seen) -> Fault:
    """TLS came up, but not with the ClientHello of today."""
    today, answered = seen.tried[0], seen.tried[-1]
    tls = seen.tls
    assert tls is not None
    failed = f"a ClientHello {today.words}, of {today.octets} octets, fails: {today.result}"
    worked = f"one of {answered.octets} octets, {answered.words}, is answered, with {tls.version}, {tls.cipher}"
    lines = tuple(("tls", line) for line in HELLOS[answered.hello].lines(tls.version))
    return Fault("bridge" if lines else "server", f"{failed}; {worked}", lines)


def _trusting(seen: Seen) -> Iterator[Fault]:
    """XCLIENT or XFORWARD, in the first reply that offers it: what would become of a session through the proxy."""
    for reply, where in ((seen.before_tls, ""), (seen.after_tls, "inside TLS ")):
        if reply is None or not reply.result.offers_xclient:
            continue
        names = " and ".join(each.decode() for each in (b"XCLIENT", b"XFORWARD") if each in reply.result.offered)
        so = "a proxy there would end every session"
        if where:
            so = "in bridge mode a proxy there would end every session, and in pass-through any client could use it"
        cause = f"{where}the server offers {names} to the address that this probe came from: it trusts it, so {so}"
        yield Fault("server", cause, (("", "xclient = true"),) if b"XCLIENT" in reply.result.offered else ())
        return


def _well(seen: Seen) -> str:
    if seen.target.implicit_tls:
        return "TLS comes up from the first byte, and the EHLO reply inside it needs no repair."
    before = seen.before_tls
    if before is None or not before.offers_starttls:
        return "The server offers no STARTTLS, and its EHLO reply needs no repair."
    if seen.tls is None:
        return "A sender sees STARTTLS; TLS was not tried (--no-tls)."
    return "A sender sees STARTTLS, TLS comes up, and the EHLO reply inside it needs no repair."


# ---------------------------------------------------------------------- TOML


def to_paste(seen: Seen, verdict: str, lines: Iterable[tuple[str, str]]) -> str:
    """A route that cures it; `lines` are (table, line), the table "" for the route's own."""
    target = seen.target
    tables: dict[str, list[str]] = {"": [], "repair": [], "tls": []}
    for table, line in lines:
        if line not in tables[table]:
            tables[table].append(line)
    name = target.route or re.sub(r"[^A-Za-z0-9_.-]", "-", target.host)
    written = [
        "[[route]]",
        f"name = {json.dumps(name)}",
        f"listen = {json.dumps(list(target.listen) or [_listen(target, seen.address)])}",
        f"destination = {json.dumps([target.destination or target.label])}",
    ]
    if not target.route:
        written.append('allow_clients = ["127.0.0.0/8", "::1/128"]  # your senders')
    written += tables[""]
    if tables["repair"]:
        written += ["", "[route.repair]", *tables["repair"]]
    if verdict == "bridge":
        written += ["", "[route.tls]", *_bridge(seen), *tables["tls"]]
    return "\n".join(written) + "\n"


def _bridge(seen: Seen) -> Iterator[str]:
    """Bridge mode that accepts the server as it is: by its name where that verifies, else by its key."""
    target = seen.target
    yield 'mode = "bridge"'
    if target.implicit_tls:
        yield 'server = "implicit"'
    ours = "" if target.certificate else "  # yours, for clients"
    yield f"certificate = {json.dumps(target.certificate or CERTIFICATE)}{ours}"
    yield f"key = {json.dumps(target.key or KEY)}"
    tls, asked = seen.tls, target.asked
    if tls is None or tls.verified:
        if name := _name_to_verify(target):
            yield f"verify_name = {json.dumps(name)}"
        if asked.ca_file:
            yield f"ca_file = {json.dumps(asked.ca_file)}"
    elif tls.certificate is not None:
        yield "# its certificate does not verify: ask its administrator for its key"
        yield 'verify = "pin"'
        yield f'pins = ["sha256:{tls.certificate.sha256_spki}"]'


def _name_to_verify(target: Target) -> str:
    """The name that was verified, where the route would not come to it by itself."""
    if target.destination.startswith("mx:"):  # by default the domain and what is below it
        domain = target.destination[3:].partition(":")[0].lower()
        name = target.asked.name or target.host
        return "" if f".{name.lower()}".endswith(f".{domain}") else name
    return "" if target.asked.name == target.host else target.asked.name


def _listen(target: Target, address: str) -> str:
    """Port 25; a port of its own where the server itself is on this host's."""
    try:
        here = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        here = False
    return "127.0.0.1:2525" if here and target.port != 2525 else "127.0.0.1:2526" if here else "0.0.0.0:25"
