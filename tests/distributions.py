"""Distributions that tests make, and have pip install: no network, no build."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TRANSPORTS = "umbel.transports.v1"
PLUGINS = "umbel.plugins.v1"


class Distribution(NamedTuple):
    """One module, and the entry point that leads to it.

    Attributes:
        name: of the distribution; its module has `_` for `-`.
        entry: name of the entry point: a scheme, or that of a plugin.
        code: of the module, which is to have the object `transport`.
        group: of the entry point.
    """

    name: str
    entry: str
    code: str
    group: str = TRANSPORTS

    @property
    def module(self) -> str:
        """What is imported."""
        return self.name.replace("-", "_")


def make_wheel(distribution: Distribution, folder: Path) -> Path:
    """Write the wheel of a distribution into *folder*."""
    name, module = distribution.name, distribution.module
    info = f"{module}-1.0.dist-info"
    files = {
        f"{module}.py": distribution.code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[{distribution.group}]\n"
        f"{distribution.entry} = {module}:transport\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in files)
    wheel = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def install(wheels: Sequence[Path], folder: Path) -> None:
    """Have pip install *wheels* into *folder*, with nothing that they depend on."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"),
            *("install", "--no-deps", "--no-index", "--no-compile"),
            *("--target", str(folder), *map(str, wheels)),
        ],
        check=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
