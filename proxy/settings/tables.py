"""Every key of the configuration file, with its check, its default and its meaning: the one place for all three.

A table of the file is a frozen dataclass here, a key is a field of the same name.  The default stands as the file would
write it (`"5m"`), the field holds what the program works with (300.0 seconds).  Durations are float seconds; addresses,
names and paths are `str`; networks are `ipaddress`'s.  `config/ehlo-proxy.toml` gives each meaning in these words and
may add to them; a test compares.

One value is judged in `settings.plain`, `settings.values` and `settings.smtp`, several together in `settings.rules`.
"""

# ruff: noqa: RUF009  # `setting` and `table` are dataclasses.field with our metadata, and the tables are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from proxy.settings import plain, smtp, values
from proxy.settings.reading import setting, table
from proxy.settings.values import Destination, Endpoint, Listen, Network


@dataclass(frozen=True, slots=True)
class Service:
    """[service]"""

    workers: int = setting(plain.workers, 1, 'Processes that share the ports; "auto" is one a core.')
    drain_timeout: float = setting(
        plain.duration,
        "15m",
        "How long sessions may go on after SIGTERM, or after their route was removed by a reload.",
    )
    user: str = setting(
        plain.text, "", "Drop to this user once the ports are bound, when started as root without systemd."
    )


@dataclass(frozen=True, slots=True)
class Log:
    """[log]"""

    format: str = setting(plain.choice("text", "json"), "text", "One event a line on stderr, as text or as JSON.")
    level: str = setting(
        plain.choice("debug", "info", "warning", "error"),
        "info",
        "The least important events that are shown: debug, info, warning or error.",
    )


@dataclass(frozen=True, slots=True)
class Admin:
    """[admin]"""

    listen: Endpoint | None = setting(
        values.endpoint,
        "",
        'Address and port, or "unix:PATH", of /metrics, /healthz, /readyz, /status.json and the status page;'
        " empty: none.",
    )
    health_listen: Endpoint | None = setting(
        values.endpoint,
        "",
        'Address and port, or "unix:PATH", for a balancer: /healthz and /readyz, nothing else; empty: none.',
    )
    allow_clients: tuple[Network, ...] = setting(
        plain.listed(values.network, "networks"),
        [],
        "Networks that may use `listen`, others get 403; empty: anyone who reaches it. Not for a UNIX socket, nor for"
        " health_listen.",
    )
    host_names: tuple[str, ...] = setting(
        plain.listed(values.server_name, "host names"),
        [],
        "Further names that a request's Host may say, as behind a reverse proxy; others get 421.",
    )
    mode: str = setting(plain.permissions, "0660", "Permissions of the UNIX socket; a stale socket is removed.")


@dataclass(frozen=True, slots=True)
class Repair:
    """[route.repair]"""

    mode: str = setting(
        plain.choice("repair", "observe", "off"),
        "repair",
        '"repair" puts broken EHLO replies right, "observe" only reports and counts them, "off" does neither.',
    )
    strict: bool = setting(plain.boolean, False, "Also repair what is only untidy; `ehlo-proxy explain` tells which.")
    greeting: str = setting(
        smtp.domain,
        "",
        "The domain, or address literal, to greet with when the reply has no greeting;"
        " empty: the banner's, else the destination's.",
    )
    remove: tuple[str, ...] = setting(
        plain.listed(smtp.hidden, "keywords"),
        [],
        "EHLO keywords that clients are not shown, in clear and in bridge mode;"
        ' "AUTH:NTLM" is one mechanism, and CHUNKING takes BINARYMIME along.',
    )
    add: tuple[str, ...] = setting(
        plain.listed(smtp.ehlo_line, "EHLO lines"), [], "EHLO lines that every client is shown, behind the greeting."
    )
    unterminated_after: float = setting(
        plain.span, "15s", 'Silence after a "250-" line that means that the reply is over.'
    )
    client_name: str = setting(
        smtp.client_name,
        "",
        "The name that a client's EHLO or HELO goes on with when its own is none that RFC 5321 allows, or has no dot;"
        " empty: untouched.",
    )


@dataclass(frozen=True, slots=True)
class Tls:
    """[route.tls]"""

    mode: str = setting(
        plain.choice("passthrough", "bridge"),
        "passthrough",
        '"passthrough" leaves TLS to client and server, end to end; "bridge" ends it here, on both sides.',
    )
    client: str = setting(
        plain.choice("starttls", "implicit", "none"),
        "starttls",
        'TLS towards the client: "starttls", "implicit" (from the first byte) or "none".',
    )
    server: str = setting(
        plain.choice("starttls", "implicit", "none"),
        "starttls",
        'TLS towards the server: "starttls", "implicit" (from the first byte) or "none".',
    )
    certificate: str = setting(
        plain.text, "", "PEM file with the certificate that clients see, the intermediate ones behind it.", path=True
    )
    key: str = setting(plain.text, "", "PEM file with its private key, not encrypted.", path=True)
    required: bool = setting(plain.boolean, True, "No mail in clear on a side that has TLS; false: the client decides.")
    verify: str = setting(
        plain.choice("hostname", "pin", "none"),
        "hostname",
        'What the server must prove: its name, by a trusted certificate ("hostname"), a known key ("pin"),'
        ' or nothing ("none").',
    )
    verify_name: tuple[str, ...] = setting(
        values.verified_names,
        "",
        'Names of which the server\'s certificate must have one, ".domain1.com" being any below it;'
        ' empty: the destination\'s, with "mx:DOMAIN" the domain and what is below it.',
    )
    ca_file: str = setting(
        plain.text, "", "PEM file with the authorities that are trusted; empty: the system's.", path=True
    )
    pins: tuple[str, ...] = setting(
        plain.listed(plain.pin, "pins"), [], 'Known keys of the server, each "sha256:BASE64" of its public key.'
    )
    client_certificate: str = setting(plain.text, "", "PEM file with a certificate to show to the server.", path=True)
    client_key: str = setting(plain.text, "", "PEM file with its private key, not encrypted.", path=True)
    minimum_version: str = setting(
        plain.choice("1.0", "1.1", "1.2", "1.3"), "1.2", "The oldest version of TLS that is spoken, on either side."
    )
    client_minimum_version: str = setting(
        plain.choice("", "1.0", "1.1", "1.2", "1.3"), "", "The same towards the client alone; empty: minimum_version."
    )
    server_minimum_version: str = setting(
        plain.choice("", "1.0", "1.1", "1.2", "1.3"), "", "The same towards the server alone; empty: minimum_version."
    )
    groups: str = setting(
        plain.choice("default", "classic"),
        "default",
        'Key exchange towards the server: "classic" is P-256 alone, so that the ClientHello fits one segment.',
    )
    security_level: str | int = setting(
        plain.security_level,
        "default",
        'OpenSSL\'s security level towards the server: "default", 0, 1 or 2.',
    )
    keylog: str = setting(
        plain.text,
        "",
        "File that TLS session keys are written to, for Wireshark in a lab; logged loudly at start.",
        path=True,
    )


@dataclass(frozen=True, slots=True)
class Timeouts:
    """[route.timeouts]"""

    resolve: float = setting(plain.span, "10s", "One look-up of a name; the last good answer is used when it fails.")
    connect: float = setting(plain.span, "30s", "Connecting to one destination, over all its addresses.")
    banner: float = setting(plain.span, "5m", "From the connection to the server's 220.")
    command: float = setting(
        plain.span,
        "5m",
        "Client: from the last reply to a whole command. Server: from the oldest unanswered command to a whole reply.",
    )
    handshake: float = setting(plain.span, "60s", "One TLS handshake, in bridge mode.")
    idle: float = setting(plain.span, "30m", "No byte either way, once the proxy has let go.")
    half_closed: float = setting(plain.span, "10m", "No byte after one side has ended.")
    abort: float = setting(plain.span, "10s", "A close that the peer does not answer becomes a reset.")


@dataclass(frozen=True, slots=True)
class Record:
    """[route.record]"""

    directory: str = setting(
        plain.text,
        "",
        "Directory for a transcript of every session, one file of JSON lines each; empty: none.",
        path=True,
    )
    bytes: int = setting(plain.whole(0), 0, "How many bytes to keep of what follows MAIL in clear.")
    sessions: int = setting(plain.whole(0), 0, "Stop recording after so many sessions; 0: no limit.")


@dataclass(frozen=True, slots=True)
class Route:
    """[[route]]"""

    name: str = setting(
        plain.name, "default", "What logs, metrics and the clients' 421 call this route; each only once."
    )
    listen: tuple[Listen, ...] = setting(
        plain.listed(values.listen, 'addresses such as "0.0.0.0:25"', repeats=lambda one: one.any_port),
        [],
        'Addresses and ports to listen on, or "systemd:NAME" for a socket unit\'s FileDescriptorName.',
    )
    destination: tuple[Destination, ...] = setting(
        plain.listed(values.destination, "destinations", lone=True),
        [],
        'Where sessions go, tried in order: "HOST:PORT", "mx:DOMAIN", or "original" for intercepted connections.',
    )
    original_ports: tuple[int, ...] = setting(
        plain.listed(plain.port, "ports"), [25], 'With "original": the only ports that sessions may go to.'
    )
    original_networks: tuple[Network, ...] = setting(
        plain.listed(values.network, "networks"),
        [],
        'With "original": the only networks that sessions may go to;'
        " empty: all but loopback, link-local and multicast.",
    )
    allow_clients: tuple[Network, ...] = setting(
        plain.listed(values.network, "networks"),
        ["127.0.0.0/8", "::1/128"],
        "Networks whose clients get a session; all others get 421.",
    )
    max_sessions: int = setting(plain.whole(1), 1000, "Sessions of this route at a time.")
    max_sessions_per_client: int = setting(
        plain.whole(0), 0, "Sessions of one client address at a time; 0: no limit of its own."
    )
    proxy_protocol: bool = setting(
        plain.boolean, False, "Clients in trusted_proxies begin with a PROXY header, version 1 or 2, and must."
    )
    trusted_proxies: tuple[Network, ...] = setting(
        plain.listed(values.network, "networks"), [], "Networks of the load balancers in front of this proxy."
    )
    send_proxy_protocol: int = setting(
        plain.whole(0, 2), 0, "Send a PROXY header of this version, 1 or 2, to the server; 0: none."
    )
    ehlo_name: str = setting(
        smtp.domain, "", "The name in an EHLO that the proxy makes itself, in bridge mode; empty: the host's."
    )
    source: str = setting(
        values.source,
        "",
        'Address to connect to the server from; "client": the client\'s own (needs TPROXY routing); empty: any.',
    )
    xclient: bool = setting(plain.boolean, False, "Tell the client's address, by XCLIENT, to a server that offers it.")
    repair: Repair = table(Repair)
    tls: Tls = table(Tls)
    timeouts: Timeouts = table(Timeouts)
    record: Record = table(Record)


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration. `path` is the file it came from, as given."""

    service: Service
    log: Log
    admin: Admin
    routes: tuple[Route, ...]
    path: str


TABLES: Final[dict[str, type[Any]]] = {"service": Service, "log": Log, "admin": Admin, "route": Route}
