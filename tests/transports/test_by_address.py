"""A program changes its transport by the address alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "any_transport.py"
EXAMPLE = ROOT / "plugins" / "umbel-example"

ADDRESSES = (
    "ipc:{folder}/echo.sock",
    "ipc:@umbel-by-address-{pid}",
    "mem://echo",
    "tcp://127.0.0.1:0",
    "tcp://localhost:0",
    "example://echo",
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give one in which umbel-example is installed, as far as umbel looks."""
    info = tmp_path / "installed" / "umbel_example-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: umbel-example\nVersion: 0.1.0\n"
    )
    (info / "entry_points.txt").write_text(
        "[umbel.transports.v1]\nexample = umbel_example.transport:transport\n"
    )
    path = os.pathsep.join([str(info.parent), str(EXAMPLE)])
    return {**os.environ, "PYTHONPATH": path}


def run(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    found = subprocess.run(
        [sys.executable, "-X", "dev", str(PROGRAM), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return found.returncode, found.stdout, found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("template", ADDRESSES)
def test_one_program_runs_unchanged_over_any_transport(
    template: str, environment: dict[str, str], tmp_path: Path
) -> None:
    address = template.format(folder=tmp_path, pid=os.getpid())

    code, out, errors = run(environment, address)

    scheme = address.partition(":")[0]
    assert (code, out) == (0, f"3 times 1048576 bytes and back over {scheme}\n")
    assert errors == ""  # no warning of anything that was left open
    assert not (tmp_path / "echo.sock").exists()


def test_the_program_names_no_transport_but_its_default() -> None:
    code = PROGRAM.read_text().split('"""', 2)[2]

    named = [name for name in ("ipc", "tcp", "example") if name in code]
    # Of tcp a comment tells what its listener's address is good for.
    assert (named, code.count("tcp"), code.count("mem")) == (["tcp"], 1, 1)


def test_an_address_of_no_transport_is_told_as_such(
    environment: dict[str, str],
) -> None:
    code, out, errors = run(environment, "quic://127.0.0.1:0")

    assert (code, out) == (1, "")
    assert "no transport for 'quic' is installed: there is" in errors


@pytest.mark.parametrize("blocked", ["ipc", "mem", "tcp", "example"])
def test_blocking_one_scheme_leaves_the_others(
    blocked: str, environment: dict[str, str]
) -> None:
    other = "mem" if blocked != "mem" else "example"
    environment["UMBEL_DISABLE"] = blocked

    code, _, errors = run(environment, f"{blocked}://echo")
    assert code == 1
    assert f"the transport '{blocked}' is blocked here" in errors
    assert run(environment, f"{other}://echo")[0] == 0
