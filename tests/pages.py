"""The blocks of README and docs/: what a reader is told to type, and who runs it here.

A block in `sh` is a script, one in `console` has prompts (`$ `, `# `) and what is said; the others are no commands.
A block that nobody runs says so where it stands, in a line of its own: `# untried: why`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "SECURITY.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in (TOP / "docs").glob("*.md"))]
COMMANDS = {"sh", "console"}
OTHERS = {"toml", "python", "text"}


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    heading: str
    language: str
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """The page and the block's first command."""
        lines = self.commands or self.text.splitlines()
        return self.page, lines[0]

    @property
    def commands(self) -> list[str]:
        """Its lines that are typed, without prompts and comments."""
        if self.language == "console":
            typed = [line[2:] for line in self.text.splitlines() if line[:2] in ("$ ", "# ")]
            return [line for line in typed if not line.startswith("untried: ")]
        lines = re.sub(r"\\\n *", "", self.text).splitlines()
        return [re.sub(r"  +# .*", "", line) for line in lines if line and not line.startswith("# ")]

    @property
    def untried(self) -> str:
        """Why nobody runs it, or empty."""
        found = re.search(r"^# untried: (.+)$", self.text, re.MULTILINE)
        return found[1] if found else ""


def blocks(page: str) -> list[Block]:
    """All of a page's fenced blocks, in order."""
    found, heading = [], ""
    for title, language, text in re.findall(
        r"^#+ (.+)$|^```(.*)\n((?:.*\n)*?)```$", (TOP / page).read_text(), re.MULTILINE
    ):
        if title:
            heading = title
        else:
            found.append(Block(page, heading, language, text))
    return found


def block(page: str, start: str) -> Block:
    """The one that somebody runs and whose first command begins so."""
    tried = [one for one in blocks(page) if one.language in COMMANDS and not one.untried]
    (found,) = [one for one in tried if one.key[1].startswith(start)]
    return found
