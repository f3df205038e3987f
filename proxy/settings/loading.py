"""From a file, a text or the command line of `run` to settings, by way of the tables, the rules and the files named.

The reader is our own.  msgspec stops at the first fault; cattrs tells no value, and not which key an unknown one may
be meant for; pydantic tells all of them, but judges no rule over several keys while a single value is wrong, and takes
0.2 s to import.  Either would take the place of `setting` and `Reading.table`, some sixty lines: the readers of values
and their words, the lines, the nearest keys and the rules would stay.
"""

from __future__ import annotations

import os.path
import re
import sys
from collections.abc import Container, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Final

from proxy.settings.files import look
from proxy.settings.problems import MAX_SHOWN, Problem, SettingsError, key_lines, key_path
from proxy.settings.reading import Reading
from proxy.settings.rules import judge
from proxy.settings.tables import TABLES, Admin, Log, Route, Service, Settings
from proxy.settings.values import Address

MAX_FILE: Final = 1 << 24  # bytes of a configuration


def _document(text: str, file: str) -> dict[str, Any]:
    """The TOML of a file. Whatever tomllib makes of hostile text becomes a SettingsError."""
    import tomllib  # a third of what it costs to import the settings, and most commands read no file

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason, _, place = str(error).rpartition(" (at ")
        at = re.match(r"line (\d+), column (\d+)\)", place)
        line = f"{at[1]}:{at[2]}" if at else text.count("\n") + 1  # at the end of the document
        raise SettingsError([Problem(f"{file}:{line}", "", None, f"valid TOML: {reason[:MAX_SHOWN]}")]) from None
    except (ValueError, RecursionError):  # integers of more than 4300 digits; a thousand nested brackets
        raise SettingsError([Problem(file, "", None, "TOML with numbers and nesting of a reasonable size")]) from None


def _read(document: dict[str, Any], file: str, own: Container[Address], text: str = "") -> tuple[Settings, Reading]:
    """Every table of the document, and the problems with it; where there is one, a default stands in."""
    reading = Reading(file, TABLES, key_lines(text), _route_names(document.get("route")))
    for title, value in document.items():
        if title not in TABLES:
            reading.report(key_path("", title), value, "a known table or key", reading.meant(title, TABLES))
    service = reading.table(Service, document.get("service", {}), "service")
    log = reading.table(Log, document.get("log", {}), "log")
    admin = reading.table(Admin, document.get("admin", {}), "admin")
    routes: list[Route] = []
    raw = document.get("route")
    if isinstance(raw, list):
        routes = [reading.table(Route, one, f"route[{index}]") for index, one in enumerate(raw)]
    elif raw is not None:
        reading.report("route", raw, "a list of tables, each under [[route]]")
    if not routes and raw in (None, []):
        reading.report("route", raw, "at least one [[route]]")
    settings = Settings(service, log, admin, tuple(routes), file)
    judge(settings, reading, own)
    return settings, reading


def parse(text: str, file: str) -> Settings:
    """The settings in a text; `file` is its name in messages, and relative paths in it are taken from its directory.

    Raises SettingsError with every problem that the text alone shows.
    """
    settings, reading = _read(_document(text, file), file, (), text)
    if reading.problems:
        raise SettingsError(reading.problems)
    return settings


def load(path: str, own: Container[Address] = ()) -> Settings:
    """The settings in a file, judged also by what they name on this host: keys, directories, users.

    `own` are the host's own addresses, to find a destination that leads back here: give `OwnAddresses()`; without it
    only loopback and the addresses in the file are known.  Raises SettingsError with every problem, a file that can't
    be read included.
    """
    settings, reading = examine(path, own)
    if reading.problems:
        raise SettingsError(reading.problems)
    return settings


def examine(path: str, own: Container[Address] = ()) -> tuple[Settings, Reading]:
    """What `load` does, for somebody who adds problems of his own: the settings are whole, with defaults for the rest.

    Raises SettingsError only for a file that can't be read, or is not TOML.
    """
    text = _text(path)
    settings, reading = _read(_document(text, path), path, own, text)
    look(settings, reading)
    return settings, reading


def _route_names(raw: object) -> list[str]:
    """What the routes are called, as far as it can be read: "" for the others."""
    names = [one.get("name") if isinstance(one, dict) else None for one in raw] if isinstance(raw, list) else []
    return [name if isinstance(name, str) else "" for name in names]


def _text(path: str) -> str:
    """A file's text, "-" being standard input. Raises SettingsError."""
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as file:
            content = file.read(MAX_FILE + 1)  # a device never ends
        if len(content) > MAX_FILE:
            raise SettingsError([Problem(path, "", None, f"a file of at most {MAX_FILE >> 20} MiB")])
        if content.startswith(b"\xef\xbb\xbf"):
            raise SettingsError([Problem(f"{path}:1", "", None, "UTF-8 text without a byte order mark")])
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError([Problem(f"{path}:{line}", "", None, "UTF-8 text, as TOML asks")]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError([Problem(path, "", None, f"a file that can be read: {reason}")]) from None


def from_arguments(
    listen: str | Sequence[str],
    destination: str | Sequence[str],
    allow: Sequence[str] = (),
    admin: str | None = None,
    record: str | None = None,
    own: Container[Address] = (),
) -> Settings:
    """The settings of `run --listen ADDR:PORT --destination HOST[:PORT] ...`: one route, named `default`.

    Raises SettingsError, each problem naming the option.
    """
    route: dict[str, Any] = {
        "listen": [listen] if isinstance(listen, str) else list(listen),
        "destination": [destination] if isinstance(destination, str) else list(destination),
    }
    if allow:
        route["allow_clients"] = list(allow)
    if record:
        route["record"] = {"directory": os.path.abspath(record)}
    document: dict[str, Any] = {"route": [route]}
    if admin:
        document["admin"] = {"listen": admin}
    settings, reading = _read(document, "command line", own)
    look(settings, reading)
    if reading.problems:
        raise SettingsError(replace(problem, key=_option(problem.key)) for problem in reading.problems)
    return settings


def _option(where: str) -> str:
    """The option that a key of `from_arguments` came from."""
    options = {
        "admin.listen": "--admin",
        "route[0].listen": "--listen",
        "route[0].destination": "--destination",
        "route[0].allow_clients": "--allow",
        "route[0].record.directory": "--record",
    }
    return next((option for path, option in options.items() if where.startswith(path)), where)
