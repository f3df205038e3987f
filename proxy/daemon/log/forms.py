"""Events that are told with every session: what each field holds is said once, and the line is then written in one go.

A field's kind says where its value comes from, and with it what may be in it.  Words of ours are printed as they are;
whatever a peer or the configuration may have a part in is looked at, and escaped and quoted where it is not plain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from proxy.daemon.log import values

_Show = Callable[[Any], str]


class Kind(NamedTuple):
    """How the values of one kind get into a line of text, and of JSON."""

    in_text: _Show
    in_json: _Show
    json: str = "%s"  # what stands around it


WORD = Kind(str, str, '"%s"')  # of ours: plain, and never empty
NUMBER = Kind(str, str)  # an integer
SECONDS = Kind(values.seconds_text, values.seconds_text)
OURS = Kind(values.ours_in_text, values.ours_in_json)  # text of ours that may quote others, or be empty
PEERS = Kind(values.peers_in_text, values.peers_in_json)  # characters that are a peer's octets
WORDS = Kind(values.words_in_text, values.words_in_json)  # of ours


class Form:
    """The fields of one event, in their order."""

    __slots__ = ("_fields", "json", "text")

    def __init__(self, fields: Mapping[str, Kind]) -> None:
        self._fields = fields
        self.text = (
            "".join(f" {key}=%s" for key in fields),
            tuple(kind.in_text for kind in fields.values()),
        )
        self.json = (
            "".join(f',"{key}":{kind.json}' for key, kind in fields.items()),
            tuple(kind.in_json for kind in fields.values()),
        )

    def fields(self, told: tuple[Any, ...]) -> dict[str, object]:
        """The values with their keys, as `EventLog.emit` takes them."""
        named = zip(self._fields.items(), told, strict=True)
        return {key: value.encode("latin-1", "replace") if kind is PEERS else value for (key, kind), value in named}


Formed = tuple[Form, tuple[Any, ...]]
"""A form, and a value for each of its fields."""
