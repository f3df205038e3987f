"""Events that are told with every session: what each field holds is said once, and the line is then written in one go.

A field's kind says where its value comes from, and with it what may be in it.  Words of ours are printed as they are;
whatever a peer or the configuration may have a part in is looked at, and escaped and quoted where it is not plain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import call
from typing import Any, NamedTuple

from proxy.daemon.log import values

_Show = Callable[[Any], str]


class Kind(NamedTuple):
    """How the values of one kind get into a line of text, and of JSON; raises `TooLong`."""

    in_text: _Show
    in_json: _Show
    around: str = ""  # in JSON


WORD = Kind(format, format, '"')  # of ours: plain, and never empty
NUMBER = Kind(format, format)  # an integer
SECONDS = Kind(values.seconds_text, values.seconds_text)
OURS = Kind(*values.text_by(values.octets))  # text of ours that may quote others, or be empty
PEERS = Kind(*values.text_by(values.of_peer))  # characters that are a peer's octets
WORDS = Kind(values.words_in_text, values.words_in_json)  # of ours


class Form:
    """The fields of one event, in their order."""

    __slots__ = ("_fields", "_json", "_text")

    def __init__(self, fields: Mapping[str, Kind]) -> None:
        self._fields = fields
        # What stands before each value, and the value's place; then what stands behind the last one.
        text: list[str] = []
        json: list[str] = []
        after = ""
        for key, kind in fields.items():
            text += [f" {key}=", ""]
            json += [f'{after},"{key}":{kind.around}', ""]
            after = kind.around
        json.append(after)
        self._text = (text, tuple(kind.in_text for kind in fields.values()))
        self._json = (json, tuple(kind.in_json for kind in fields.values()))

    def line(self, told: tuple[Any, ...], json: bool) -> str:
        """The fields with these values, in text or JSON.  Raises `TooLong` where one has to be cut."""
        pieces, shows = self._json if json else self._text
        whole = pieces.copy()
        whole[1::2] = map(call, shows, told)
        return "".join(whole)

    def fields(self, told: tuple[Any, ...]) -> dict[str, object]:
        """The values with their keys, as `EventLog.emit` takes them."""
        named = zip(self._fields.items(), told, strict=True)
        return {key: values.of_peer(value) if kind is PEERS else value for (key, kind), value in named}


Formed = tuple[Form, tuple[Any, ...]]
"""A form, and a value for each of its fields."""
