"""The settings: what the configuration file may say, and what its keys mean together.

`load` reads a file and looks at what it names on this host, `parse` judges a text alone, `from_arguments` the command
line of `run`.  All of them raise `SettingsError` with every problem at once and nothing else, whatever the bytes.
`tables` declares every key with its check, its default and its meaning.  This room knows no other of ours.
"""

from proxy.settings.loading import examine, from_arguments, load, parse
from proxy.settings.problems import Problem, SettingsError, Warning_
from proxy.settings.reading import Key, declared
from proxy.settings.tables import TABLES, Admin, Log, Record, Repair, Route, Service, Settings, Timeouts, Tls
from proxy.settings.values import Address, Destination, Endpoint, Listen, Network
from proxy.settings.warnings import warnings

__all__ = [
    "TABLES", "Address", "Admin", "Destination", "Endpoint", "Key", "Listen", "Log", "Network", "Problem", "Record",
    "Repair", "Route", "Service", "Settings", "SettingsError", "Timeouts", "Tls", "Warning_", "declared", "examine",
    "from_arguments", "load", "parse", "warnings",
]  # fmt: skip
