"""Text as roff(7) for man(7) pages: what is special there is escaped, so that any text comes out as it went in."""

from __future__ import annotations

from collections.abc import Iterable


def escaped(text: str) -> str:
    """One line of text; hyphens stay hyphens that can be copied, and a dot or a quote in front is no request."""
    line = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga").replace("~", "\\(ti")
    )
    return f"\\&{line}" if line.startswith((".", "\\(aq")) else line


def title(name: str, section: int, version: str, date: str, about: str) -> list[str]:
    """The head of a page, with its NAME section; `date` is YYYY-MM-DD."""
    head = f'.TH {escaped(name).upper()} {section} "{date}" "ehlo\\-proxy {version}"'
    # Ragged on the right, no word parted: at 80 columns options and addresses would be torn apart.
    return [head, ".ad l", ".nh", ".SH NAME", f"{escaped(name)} \\- {escaped(about)}"]


def page(lines: list[str]) -> str:
    """The whole of it; a heading begins a paragraph by itself."""
    kept = [line for before, line in zip(["", *lines], lines, strict=False) if (before[:3], line) != (".SH", ".PP")]
    return "\n".join(kept) + "\n"


def section(name: str) -> str:
    """The heading of a section."""
    return f'.SH "{escaped(name)}"'


def paragraphs(text: str) -> list[str]:
    """Blank lines part paragraphs; the rest is filled anew."""
    lines: list[str] = []
    for part in text.strip().split("\n\n"):
        lines += [".PP", escaped(" ".join(part.split()))]
    return lines


def literal(lines: Iterable[str]) -> list[str]:
    """Lines that stay as they are, set apart."""
    return [".PP", ".RS 4", ".EX", *(escaped(line) or "\\&" for line in lines), ".EE", ".RE"]


def tagged(tag: str, *text: str) -> list[str]:
    """A bold tag, and what it means, indented; further texts are paragraphs of their own."""
    lines = [".TP", f"\\fB{escaped(tag)}\\fR"]
    for number, one in enumerate(text):
        lines += [".IP"] if number else []
        lines.append(escaped(" ".join(one.split())))
    return lines
