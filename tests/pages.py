"""Reading the tables of a page."""

from __future__ import annotations

import re


def rows(text: str, heading: str) -> list[list[str]]:
    """Give the rows of the table under *heading*."""
    table = text.split(heading + "\n", 1)[1].split("\n| --- ", 1)[1]
    lines = table.split("\n\n", 1)[0].splitlines()[1:]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines
    ]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)
