"""The benchmark's table: a measure a row, the values of each contender round by round, ratios taken within a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(slots=True)
class Row:
    """One line of the table: the values of each contender, round by round."""

    what: str
    unit: str
    against: str
    goal: float
    values: dict[str, list[float]] = field(default_factory=dict)
    absolute: bool = False  # the goal is for the value itself, not for a ratio

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def ratios(self, name: str, against: str = "") -> list[float]:
        if self.absolute:
            return self.values.get(name, [])
        ours, theirs = self.values.get(name, []), self.values.get(against or self.against, [])
        return [one / other for one, other in zip(ours, theirs, strict=False) if other]

    def shown(self, name: str) -> str:
        values = self.values.get(name)
        return f"{median(values):.{0 if median(values) >= 20 else 2}f}" if values else ""

    def cell(self, name: str) -> str:
        """A build's value, and its ratio."""
        ratios = self.ratios(name)
        told = f" ({median(ratios):.2f} ×)" if ratios and not self.absolute else ""
        return self.shown(name) + told

    def markdown(self, builds: Sequence[str], subject: str) -> str:
        """`subject` is the build that the goals are for."""
        ratios = self.ratios(subject)
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "not measured"
        met = "" if not ratios or not self.goal else ("yes" if median(ratios) <= self.goal else "**no**")
        others = ", ".join(f"{o} {self.cell(o)}" for o in self.values if o not in (*builds, self.against))
        goal = f"{self.goal:g}" if self.goal else ""
        against = f"{self.against} {self.shown(self.against)}" if self.against else ""
        cells = " | ".join(self.cell(one) for one in builds)
        return f"| {self.what} | {self.unit} | {against} | {cells} | {ratio} | {goal} | {met} | {others} |"


def header(builds: Sequence[str], subject: str) -> str:
    """The table's first two lines."""
    named = ["measure", "unit", "against", *builds, f"{subject}: median (range)", "goal", "met", "others"]
    return f"| {' | '.join(named)} |\n|{'---|' * len(named)}"


def table(rows: Sequence[Row], builds: Sequence[str], subject: str) -> str:
    """All of it, in Markdown."""
    return "\n".join([header(builds, subject), *(row.markdown(builds, subject) for row in rows)])
