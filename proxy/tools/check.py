"""`check [FILE|-]...`: read a configuration as `run` would, and tell everything that is wrong with it at once.

Results go to `out`: `FILE: ok, N routes`, or with `show` what is in force.  Errors and warnings go to `err`, one a line
each; warnings begin with `warning: ` and change nothing, unless `strict`.  Exit: 0, or 2 when there is an error.

Beyond what `run` finds when it starts, names are looked up here, in `LOOK_UP_WITHIN` seconds for all of them together,
by the system's resolver: a destination by name that leads back to one of our own listeners is an error.  That is what
happens when a mail system is made to find the proxy under the server's own name, as a Cisco ESA is; the destination
then has to be given by address.  A name that can't be looked up is a warning only, since it may be found later.
`mx:` destinations are not looked up.

Neither Twisted is imported nor, without bridge mode, OpenSSL; nothing is bound or connected.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Collection, Container, Iterator, Sequence
from ipaddress import ip_address
from typing import Final, TextIO

from proxy.net.going_out.destination import Surroundings
from proxy.net.going_out.own_addresses import OwnAddresses
from proxy.settings import TABLES, Address, Settings, SettingsError, Warning_, examine, warnings
from proxy.settings.files import unwise_files
from proxy.settings.problems import shown
from proxy.settings.reading import Reading, as_toml
from proxy.settings.rules import back_to_us, leads_to, listeners, listening

LOOK_UP_WITHIN: Final = 5.0
Found = dict[tuple[str, int], list[str] | str]  # addresses, or the reason why there are none


def run(
    paths: Sequence[str],
    out: TextIO,
    err: TextIO,
    *,
    strict: bool = False,
    show: bool = False,
    within: float = LOOK_UP_WITHIN,
) -> int:
    """Check these files, "-" being standard input; the exit code: 2 when one of them has an error.

    `strict`: a warning is an error.  `show`: print what is in force, as TOML, in place of "ok".  `within`: seconds for
    looking the names of one file up.
    """
    return max([_check(path, out, err, strict, show, within) for path in paths])


def _check(path: str, out: TextIO, err: TextIO, strict: bool, show: bool, within: float) -> int:
    own = OwnAddresses()
    try:
        settings, reading = examine(path, own)
        found = list(_of_names(settings, reading, own, within))
        if reading.problems:
            raise SettingsError(reading.problems)
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=err)
        return 2
    unwise = [*warnings(settings), *unwise_files(settings), *_of_addresses(settings, own), *found]
    for one in unwise:
        route = reading.route(one.key)
        where = f"{reading.place(one.key)}: route {shown(route)}" if route else reading.place(one.key)
        print(f"{'error' if strict else 'warning'}: {where}: {one}", file=err)
    if strict and unwise:
        return 2
    if show:
        out.write(as_toml(settings, TABLES))
    else:
        number = len(settings.routes)
        print(f"{path}: ok, {number} route{'' if number == 1 else 's'}", file=out)
    return 0


def _of_names(settings: Settings, reading: Reading, own: Container[Address], within: float) -> Iterator[Warning_]:
    """Report destinations by name that lead back to us; the rest is worth a warning."""
    named = {
        f"route[{index}].destination[{place}]": one
        for index, route in enumerate(settings.routes)
        for place, one in enumerate(route.destination)
        if one.kind == "name"
    }
    ours = listening(settings)
    surroundings = Surroundings(own, frozenset)
    found = look_up({(one.host, one.port) for one in named.values()}, within)
    for key, one in named.items():
        addresses = found[one.host, one.port]
        if isinstance(addresses, str):
            yield Warning_(key, f"{one.host} could not be looked up: {addresses}")
            continue
        for address in addresses:
            back = leads_to(ours, address, one.port, own)
            if back is not None:
                advice = f"{one.host} is {address} here; give the server by its own address"
                reading.report(key, str(one), f"{back_to_us(*back)}: {advice}")
                break
        else:
            if all(surroundings.refusal(address, one.port) for address in addresses):
                yield Warning_(
                    key,
                    f"{one.host} is {', '.join(addresses)}, and a name is not followed to this host or"
                    " its loopback and link-local addresses; give the address instead if it is meant",
                )


def look_up(names: Collection[tuple[str, int]], within: float) -> Found:
    """The addresses of every host and port, or why there are none; all of it takes no longer than `within` seconds."""
    found: Found = dict.fromkeys(names, f"no answer in {within:g} seconds")
    answers: queue.SimpleQueue[tuple[tuple[str, int], list[str] | str]] = queue.SimpleQueue()

    def ask(name: tuple[str, int]) -> None:
        try:
            infos = socket.getaddrinfo(*name, type=socket.SOCK_STREAM)
            answers.put((name, list(dict.fromkeys(str(info[4][0]) for info in infos))))
        except (OSError, UnicodeError) as error:
            answers.put((name, getattr(error, "strerror", None) or str(error)))

    until = time.monotonic() + within
    for name in names:  # getaddrinfo can't be stopped: a thread that still asks is left behind, and ends with us
        threading.Thread(target=ask, args=(name,), daemon=True).start()
    for _ in names:
        try:
            name, answer = answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        found[name] = answer
    return found


def _of_addresses(settings: Settings, own: Container[Address]) -> Iterator[Warning_]:
    """Addresses to bind that this host does not have; it may get them later, from VRRP for example."""
    bound = [(key, one.host) for key, one in listeners(settings)]
    bound += [(f"route[{index}].source", route.source) for index, route in enumerate(settings.routes)]
    for key, host in bound:
        if not own or host in ("", "client"):
            continue
        address = ip_address(host.partition("%")[0])
        if not (address.is_unspecified or address.is_loopback or address.is_link_local) and address not in own:
            yield Warning_(key, f"{host} is not an address of this host at the moment")
