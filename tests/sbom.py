"""A lock file in, its software bill of materials out: `python tests/sbom.py requirements.lock`.

CycloneDX 1.6, JSON. Deterministic: no date, and a serial number that is made from the lock's bytes, so the same lock
gives the same bill. A component's hashes are those of every file of its release (wheels of all platforms, the sdist).
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[A-Za-z0-9._,-]+\])?==(?P<version>[^ ;\\]+)(?: *; *(?P<marker>[^\\]*?))? *\\?$"
)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
NAMESPACE = uuid.UUID("6f2d3c1e-2d6b-4c55-9d1b-0f2f1a6f7a10")


@dataclass(slots=True)
class Pin:
    """One release of the lock; `via` names what asked for it."""

    name: str
    version: str
    marker: str
    hashes: list[str] = field(default_factory=list)
    via: list[str] = field(default_factory=list)

    @property
    def reference(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(text: str) -> list[Pin]:
    """The pins of a lock, in its order. Raises ValueError for a line that is none of what a lock holds."""
    pins: list[Pin] = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if pinned := PINNED.match(line):
            pins.append(Pin(pinned["name"].lower(), pinned["version"], (pinned["marker"] or "").strip()))
        elif found := HASH.search(line):
            pins[-1].hashes.append(found[1])
        elif bare.startswith("#"):
            said = bare.lstrip("# ").removeprefix("via").strip()
            if pins and said:
                pins[-1].via.append(said.split()[0])
        elif bare:
            raise ValueError(f"line {number}: {line!r}")
    return pins


def bill(lock: str) -> dict[str, object]:
    """The bill of materials of the lock."""
    pins = read_lock(lock)
    root = "pkg:pypi/ehlo-proxy"
    needs: dict[str, list[str]] = {root: [], **{pin.reference: [] for pin in pins}}
    references = {pin.name: pin.reference for pin in pins} | {"ehlo-proxy": root}
    for pin in pins:
        for parent in pin.via:
            if parent in references:
                needs[references[parent]].append(pin.reference)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, lock)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": "ehlo-proxy",
                "purl": root,
                "licenses": [{"license": {"id": "MIT"}}],
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": pin.reference,
                "name": pin.name,
                "version": pin.version,
                "purl": pin.reference,
                "scope": "required",
                "hashes": [{"alg": "SHA-256", "content": one} for one in pin.hashes],
                **({"properties": [{"name": "python:marker", "value": pin.marker}]} if pin.marker else {}),
            }
            for pin in pins
        ],
        "dependencies": [{"ref": ref, "dependsOn": sorted(found)} for ref, found in needs.items()],
    }


if __name__ == "__main__":
    print(json.dumps(bill(Path(sys.argv[1]).read_text()), indent=1))
