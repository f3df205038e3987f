"""Every metric: its name, type, labels with all their values, and what it says.

The exposition and the table in `docs/metrics.md` are made from these, so neither can know one that the other does not.
A counter's or histogram's labels are closed sets, so that every series of a configured route is there at 0 before the
first session: `rate()` then sees the first failure, and an alert does not have to wait for the second.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.smtp.reply.findings import CATALOGUE

OUTCOMES = (
    "completed", "client-closed", "client-reset", "server-closed", "server-reset", "refused", "unreachable", "timeout",
    "tls-failed", "injection", "aborted", "error",
)  # fmt: skip
# Of what is wrong beside a reply's form a session shows these; `probe` alone asks for the rest.
FINDINGS_OF_SESSIONS = (
    *CATALOGUE, "keyword-incomplete", "client-name-invalid", "starttls-refused", "starttls-reply-code",
    "ehlo-repeat-refused",
)  # fmt: skip
WELL = frozenset(("completed", "client-closed", "client-reset", "server-closed"))
"""Outcomes that are no failure of the session; a `server-closed` where the proxy had to say 421 is a warning all the
same, but counts here with the others."""

TLS = ("none", "passthrough", "bridge")
REFUSALS = ("not_allowed", "route_full", "client_full", "draining", "no_descriptors", "proxy_header", "xclient")
STARTTLS = ("accepted", "refused", "injection", "failed", "not_offered", "not_used")
RELOADS = ("ok", "failed")
DIRECTIONS = ("from_client", "from_server")
SIDES = ("client", "server")
BOOLEANS = ("true", "false")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `labels` has each label's name and its values, empty where only the configuration knows them."""

    name: str  # as it is in the exposition: a counter's with _total
    kind: str  # counter, gauge, histogram
    text: str
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def family(self) -> str:
        """The name that HELP and TYPE bear."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name


_ROUTE = ("route", ())

METRICS = (
    Metric("ehlo_proxy_build_info", "gauge", "The version that runs; always 1.", (("version", ()),)),
    Metric(
        "ehlo_proxy_sessions_total", "counter",
        "Sessions that ended, refused clients included, by outcome and by who encrypted.",
        (_ROUTE, ("outcome", OUTCOMES), ("tls", TLS)),
    ),
    Metric("ehlo_proxy_sessions_open", "gauge", "Sessions that run now.", (_ROUTE,)),
    Metric("ehlo_proxy_sessions_limit", "gauge", "max_sessions of the route, over all workers.", (_ROUTE,)),
    Metric(
        "ehlo_proxy_refused_total", "counter", "Clients that the proxy refused with a 421 of its own, by the rule.",
        (_ROUTE, ("reason", REFUSALS)),
    ),
    Metric(
        "ehlo_proxy_findings_total", "counter",
        "EHLO replies with a finding, and whether it was repaired; `ehlo-proxy explain` tells what each one is.",
        (_ROUTE, ("finding", FINDINGS_OF_SESSIONS), ("repaired", BOOLEANS)),
    ),
    Metric(
        "ehlo_proxy_starttls_total", "counter", "Sessions by what became of STARTTLS; one a session.",
        (_ROUTE, ("result", STARTTLS)),
    ),
    Metric(
        "ehlo_proxy_bytes_total", "counter", "Payload received, counted while it flows.",
        (_ROUTE, ("direction", DIRECTIONS)),
    ),
    Metric(
        "ehlo_proxy_destination_up", "gauge",
        "Whether a configured destination answers: 1 until it failed, 0 until it answers again.",
        (_ROUTE, ("destination", ())),
    ),
    Metric("ehlo_proxy_destination_connect_seconds", "histogram", "Time to connect to the destination.", (_ROUTE,)),
    Metric("ehlo_proxy_ehlo_seconds", "histogram", "Time from EHLO to the whole reply.", (_ROUTE,)),
    Metric("ehlo_proxy_turn_seconds", "histogram", "How long the event loop was held by one turn."),
    Metric(
        "ehlo_proxy_certificate_not_after_timestamp_seconds", "gauge",
        "When the certificate expires, as Unix time; of several of a side, the first to expire.",
        (_ROUTE, ("side", SIDES)),
    ),
    Metric(
        "ehlo_proxy_config_reloads_total", "counter", "Reloads of the configuration; a failed one changed nothing.",
        (("result", RELOADS),),
    ),
    Metric(
        "ehlo_proxy_config_last_reload_success_timestamp_seconds", "gauge",
        "When the configuration in force was read, as Unix time.",
    ),
    Metric("ehlo_proxy_workers", "gauge", "Processes that serve."),
    Metric("ehlo_proxy_worker_restarts_total", "counter", "Workers that had to be replaced."),
    Metric("ehlo_proxy_log_lines_lost_total", "counter", "Log lines that nobody took and that were dropped."),
    Metric("process_cpu_seconds_total", "counter", "User and system time, of all processes."),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory, of all processes."),
    Metric("process_virtual_memory_bytes", "gauge", "Virtual memory, of all processes."),
    Metric("process_open_fds", "gauge", "Open file descriptors, of all processes."),
    Metric("process_max_fds", "gauge", "How many file descriptors all processes may open together."),
    Metric("process_start_time_seconds", "gauge", "When the service was started, as Unix time."),
)  # fmt: skip

BY_NAME = {metric.name: metric for metric in METRICS}
