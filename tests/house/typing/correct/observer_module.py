"""A plugin that watches, and is a module."""

from __future__ import annotations

import sys

import umbel
from umbel.plugins import add_plugin, remove_plugin
from umbel.spi import CloseContext, CloseReport, Wrapped, hookimpl

seen: list[int] = []


@hookimpl.start
def begin() -> None:
    seen.clear()


@hookimpl.close.wrapper
def closing(context: CloseContext) -> Wrapped[CloseReport]:
    seen.append(context.handle)
    return (yield)


def main() -> None:
    add_plugin(sys.modules[__name__], "watching")
    left, right = umbel.pair("mem")
    right.done()
    umbel.close(left)
    umbel.hclose(right)
    remove_plugin("watching")
    assert seen == [int(left)]


if __name__ == "__main__":
    main()
