"""The programs in C, compiled when first asked for."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


def compiler() -> str | None:
    """Find a C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="umbel-benchmarks-")


@cache
def program(name: str) -> Path | None:
    """Compile NAME.c of this folder; None if there is no compiler."""
    found = compiler()
    if found is None:
        return None
    target = Path(_folder().name) / name
    source = HERE / f"{name}.c"
    subprocess.run([found, "-O2", "-o", target, source], check=True)
    return target
