"""Write reference.md from the docstrings: `python docs/make_reference.py`."""

from __future__ import annotations

import inspect
from pathlib import Path

import umbel
from umbel import spi

PAGE = Path(__file__).with_name("reference.md")


def _section(name: str, found: object) -> str:
    text = inspect.getdoc(found) or ""
    heading = f"### `{name}`"
    if inspect.isfunction(found):
        heading = f"### `{name}{inspect.signature(found)}`"
    return f"{heading}\n\n```text\n{text}\n```\n"


def _own(module: object, names: list[str], known: set[str]) -> list[str]:
    return [
        _section(name, getattr(module, name))
        for name in names
        if name not in known
        and (inspect.isfunction(f := getattr(module, name)) or inspect.isclass(f))
    ]


def make_reference() -> str:
    """Give the page as it should be."""
    parts = [
        "# Reference\n\nMade from the docstrings by `docs/make_reference.py`.\n\n"
        "A deadline is an `int`: milliseconds on the clock of `now`; -1 waits for ever;"
        "\n0, or any moment that has passed, tries once.\n\n## `umbel`\n",
        *_own(umbel, umbel.__all__, set()),
        "## `umbel.spi`, for transports\n",
        f"```text\n{inspect.getdoc(spi)}\n```\n",
        *_own(spi, spi.__all__, set(umbel.__all__)),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(make_reference())
