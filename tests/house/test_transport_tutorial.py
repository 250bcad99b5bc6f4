"""docs/howto/transport.md, carried out: its files written, its commands run in order.

```toml title="pyproject.toml"    a file of the folder
```sh run                         commands, in the order of the page, which succeed
```sh run fails                   commands that exit with 1
```text output                    lines that the last commands print, in this order
```sh                             needs a network, or was done by this test
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "transport.md"
BLOCK = re.compile(r"^```(\w+)(?: (.+))?\n((?:.*\n)*?)```$", re.MULTILINE)
#: Commands of the page that run as modules, so that they are the environment's own.
MODULES = ("pip", "umbel", "pytest", "mypy")


class Block(NamedTuple):
    language: str
    what: str
    content: str

    @property
    def title(self) -> str | None:
        found = re.fullmatch(r'title="(.+)"', self.what)
        return found[1] if found else None


def blocks() -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(PAGE.read_text())]


def make_environment(folder: Path) -> Mapping[str, str]:
    """Make a virtual environment that has what ours has; give its variables."""
    venv.create(folder, with_pip=False)
    ours = sysconfig.get_path("purelib")
    (site,) = folder.glob("lib/python*/site-packages")
    # addsitedir, so that umbel's own editable install is found from there as well.
    (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    scripts = folder / "bin"
    for name in MODULES:
        script = scripts / name
        script.write_text(f'#!/bin/sh\nexec "{scripts}/python" -m {name} "$@"\n')
        script.chmod(0o755)
    # What steers this run of the tests is nothing that a reader has.
    ours_alone = ("PIP_", "COV", "UMBEL_", "PYTEST_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours_alone)}
    return {
        **kept,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(folder),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INDEX": "1",
    }


def run(script: str, folder: Path, env: Mapping[str, str], status: int) -> str:
    """Run the commands of one block; give what they printed."""
    result = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert result.returncode == status, f"{script}\n{result.stdout}"
    return result.stdout


def require_lines(promised: str, printed: str) -> None:
    """Check that the lines that the page promises were printed, in their order."""
    lines = iter(printed.splitlines())
    for line in promised.splitlines():
        wanted = re.compile(".*".join(map(re.escape, line.split("…"))))
        assert any(map(wanted.search, lines)), f"{line!r} not in:\n{printed}"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_tutorial_can_be_followed_to_its_end(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    pytest.importorskip("mypy")
    env = make_environment(tmp_path / "venv")
    folder = tmp_path / "umbel-child"
    printed = ""
    found = blocks()
    scripts = [block.content for block in found if block.language == "sh"]
    assert len(scripts) > 5

    for block in found:
        if block.title is not None:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.content)
        elif block.what.startswith("run"):
            status = 1 if block.what == "run fails" else 0
            printed = run(block.content, folder, env, status)
        elif block.what == "output":
            require_lines(block.content, printed)


def test_the_transport_of_the_tutorial_is_short() -> None:
    sizes = [
        len(block.content.splitlines())
        for block in blocks()
        if block.title == "umbel_child/__init__.py"
    ]

    assert len(sizes) == 2
    assert max(sizes) < 80


def test_all_blocks_of_the_page_are_of_a_known_kind() -> None:
    known = ("", "run", "run fails", "output")
    unknown = [b.what for b in blocks() if b.what not in known and b.title is None]

    assert unknown == []
    assert PAGE.read_text().count("```") == 2 * len(blocks())
