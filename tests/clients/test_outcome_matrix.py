"""Real senders, everything that can happen, TLS 1.2 and 1.3: outcome, `by`, level and metric of each cell.

`python -m tests.clients.outcomes` prints what was seen as a table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.outcomes import Cell, Table, cells, markdown, measure, usable, wrong

HERE = cells([*usable(Path())])


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    with tempfile.TemporaryDirectory(prefix="ehlo-outcomes-") as folder:
        yield measure(Path(folder))


@pytest.mark.parametrize("cell", HERE, ids=lambda cell: cell.route)
def test_it_is_told_as_it_was(table: Table, cell: Cell) -> None:
    came = table[cell]
    assert not wrong(cell, came), (came.ends, came.said)


def test_the_table_has_a_row_for_each_happening_and_a_column_for_each_sender(table: Table) -> None:
    head, _, *rows = markdown(table).splitlines()
    assert head.count("|") == 2 + len({cell.sender for cell in HERE})
    assert len(rows) == len({cell.what for cell in HERE})
