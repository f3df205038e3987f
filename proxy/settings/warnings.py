"""What is legal but unwise: `warnings` lists it, `check` prints it, `run` starts all the same.

Time-outs are compared with RFC 5321 4.5.3.2, whose minimums are those of the sending side; a proxy that is less patient
than the sender cuts sessions that both peers would have finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from proxy.settings.problems import Warning_
from proxy.settings.reading import declared

if TYPE_CHECKING:
    from proxy.settings.tables import Route, Settings, Tls

MINUTE: Final = 60.0
IMPLICIT_TLS: Final = 465  # RFC 8314 3.3
WIDE: Final = 8  # a prefix shorter than this is more than any one organisation has
# Each: the shortest that the RFC allows, its clause, what it is for.
MINIMUMS: Final = {
    "banner": (5 * MINUTE, "4.5.3.2.1", "for the 220"),
    "command": (5 * MINUTE, "4.5.3.2.7", "for the next command, as for the replies to MAIL and RCPT"),
    "idle": (10 * MINUTE, "4.5.3.2.6", "for the reply to the final dot"),
    "half_closed": (10 * MINUTE, "4.5.3.2.6", "for the reply to the final dot"),
}


def warnings(settings: Settings) -> list[Warning_]:
    """Everything in the settings that an operator should know about; nothing outside them is looked at."""
    found: list[Warning_] = []
    if settings.service.drain_timeout < 10 * MINUTE:
        found.append(
            Warning_(
                "service.drain_timeout",
                f"{settings.service.drain_timeout:g} s is less than the 10 minutes that RFC 5321"
                " 4.5.3.2.6 gives a server after the final dot; a session cut there is delivered twice",
            )
        )
    admin = settings.admin
    reached = admin.listen is not None and not admin.listen.path and not _loopback(admin.listen.host)
    if reached and not admin.allow_clients:
        text = (
            f"{admin.listen} is not loopback; whoever reaches it sees the status page and the metrics (allow_clients)"
        )
        found.append(Warning_("admin.listen", text))
    if admin.allow_clients and (admin.listen is None or admin.listen.path):
        found.append(Warning_("admin.allow_clients", "has no effect without an address in listen"))
    for index, route in enumerate(settings.routes):
        found += [Warning_(f"route[{index}].{key}", text) for key, text in _of_route(route, settings.service.workers)]
    return found


def _of_route(route: Route, workers: int) -> Iterator[tuple[str, str]]:
    yield from _of_clients(route, workers)
    for name, (least, clause, purpose) in MINIMUMS.items():
        seconds = getattr(route.timeouts, name)
        if seconds < least:
            yield (
                f"timeouts.{name}",
                (f"{seconds:g} s is less than the {least / MINUTE:.0f} minutes of RFC 5321 {clause} {purpose}"),
            )
    if route.repair.unterminated_after >= route.timeouts.command:
        yield "repair.unterminated_after", "is not shorter than timeouts.command, so it never comes to it"
    if "STARTTLS" in route.repair.remove:
        yield "repair.remove", "STARTTLS is never shown, so clients send mail in clear or not at all"
    if "8BITMIME" in route.repair.remove and "SMTPUTF8" not in route.repair.remove:
        yield "repair.remove", "SMTPUTF8 is shown without 8BITMIME, which it needs (RFC 6531 3.1): name it too"
    if route.tls.mode == "passthrough":
        yield from _beyond_reach(route)
    yield from _of_tls(route)
    if not route.record.directory:
        for name in ("bytes", "sessions"):
            if getattr(route.record, name):
                yield f"record.{name}", "has no effect without record.directory"


def _beyond_reach(route: Route) -> Iterator[tuple[str, str]]:
    """What pass-through can't do: what is inside TLS is the two peers' own."""
    inside = 'in mode "passthrough" it does not reach inside TLS, where the client says EHLO again; bridge mode does'
    if [word for word in route.repair.remove if word != "STARTTLS"]:
        yield "repair.remove", f"clients without TLS are not shown these; {inside}"
    if route.repair.client_name:
        yield "repair.client_name", f"stands in for the client's name in clear; {inside}"
    if key := _implicit_port(route):
        yield (
            key,
            'port 465 is TLS from the first byte: in mode "passthrough" nothing can be read or repaired; give port 25'
            ' or 587, or bridge mode with server = "implicit"',
        )


def _implicit_port(route: Route) -> str:
    """The key that says port 465, "" if none does."""
    if any(one.port == IMPLICIT_TLS for one in route.destination):
        return "destination"
    original = any(one.kind == "original" for one in route.destination)
    return "original_ports" if original and IMPLICIT_TLS in route.original_ports else ""


def _of_clients(route: Route, workers: int) -> Iterator[tuple[str, str]]:
    wide = [str(network) for network in route.allow_clients if network.prefixlen < WIDE]
    if wide and any(one.systemd or not _loopback(one.host) for one in route.listen):
        what = "go anywhere through it" if route.destination[0].kind == "original" else "reach the server through it"
        yield "allow_clients", f"{', '.join(wide)}: with this listener, strangers can {what} under the proxy's address"
    if not route.allow_clients:
        yield "allow_clients", "is empty, so every client gets 421"
    if any(network.prefixlen < WIDE for network in route.trusted_proxies):
        yield "trusted_proxies", "is so wide that strangers can say that they come from anywhere"
    if workers > route.max_sessions:
        yield "max_sessions", f"is less than one for each of the {workers} workers"
    if route.xclient and route.send_proxy_protocol:
        yield "xclient", "is of little use: the server learns the client's address by send_proxy_protocol"
    if route.destination[0].kind != "original":
        for name, default in (("original_ports", (25,)), ("original_networks", ())):
            if getattr(route, name) != default:
                yield name, 'has no effect unless destination is "original"'


def _of_tls(route: Route) -> Iterator[tuple[str, str]]:
    tls = route.tls
    if tls.mode == "passthrough":
        changed = [name for name, value in _changed(tls) if name != "mode"]
        if changed:
            yield "tls", f'{", ".join(changed)}: no effect in mode "passthrough"'
        return
    if tls.server == "starttls" and _implicit_port(route):
        yield (
            "tls.server",
            'port 465 is TLS from the first byte (RFC 8314 3.3), where "starttls" waits in vain: "implicit"',
        )
    if tls.verify == "none" and tls.server != "none":
        yield "tls.verify", '"none" encrypts, but to whoever answers: the server is not authenticated'
    if tls.pins and tls.verify != "pin":
        yield "tls.pins", f'have no effect with verify = "{tls.verify}"'
    if tls.keylog:
        yield "tls.keylog", "whoever reads this file can read the mail; for a lab only"
    yield from _of_strength(tls)
    if tls.client == "none" and tls.server == "none":
        yield "tls", "neither side has TLS"
    elif not tls.required:
        yield "tls.required", "false lets a client send its mail in clear"
    if tls.server != "none" and tls.verify == "hostname" and not tls.verify_name:
        for one in route.destination:
            if one.kind == "mx":
                yield (
                    "tls.verify_name",
                    f"is empty, so an exchange must be named {one.host} or lie below it; one of another domain fails,"
                    " since what DNS says is no identity: name it here",
                )
                break
            if one.kind in ("address", "original"):
                yield (
                    "tls.verify_name",
                    (f"is empty, so the certificate must name {one.host or 'the address connected to'} as an address"),
                )
                break


def _of_strength(tls: Tls) -> Iterator[tuple[str, str]]:
    """What is weaker than by default, on which side, and what of it comes to nothing."""
    without = {"client": tls.client == "none", "server": tls.server == "none"}
    level = tls.security_level if isinstance(tls.security_level, int) else None
    oldest = tls.server_minimum_version or tls.minimum_version
    for name in ("minimum_version", "client_minimum_version", "server_minimum_version"):
        side = name.removesuffix("minimum_version").rstrip("_")
        if (version := getattr(tls, name)) and version < "1.2" and not without.get(side):
            where = f"the {side}'s side" if side else "both sides"
            weak = "; OpenSSL's security level becomes 0 there, so that weak keys and SHA-1 are taken too"
            kept = bool(level) and side != "client"
            yield f"tls.{name}", f"TLS {version} is obsolete (RFC 8996), on {where}{'' if kept else weak}"
    of_server = ("groups", "security_level", "server_minimum_version")
    for name, _ in _changed(tls):
        if (name == "client_minimum_version" and without["client"]) or (name in of_server and without["server"]):
            yield f"tls.{name}", f'has no effect where {"client" if name[0] == "c" else "server"} = "none"'
    if without["server"]:
        return
    if tls.groups == "classic":
        yield "tls.groups", '"classic" gives up the key exchange that withstands quantum computers, towards the server'
    if level and oldest < "1.2":
        yield (
            "tls.security_level",
            f"with {level} OpenSSL speaks no TLS {oldest} towards the server: 0, or leave it away",
        )
    elif level in (0, 1):
        yield "tls.security_level", f"{level} takes keys and signatures that are too weak by default"


def _changed(tls: Tls) -> Iterator[tuple[str, object]]:
    """The keys of [route.tls] that are not what they are by default."""
    default = type(tls)()
    for name, _ in declared(type(tls)):
        if getattr(tls, name) != getattr(default, name):
            yield name, getattr(tls, name)


def _loopback(host: str) -> bool:
    return bool(host) and ip_address(host.partition("%")[0]).is_loopback
