"""Write reference.md from the docstrings: `python docs/make_reference.py`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from types import ModuleType

import umbel
from umbel import aio, bridges, spi, testing, typing
from umbel.testing import conformance, pytest_plugin

PAGE = Path(__file__).with_name("reference.md")

BEGINNING = """\
# Reference

Made from the docstrings by `docs/make_reference.py`.

A deadline is an `int`: milliseconds on the clock of `now`; -1 waits for ever;
0, or any moment that has passed, tries once.

Parts: [umbel](#umbel), [umbel.aio](#umbelaio-for-asyncio-and-trio),
[umbel.bridges](#umbelbridges-to-what-others-wrote),
[umbel.testing](#umbeltesting-for-tests), [umbel.spi](#umbelspi-for-transports),
[umbel.typing](#umbeltyping-for-annotations).
"""


def _text(name: str, found: object) -> str:
    text = inspect.getdoc(found) or ""
    twin = getattr(umbel, name, None)
    if found is not twin and text == inspect.getdoc(twin):
        first, *_ = text.splitlines()
        return f"{first}\n\nAs `umbel.{name}`, awaited."
    return text


def _signature(function: Callable[..., object], *, of_method: bool = False) -> str:
    # Annotations are strings, which Python shows with quotes.
    found = inspect.signature(function)
    if of_method:
        _self, *others = found.parameters.values()
        found = found.replace(parameters=others)
    text = str(found)
    return re.sub(r"(: |-> )(['\"])(.*?)\2", r"\1\3", text)


def _methods(found: type) -> list[tuple[str, object]]:
    """Give what a class and its bases of ours define for others, in their order."""
    members = {
        name: member
        for base in reversed(found.__mro__)
        if base.__module__.startswith("umbel")
        for name, member in vars(base).items()
        if not name.startswith("_")
    }
    return [
        (name, getattr(member, "__wrapped__", member))
        for name, member in members.items()
        if isinstance(member, (property, classmethod, staticmethod))
        or inspect.isfunction(member)
    ]


def _method(name: str, member: object) -> str:
    heading = name
    if inspect.isfunction(member):
        heading += _signature(member, of_method=True)
    if inspect.iscoroutinefunction(member):
        heading = f"await {heading}"
    return heading + "\n" + indent(inspect.getdoc(member) or "", "    ") + "\n"


def _section(prefix: str, name: str, found: object) -> str:
    heading = f"{prefix}{name}"
    if inspect.isfunction(found):
        heading += _signature(found)
    if inspect.iscoroutinefunction(found):
        heading = f"await {heading}"
    text = f"### `{heading}`\n\n```text\n{_text(name, found)}\n```\n"
    if inspect.isclass(found) and (methods := _methods(found)):
        listed = "\n".join(_method(*method) for method in methods)
        text += f"\n```text\n{listed}```\n"
    return text


def _chapter(
    module: ModuleType, title: str, prefix: str = "", known: ModuleType | None = None
) -> list[str]:
    """Give the functions and classes of a module, without those that are known."""
    parts = [f"## {title}\n"]
    if module is not umbel:
        parts.append(f"```text\n{inspect.getdoc(module)}\n```\n")
    for name in module.__all__:
        found = getattr(module, name)
        is_known = known is not None and name in known.__all__
        is_ours = getattr(found, "__module__", "").startswith("umbel")
        is_shown = inspect.isfunction(found) or inspect.isclass(found)
        if is_ours and is_shown and not is_known:
            parts.append(_section(prefix, name, found))
    return parts


def make_reference() -> str:
    """Give the page as it should be."""
    parts = [
        BEGINNING,
        *_chapter(umbel, "`umbel`"),
        *_chapter(aio, "`umbel.aio`, for asyncio and trio", "aio."),
        *_chapter(bridges, "`umbel.bridges`, to what others wrote"),
        *_chapter(testing, "`umbel.testing`, for tests"),
        *_chapter(conformance, "`umbel.testing.conformance`, the kit"),
        "## `umbel.testing.pytest_plugin`, the kit under pytest\n",
        f"```text\n{inspect.getdoc(pytest_plugin)}\n```\n",
        *_chapter(spi, "`umbel.spi`, for transports", known=umbel),
        *_chapter(typing, "`umbel.typing`, for annotations"),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(make_reference())
