"""Who may ask the admin listener, and under which names.

On a loopback address only the host itself may ask, and a browser only under a loopback's name: a web page from
elsewhere whose name is made to resolve to 127.0.0.1 (DNS rebinding) sends its own name in Host and gets 421.  A
listener that is not loopback is the operator's word: it answers anyone, or those in `allow_clients`, and under any
name, or, where there are `host_names`, under these and addresses.  What comes by a UNIX socket has passed its
permissions, and the health listener says nothing that anybody may not know.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from proxy.settings.values import Address, Network, unmapped

Networks = Sequence[Network]

_shown = re.compile(r"[A-Za-z0-9._-]{1,253}").fullmatch


class Access:
    """What a listener lets in; `local` says that it is on a loopback address, `anybody` that it asks nothing."""

    __slots__ = ("_anybody", "_local", "_names", "_networks")

    def __init__(
        self, *, local: bool = True, anybody: bool = False, allow: Networks = (), names: Iterable[str] = ()
    ) -> None:
        self._local = local
        self._anybody = anybody
        self._networks: Networks = ()
        self._names: frozenset[str] = frozenset()
        self.change(allow, names)

    def change(self, allow: Networks, names: Iterable[str]) -> None:
        """Go by these networks and names from now on, after a reload."""
        self._networks = allow
        self._names = frozenset(name.rstrip(".").lower() for name in names)

    def refusal(self, client: str | None, host: str | None) -> tuple[int, str] | None:
        """Why a request is refused: status and text.  `client` is None for a UNIX socket, `host` without the header."""
        if self._anybody or client is None:
            return None
        if not self._may_ask(client):
            return 403, f"{client} is not in admin.allow_clients\n" if self._networks else "only this host may ask\n"
        if host is not None and not self._is_ours(host_of(host)):
            name = host_of(host)
            quoted = f'"{name}"' if _shown(name) else "the name that you use"
            return 421, f"ask for localhost, 127.0.0.1 or [::1], or add {quoted} to host_names in [admin]\n"
        return None

    def _may_ask(self, client: str) -> bool:
        if not self._networks:
            return not self._local or is_loopback(client)
        found = _address(client)
        return found is not None and any(found in network for network in self._networks)

    def _is_ours(self, name: str) -> bool:
        if is_loopback(name) or name.rstrip(".").lower() in self._names:
            return True
        return not self._local and (not self._names or _address(name) is not None)


def _address(text: str) -> Address | None:
    try:
        return unmapped(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether an address to listen on, or a client's, is loopback; `localhost` is."""
    if host.rstrip(".").lower() == "localhost":
        return True
    found = _address(host.strip("[]"))
    return found is not None and found.is_loopback


def host_of(header: str) -> str:
    """The host of a Host header (RFC 9110 7.2), without its port."""
    if header.startswith("["):
        return header.partition("]")[0][1:]
    return header.partition(":")[0]
