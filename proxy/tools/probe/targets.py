"""Whom to ask: `HOST[:PORT]`, every exchange of `mx:DOMAIN`, or every destination of a configuration's routes.

A destination "original" is whoever the client meant and can't be asked beforehand: it is a target with a problem that
says so.  Of a route its EHLO name, source address, name to verify and trust are taken where the command line has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from proxy.settings import Destination, Route, Settings
from proxy.tools.probe.names import NoName, Server, exchanges
from proxy.tools.probe.seen import Asked, Target

ORIGINAL = 'it goes where each client meant to go ("original"): give probe the host of one'


def of_destination(destination: Destination, asked: Asked, servers: Sequence[Server]) -> Iterator[Target]:
    """The targets of one destination; its label is how it is written, with the exchange behind it."""
    label = str(destination)
    if destination.kind == "original":
        yield Target(label, "", 0, asked, ORIGINAL)
    elif destination.kind == "mx":
        try:
            names = exchanges(destination.host, servers, asked.timeout)
        except NoName as problem:
            yield Target(label, destination.host, destination.port, asked, str(problem), destination=label)
            return
        for name in names:
            yield Target(f"{name}:{destination.port}", name, destination.port, asked, destination=label)
    else:
        yield Target(label, destination.host, destination.port, asked, destination=label)


def of_settings(settings: Settings, route_name: str, asked: Asked, servers: Sequence[Server]) -> list[Target]:
    """The targets of every route, or of one; none: there is no such route."""
    return [
        target
        for route in settings.routes
        if route_name in ("", route.name)
        for target in _of_route(route, asked, servers)
    ]


def _of_route(route: Route, asked: Asked, servers: Sequence[Server]) -> Iterator[Target]:
    of_route = replace(
        asked,
        ehlo=asked.ehlo or route.ehlo_name,
        name=asked.name or next(iter(route.tls.verify_name), "").lstrip("."),
        ca_file=asked.ca_file or route.tls.ca_file,
        implicit_tls=asked.implicit_tls or (route.tls.mode == "bridge" and route.tls.server == "implicit"),
        tls=asked.tls and not (route.tls.mode == "bridge" and route.tls.server == "none"),
    )
    for destination in route.destination:
        for target in of_destination(destination, of_route, servers):
            yield replace(
                target,
                route=route.name,
                listen=tuple(str(each) for each in route.listen),
                certificate=route.tls.certificate,
                key=route.tls.key,
                source="" if route.source == "client" else route.source,
            )
