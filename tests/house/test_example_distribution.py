"""A transport that is a distribution of its own, next to umbel's own wheel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "plugins" / "umbel-example"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

#: A program that knows nothing of transports but an address.
PROGRAM = """
import sys, umbel
with umbel.listen(sys.argv[1]) as listener:
    def answer():
        with umbel.accept(listener, umbel.within(10)) as stream:
            umbel.bsend(stream, umbel.brecv(stream, 5, umbel.within(10)).upper())
    with umbel.go(answer):
        with umbel.connect(listener.address, umbel.within(10)) as stream:
            umbel.bsend(stream, b"hello")
            print(umbel.brecv(stream, 5, umbel.within(10)).decode())
"""


def run(*command: object, folder: Path, **env: str) -> str:
    """Run a command, which must succeed; give what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", "COLUMNS": "200", **env},
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return done.stdout


def run_pip(*arguments: object, folder: Path) -> None:
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    run(*pip, *arguments, folder=folder)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build umbel's wheel and that of the example, by hatchling, without a network."""
    folder = tmp_path_factory.mktemp("wheels")
    options = ("--no-build-isolation", "--no-deps", "--no-index")
    run_pip("wheel", *options, "--wheel-dir", folder, ROOT, EXAMPLE, folder=folder)
    return folder


@pytest.fixture(scope="module")
def clean(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install both into an empty environment; give the folder of its programs."""
    place = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", place / "env", folder=place)
    python = place / "env" / "bin" / "python"
    names = ("--no-deps", "--no-index", *wheels.glob("*.whl"))
    run_pip("--python", python, "install", *names, folder=place)
    # What umbel depends on is taken from here, and nothing else is.
    borrowed = place / "borrowed"
    borrowed.mkdir()
    for name in ("greenlet", "pluggy"):
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        (borrowed / name).symlink_to(Path(found.origin).parent)
    (site,) = (place / "env" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(str(borrowed))
    return python.parent


def test_the_wheel_has_the_package_its_types_and_its_licence(wheels: Path) -> None:
    (wheel,) = wheels.glob("umbel_example-*.whl")

    names = run(sys.executable, "-m", "zipfile", "-l", wheel, folder=wheels)

    found = re.findall(r"^(\S*(?:umbel_example)\S*)", names, re.MULTILINE)
    assert {name for name in found if not name.endswith("RECORD")} == {
        "umbel_example/__init__.py",
        "umbel_example/py.typed",
        "umbel_example/transport.py",
        "umbel_example-0.1.0.dist-info/METADATA",
        "umbel_example-0.1.0.dist-info/WHEEL",
        "umbel_example-0.1.0.dist-info/entry_points.txt",
        "umbel_example-0.1.0.dist-info/licenses/LICENSE",
    }


def test_it_is_found_next_to_umbel_in_an_empty_environment(
    clean: Path, tmp_path: Path
) -> None:
    code = "import umbel, umbel_example; print(umbel.__file__, umbel_example.__file__)"
    places = run(clean / "python", "-c", code, folder=tmp_path).split()
    listed = run(clean / "umbel", "transports", folder=tmp_path)

    assert all(str(clean.parent) in place for place in places)
    assert re.search(r"^example +umbel-example 0\.1\.0 +loaded$", listed, re.MULTILINE)


@pytest.mark.parametrize(
    "address",
    ["ipc:{folder}/x.sock", "mem://x", "tcp://127.0.0.1:0", "example://x"],
    ids=["ipc", "mem", "tcp", "example"],
)
def test_a_program_changes_from_one_transport_to_another_by_its_address_alone(
    clean: Path, tmp_path: Path, address: str
) -> None:
    where = address.format(folder=tmp_path)

    assert run(clean / "python", "-c", PROGRAM, where, folder=tmp_path) == "HELLO\n"


def test_it_passes_umbel_check_there(clean: Path, tmp_path: Path) -> None:
    command = (clean / "umbel", "check", "example", "--driver", "coroutines", "--json")

    report = json.loads(run(*command, folder=tmp_path))

    states = [result["state"] for result in report["behaviours"]]
    assert report["source"] == "umbel-example 0.1.0"
    assert report["passed"] is True
    assert states.count("passed") > 60


def test_its_own_tests_pass(wheels: Path, tmp_path: Path) -> None:
    (wheel,) = wheels.glob("umbel_example-*.whl")
    run_pip(
        *("install", "--no-deps", "--no-index", "--target", tmp_path / "there", wheel),
        folder=tmp_path,
    )
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")

    told = run(*pytest_, folder=EXAMPLE, PYTHONPATH=str(tmp_path / "there"))

    last = told.splitlines()[-1]
    assert int(re.findall(r"(\d+) passed", last)[0]) > 100
    assert "failed" not in last


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_its_types_are_strict(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "mypy", "--cache-dir", tmp_path)

    assert "Success" in run(*command, folder=EXAMPLE)


def test_the_example_of_its_readme_runs(clean: Path, tmp_path: Path) -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL
    )
    promised = re.findall(r"# prints (.*)", code)

    printed = run(clean / "python", "-W", "error", "-c", code, folder=tmp_path)

    assert printed.splitlines() == promised
