"""The man pages: ehlo-proxy(1) from the arguments, ehlo-proxy.toml(5) from the settings, and ehlo-proxy-findings(7)
from the catalogue.

A page is a text of roff; what it says stands nowhere else than where the program has it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from proxy import __version__
from proxy.cli_arguments import ABOUT, DEFAULT_CONFIG, EXIT_CODES, parser
from proxy.settings import TABLES, Key, declared
from proxy.smtp.faults import FindingKind
from proxy.smtp.reply.findings import FINDINGS
from proxy.tools.files import roff

SIGNALS = {
    "SIGHUP": "reads the configuration again. A bad one changes nothing and is logged; a good one takes effect for new "
    "sessions.",
    "SIGTERM, SIGINT": "no new sessions; those that wait for a command are told 421, those inside a message end by "
    "themselves within drain_timeout. A second one ends at once.",
    "SIGUSR1": "logs the status.",
}
TABLE_TITLES = {"service": "[service]", "log": "[log]", "admin": "[admin]", "route": "[[route]]"}


def pages() -> dict[str, str]:
    """Every page by its file name."""
    return {
        "ehlo-proxy.1": commands_page(),
        "ehlo-proxy.toml.5": settings_page(),
        "ehlo-proxy-findings.7": findings_page(),
    }


def commands_page() -> str:
    """ehlo-proxy(1)."""
    lines = roff.title("ehlo-proxy", 1, __version__, DATE, "SMTP proxy that repairs malformed EHLO replies")
    lines += [roff.section("SYNOPSIS")]
    found = list(subcommands())
    for name, one in found:
        # A break stands between the options, not within one; a choice of several may be broken.
        shown = re.sub(r"\[[^]|]*\]", lambda found: found[0].replace(" ", "\\ "), roff.escaped(usage(one, name)))
        lines += [".PP", f"\\fBehlo\\-proxy {roff.escaped(name)}\\fR {shown}".rstrip()]
    lines += [roff.section("DESCRIPTION"), *roff.paragraphs(ABOUT)]
    for name, one in found:
        lines += [roff.section(f"ehlo-proxy {name}"), *roff.paragraphs(one.description or "")]
        for action in one._actions:
            if action.help != argparse.SUPPRESS and not {"--help", "--version"} & set(action.option_strings):
                lines += roff.tagged(spelling(action), (action.help or "") % _values(action))
    lines += [roff.section("EXIT STATUS"), *roff.paragraphs(EXIT_CODES)]
    lines += [roff.section("SIGNALS")]
    for name, what in SIGNALS.items():
        lines += roff.tagged(name, what)
    lines += [roff.section("ENVIRONMENT")]
    lines += roff.tagged("NO_COLOR", "No colour, whatever the terminal can do.")
    lines += [roff.section("FILES"), *roff.tagged(DEFAULT_CONFIG, "The configuration; see ehlo-proxy.toml(5).")]
    lines += [roff.section("SEE ALSO")]
    lines += ["\\fBehlo\\-proxy.toml\\fR(5), \\fBehlo\\-proxy\\-findings\\fR(7)"]
    return roff.page(lines)


def settings_page() -> str:
    """ehlo-proxy.toml(5)."""
    lines = roff.title("ehlo-proxy.toml", 5, __version__, DATE, "configuration of ehlo-proxy")
    lines += [roff.section("DESCRIPTION")]
    lines += roff.paragraphs(
        f"A file in TOML, by default {DEFAULT_CONFIG}. Unknown keys are errors. Times are seconds, or text such as "
        '"250ms", "15s", "5m", "1h"; networks are written "192.0.2.0/24". A relative path is taken from the directory '
        "of the file.\n\n`ehlo-proxy check` tells every error at once; `ehlo-proxy check --show` prints what is in "
        "force."
    )
    for table, kind in TABLES.items():
        lines.append(roff.section(TABLE_TITLES.get(table, f"[{table}]")))
        inner = ""
        for path, key in declared(kind):
            place = path.rpartition(".")[0]
            if place != inner:
                inner = place
                lines.append(f'.SS "[{roff.escaped(table)}.{roff.escaped(inner)}]"')
            lines += roff.tagged(f"{path.rpartition('.')[2]} = {written(key)}", key.meaning)
    lines += [roff.section("EXAMPLE"), *roff.literal(EXAMPLE)]
    lines += [roff.section("SEE ALSO"), "\\fBehlo\\-proxy\\fR(1)"]
    return roff.page(lines)


def findings_page() -> str:
    """ehlo-proxy-findings(7)."""
    lines = roff.title("ehlo-proxy-findings", 7, __version__, DATE, "what can be wrong with a server, by id")
    lines += [roff.section("DESCRIPTION")]
    lines += roff.paragraphs(
        "Each finding has an id, which stands in the log, in the metrics and in what `ehlo-proxy probe` says. "
        '"repair": repaired always, in mode "repair"; "strict": repaired with `strict = true`; "report": told, and '
        "never changed."
    )
    lines.append(roff.section("FINDINGS"))
    for one in FINDINGS.values():
        lines += finding(one)
    lines += [roff.section("SEE ALSO"), "\\fBehlo\\-proxy\\fR(1), \\fBehlo\\-proxy.toml\\fR(5)"]
    return roff.page(lines)


def finding(one: FindingKind) -> list[str]:
    """One finding: what the server did, who breaks on it, what is done, when that would be wrong."""
    return roff.tagged(
        one.id,
        f"{one.claim[:1].upper()}{one.claim[1:]} ({one.clause}).",
        f"Who breaks: {one.breaks}",
        f"Done ({one.done}): {one.how}",
        f"When it would be wrong: {one.wrong_when}",
    )


def subcommands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its own parser, in the order of `--help`."""
    for action in parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def summaries() -> dict[str, str]:
    """The line of each command in `--help`."""
    for action in parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {one.dest: one.help or "" for one in action._choices_actions}
    return {}


def spelling(action: argparse.Action) -> str:
    """`--timeout S`, `FILE`."""
    shown = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if not action.option_strings:
        return shown
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {shown}"


def usage(one: argparse.ArgumentParser, name: str) -> str:
    """The usage of a command, without its name and without `-h` and `--version`."""
    text = " ".join(one.format_usage().split()).partition(f" {name} ")[2]
    return text.replace("[-h] ", "").replace("[-h]", "").replace("[--version] ", "").replace("[--version]", "")


def written(key: Key) -> str:
    """The default of a key as TOML writes it."""
    default = key.default
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str):
        return f'"{default}"'
    return str(default).replace("'", '"')


def _values(action: argparse.Action) -> dict[str, object]:
    return {"default": action.default, "prog": "ehlo-proxy"}


DATE = "2026-11-24"  # of this version; a test compares it with CHANGELOG.md
EXAMPLE = (
    "[[route]]",
    'name = "domain1"',
    'listen = ["0.0.0.0:25"]',
    'destination = ["192.0.2.10:25"]',
    'allow_clients = ["198.51.100.40"]',
    "",
    "[route.repair]",
    'greeting = "mail.domain1.com"',
)
