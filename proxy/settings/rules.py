"""What several settings mean together: what contradicts itself, and what is legal but unwise.

`judge` looks at the settings alone; the one fact from outside is the list of the host's own addresses, which the caller
gives.  A rule stays silent about a key whose value could not be read: its default is not what the operator wrote.

`leads_to` is the question "does a connection to this address arrive at one of our own listeners?".  A wildcard listener
takes what is sent to any address of the host; a listener on 127.0.0.2 does not, so that a proxy may stand in front of a
server on the same host and the same port at another address.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar

from proxy.settings.reading import Reading
from proxy.settings.values import Address, Destination, Endpoint, Listen, unmapped

if TYPE_CHECKING:
    from proxy.settings.tables import Route, Settings

T = TypeVar("T")
Listening = dict[tuple[Address, int], tuple[str, str]]  # the key and the text of the listener at each address


def listeners(settings: Settings) -> Iterator[tuple[str, Listen | Endpoint]]:
    """Every listener of the configuration with its key path, the admin one last."""
    for index, route in enumerate(settings.routes):
        for place, one in enumerate(route.listen):
            yield f"route[{index}].listen[{place}]", one
    if settings.admin.listen is not None:
        yield "admin.listen", settings.admin.listen


def listening(settings: Settings) -> Listening:
    """Where we listen, for `leads_to`, which is asked for each destination of what may be thousands of routes."""
    found: Listening = {}
    for key, one in listeners(settings):
        if one.host:
            found.setdefault((_parsed(one.host), one.port), (key, str(one)))
    return found


def leads_to(ours: Mapping[tuple[Address, int], T], host: str, port: int, own: Container[Address] = ()) -> T | None:
    """What `ours` (as of `listening`) has of our listener that a connection to this address would arrive at.

    None if there is none.  `own` are the addresses of this host; loopback is always known.
    """
    address = _parsed(host)
    places = [address]
    if address.is_unspecified:  # connecting to 0.0.0.0 or :: is connecting to 127.0.0.1 or ::1 on Linux
        places.append(ip_address("::1" if address.version == 6 else "127.0.0.1"))
    if address.is_loopback or address.is_unspecified or address in own:
        places.append(ip_address("::" if address.version == 6 else "0.0.0.0"))
    return next((ours[place, port] for place in places if (place, port) in ours), None)


def _parsed(host: str) -> Address:
    return unmapped(ip_address(host.partition("%")[0]))


def judge(settings: Settings, reading: Reading, own: Container[Address] = ()) -> None:
    """Report everything that can't be meant."""
    _names(settings, reading)
    _listeners(settings, reading)
    ours = listening(settings)
    for index, route in enumerate(settings.routes):
        rules = _RouteRules(f"route[{index}]", route, reading)
        rules.destinations()
        rules.clients()
        rules.source()
        rules.repair()
        rules.tls()
        for place, one in enumerate(route.destination):
            found = leads_to(ours, one.host, one.port, own) if one.kind == "address" else None
            if found is not None:
                reading.report(f"route[{index}].destination[{place}]", str(one), back_to_us(*found))


def back_to_us(key: str, address: str) -> str:
    """What is expected of a destination that is the proxy itself."""
    return f"a server; this leads back to the proxy itself, which listens on {address} ({key})"


def _names(settings: Settings, reading: Reading) -> None:
    first: dict[str, int] = {}
    for index, route in enumerate(settings.routes):
        other = first.setdefault(route.name, index)
        if other != index and not reading.spoilt(f"route[{index}].name", f"route[{other}].name"):
            reading.report(f"route[{index}].name", route.name, f"a name of its own; route[{other}] has this one")


def _listeners(settings: Settings, reading: Reading) -> None:
    """No two listeners for one address and port; Linux counts the wildcard and any address behind it as two for one."""
    taken: dict[tuple[object, int], dict[str, str]] = {}
    for key, one in listeners(settings):
        systemd = one.systemd if isinstance(one, Listen) else ""
        if not systemd and one.port == 0:  # any free one
            continue
        space: tuple[object, int] = ("systemd:" + systemd, 0) if systemd else (":" in one.host, one.port)
        others = taken.setdefault(space, {})
        wildcard = one.host in ("0.0.0.0", "::")
        clash = others.get(one.host) or others.get("0.0.0.0") or others.get("::")
        if clash is None and wildcard and others:
            clash = next(iter(others.values()))
        if clash is not None:
            reading.report(key, str(one), f"an address and port that are not taken; {clash} has them already")
        others.setdefault(one.host, key)


class _RouteRules:
    """The rules about one route."""

    def __init__(self, where: str, route: Route, reading: Reading) -> None:
        self.where = where
        self.route = route
        self.reading = reading

    def wrong(self, key: str, value: object, expected: str, *also: str) -> None:
        """Report, unless this key, or another one that the rule is `also` about, could not be read."""
        if not self.reading.spoilt(*(f"{self.where}.{one}" for one in (key, *also))):
            self.reading.report(f"{self.where}.{key}", value, expected)

    def destinations(self) -> None:
        """Somewhere to listen, somewhere to go."""
        route = self.route
        if not route.listen:
            self.wrong("listen", None, 'at least one address, such as ["0.0.0.0:25", "[::]:25"]')
        if not route.destination:
            self.wrong("destination", None, 'at least one destination, such as ["192.0.2.10:25"]')
        if any(one.kind == "original" for one in route.destination):
            if len(route.destination) > 1:
                self.wrong("destination", [str(one) for one in route.destination], '"original" alone, or none of it')
            if not route.original_ports:
                self.wrong("original_ports", [], "at least one port that sessions may go to", "destination")

    def clients(self) -> None:
        """Who may come, and how their addresses are learnt and told."""
        route = self.route
        if route.proxy_protocol and not route.trusted_proxies:
            self.wrong(
                "trusted_proxies",
                [],
                "at least one network, since proxy_protocol is on and only they may say who the client is",
                "proxy_protocol",
            )
        if route.xclient and route.source == "client":
            self.wrong(
                "xclient",
                True,
                'false, since with source = "client" the server sees the client\'s own address',
                "source",
            )

    def source(self) -> None:
        """The address to connect from and those to connect to must be of one family."""
        route = self.route
        if not route.source or any(one.kind != "address" for one in route.destination) or not route.destination:
            return
        families = {":" in one.host for one in route.destination}
        if route.source == "client":
            ours = {":" in one.host for one in route.listen}
            if route.listen and not any(one.systemd for one in route.listen) and not families & ours:
                self.wrong(
                    "source",
                    route.source,
                    "clients and servers of one address family; an IPv4 address can't reach an IPv6 one",
                    "listen",
                    "destination",
                )
        elif (":" in route.source) not in families:
            self.wrong("source", route.source, "an address of the same family as a destination", "destination")

    def repair(self) -> None:
        """What is added and removed."""
        repair, tls = self.route.repair, self.route.tls
        first: dict[str, int] = {}
        for index, line in enumerate(repair.add):
            word = line.partition(" ")[0]
            other = first.setdefault(word, index)
            if other != index:
                self.reading.report(
                    f"{self.where}.repair.add[{index}]",
                    line,
                    f"each keyword only once; {word} is also in place [{other}]",
                )
        if tls.mode != "bridge":
            return
        if "STARTTLS" in first and tls.client != "starttls":
            self.wrong("repair.add", list(repair.add), f'no STARTTLS, since tls.client = "{tls.client}"', "tls.client")
        if "STARTTLS" in repair.remove and tls.client == "starttls" and tls.required:
            self.wrong(
                "repair.remove",
                list(repair.remove),
                "STARTTLS to be left in: tls.required lets no mail pass without it",
                "tls.client",
                "tls.required",
            )

    def tls(self) -> None:
        """Keys come with certificates, pins with their policy; nothing unverified leaves the host by mistake."""
        tls = self.route.tls
        if tls.mode == "bridge" and tls.client != "none":
            for name, value in (("certificate", tls.certificate), ("key", tls.key)):
                if not value:
                    self.wrong(
                        f"tls.{name}",
                        None,
                        f'a PEM file, since tls.client = "{tls.client}" in bridge mode',
                        "tls.mode",
                        "tls.client",
                    )
        elif bool(tls.certificate) != bool(tls.key):
            missing = "key" if tls.certificate else "certificate"
            self.wrong(
                f"tls.{missing}", None, "a PEM file: certificate and key come together", "tls.certificate", "tls.key"
            )
        if bool(tls.client_certificate) != bool(tls.client_key):
            missing = "client_key" if tls.client_certificate else "client_certificate"
            self.wrong(
                f"tls.{missing}",
                None,
                "a PEM file: client_certificate and client_key come together",
                "tls.client_certificate",
                "tls.client_key",
            )
        if tls.verify == "pin" and not tls.pins:
            self.wrong("tls.pins", None, 'at least one "sha256:BASE64", since tls.verify = "pin"', "tls.verify")
        loopback = all(_is_loopback(one) for one in self.route.destination)
        if tls.mode == "bridge" and tls.server == "none" and tls.verify != "none" and not loopback:
            self.wrong(
                "tls.server",
                "none",
                '"starttls" or "implicit"; in clear only to loopback addresses, or with verify = "none"',
                "tls.verify",
                "destination",
            )


def _is_loopback(destination: Destination) -> bool:
    return destination.kind == "address" and ip_address(destination.host).is_loopback
