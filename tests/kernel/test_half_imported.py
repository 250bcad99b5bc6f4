"""A wait in one thread, while another is amidst the import of a loop's package."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import umbel
from umbel._kernel.loops import running_loop


@pytest.mark.parametrize("name", ["asyncio", "trio", "trio.lowlevel"])
def test_a_package_that_is_half_imported_runs_no_loop(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    package, _, part = name.partition(".")
    half = ModuleType(package)
    if part:
        setattr(half, part, ModuleType(name))
        monkeypatch.setitem(sys.modules, name, getattr(half, part))
    monkeypatch.setitem(sys.modules, package, half)

    assert running_loop() == ""
    umbel.msleep(umbel.now() + 1)
