"""`files DIR`: lay out below a folder what belongs to the program: units, examples, monitoring, man pages, completions.

Nothing is overwritten: a file that is there with the same bytes is left alone; one with others is an error, told before
anything was written.

Exit codes: 0; 1 if it can't be done.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

import proxy
from proxy.tools.files.completions import completions
from proxy.tools.files.pages import pages

CARRIED = ("systemd", "config")  # top-level folders of a checkout; in a wheel they lie in proxy/data
LEFT_OUT = ("packaging", "sbom.cdx.json")  # of `config`: for whoever builds, not for whoever runs
SHELLS = {"ehlo-proxy": "bash", "_ehlo-proxy": "zsh", "ehlo-proxy.fish": "fish"}


def run(directory: str, out: TextIO, err: TextIO) -> int:
    """Write every file, one line each on `out`."""
    top = Path(directory)
    found = contents()
    different = [str(top / name) for name, data in found.items() if _differs(top / name, data)]
    if different:
        print(f"ehlo-proxy files: there already, with other contents: {', '.join(different)}", file=err)
        print("ehlo-proxy files: nothing was written; give a new folder, or move those away", file=err)
        return 1
    for name, data in found.items():
        path = top / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(data)
        except OSError as error:
            print(f"ehlo-proxy files: {path}: {error.strerror}", file=err)
            return 1
        print(path, file=out)
    return 0


def contents() -> dict[str, bytes]:
    """Every file by its path below the folder, in order."""
    found = {f"man/man{name.rpartition('.')[2]}/{name}": text.encode() for name, text in pages().items()}
    found |= {f"completions/{SHELLS[name]}/{name}": text.encode() for name, text in completions().items()}
    for folder in CARRIED:
        source = _source(folder)
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if path.is_file() and inside.parts[0] not in LEFT_OUT:
                found[os.fspath(Path(folder) / inside)] = path.read_bytes()
    return dict(sorted(found.items()))


def _source(folder: str) -> Path:
    """Where the program carries that folder: in the wheel, else beside the package in a checkout."""
    package = Path(proxy.__file__).parent
    inside = package / "data" / folder
    return inside if inside.is_dir() else package.parent / folder


def _differs(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() != data
    except FileNotFoundError:
        return False
    except OSError:
        return True
