"""What type checkers say of programs that use umbel: right ones and wrong ones.

A line of a wrong program that ends with `# error` must be reported by each checker,
and no other line may be; `# error: mypy` is one that only mypy can see, and says why.
"""

from __future__ import annotations

import builtins
import collections.abc
import importlib
import inspect
import json
import re
import subprocess
import sys
import typing
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import run_python

FOLDER = Path(__file__).parent / "typing"
MARK = re.compile(r"# error(?:: (?P<only>\w+))?$")

#: What a checker reports: its messages by file and line.
Reports = dict[tuple[str, int], list[str]]


def programs(kind: str) -> list[str]:
    return sorted(f"{kind}/{path.name}" for path in (FOLDER / kind).glob("*.py"))


def run_checker(*command: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=240,
    )
    # 1: something was reported. More: the checker itself has failed.
    assert result.returncode <= 1, result.stdout + result.stderr
    return result.stdout


@cache
def ask_mypy() -> Reports:
    found: Reports = defaultdict(list)
    lines = run_checker(
        "mypy",
        "--config-file=mypy.ini",
        "--output=json",
        "--cache-dir=../../.mypy_cache/typing",
        "correct",
        "wrong",
    ).splitlines()
    for report in map(json.loads, lines):
        found[report["file"], report["line"]].append(report["message"])
    return found


@cache
def ask_basedpyright() -> Reports:
    found: Reports = defaultdict(list)
    output = run_checker(
        "basedpyright", "--project=.", "--outputjson", f"--pythonpath={sys.executable}"
    )
    for report in json.loads(output)["generalDiagnostics"]:
        file = Path(report["file"]).relative_to(FOLDER.resolve())
        line = report["range"]["start"]["line"] + 1
        found[str(file), line].append(report["message"])
    return found


CHECKERS = {"mypy": ask_mypy, "basedpyright": ask_basedpyright}


@pytest.fixture(params=sorted(CHECKERS))
def checker(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    pytest.importorskip(name)
    return name


def marked_lines(program: str) -> list[tuple[int, str | None]]:
    lines = (FOLDER / program).read_text().splitlines()
    found = ((number, MARK.search(line)) for number, line in enumerate(lines, 1))
    return [(number, mark["only"]) for number, mark in found if mark]


def marks() -> list[tuple[str, int, str]]:
    return [
        (program, line, name)
        for program in programs("wrong")
        for line, only in marked_lines(program)
        for name in sorted(CHECKERS)
        if only in (None, name)
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", programs("correct"))
def test_a_correct_program_is_not_complained_of(checker: str, program: str) -> None:
    reports = {
        line: said
        for (file, line), said in CHECKERS[checker]().items()
        if file == program
    }

    assert reports == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("program", "line", "name"),
    marks(),
    ids=[f"{program}-{line}-{name}" for program, line, name in marks()],
)
def test_a_mistake_is_reported(program: str, line: int, name: str) -> None:
    pytest.importorskip(name)

    assert (program, line) in CHECKERS[name](), (
        (FOLDER / program).read_text().splitlines()[line - 1]
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", programs("wrong"))
def test_nothing_but_the_mistakes_is_reported(checker: str, program: str) -> None:
    mistakes = {line for line, only in marked_lines(program) if only in (None, checker)}
    reports = {
        line: said
        for (file, line), said in CHECKERS[checker]().items()
        if file == program and line not in mistakes
    }

    assert mistakes
    assert reports == {}


def test_every_mark_is_read() -> None:
    for program in programs("wrong"):
        said = (FOLDER / program).read_text().count("# error")
        assert said == len(marked_lines(program)), program
        assert {only for _, only in marked_lines(program)} <= {None, *CHECKERS}


@pytest.mark.parametrize("program", programs("correct"))
def test_a_correct_program_runs(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert run_python((FOLDER / program).read_text()) == ""


#: They lead into the kernel, which is private, and whose types are inferred.
PRIVATE = {
    "Readiness",
    "StreamAttempts",
    "ListenerAttempts",
    "StreamProxy",
    "StreamTransport",
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", ["umbel", "umbel.spi", "umbel.typing"])
def test_the_type_of_every_public_name_is_the_same_to_all_checkers(module: str) -> None:
    pytest.importorskip("basedpyright")
    names = importlib.import_module(module).__all__
    output = run_checker(
        "basedpyright",
        f"--pythonpath={sys.executable}",
        "--ignoreexternal",
        "--outputjson",
        f"--verifytypes={module}",
    )
    symbols = {
        symbol["name"]: symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]
        for symbol in json.loads(output)["typeCompleteness"]["symbols"]
    }

    # An alias, such as `umbel.query`, is listed by the name of what it stands for.
    listed = {name for name in names if f"{module}.{name}" in symbols}
    assert len(listed) > 0.9 * len(names)
    assert {name for name in listed if not symbols[f"{module}.{name}"]} <= PRIVATE


#: Where a program finds the names that it writes down.
PUBLIC = [
    "umbel",
    "umbel.aio",
    "umbel.bridges",
    "umbel.spi",
    "umbel.testing",
    "umbel.testing.conformance",
    "umbel.typing",
]
#: Names that signatures mention, and a program has no use for, or has from elsewhere.
INTERNAL = {"Hub", "Watch", "Job", "Ends"}


def annotations_of(found: object) -> Iterator[str]:
    """Give the annotations of a function, or of a class's methods and fields."""
    if inspect.isclass(found):
        for name, annotation in inspect.get_annotations(found).items():
            if not name.startswith("_"):
                yield str(annotation)
        for name, member in vars(found).items():
            if not name.startswith("_"):
                yield from annotations_of(getattr(member, "fget", member))
    elif inspect.isfunction(found):
        yield from map(str, found.__annotations__.values())


def test_every_type_that_a_public_signature_mentions_can_be_imported() -> None:
    pytest.importorskip("anyio")
    modules = [importlib.import_module(name) for name in PUBLIC]
    known = {name for module in modules for name in module.__all__}
    known |= {*dir(builtins), *typing.__all__, *collections.abc.__all__, *INTERNAL}
    missing: dict[str, str] = {}
    for module in modules:
        for public in module.__all__:
            for annotation in annotations_of(getattr(module, public)):
                for name in re.findall(r"(?<![\w.])[A-Z]\w+", annotation):
                    if name not in known and not re.fullmatch("[A-Z]_co(ntra)?", name):
                        missing[name] = f"{module.__name__}.{public}"

    assert missing == {}


def test_names_for_annotations_are_there_at_run_time_and_cost_umbel_nothing() -> None:
    code = """
import sys, umbel
assert "umbel.typing" not in sys.modules
assert "umbel.values.protocols" not in sys.modules
sys.modules["anyio"] = None
from umbel.typing import *
assert issubclass(StreamTransport, object)
print(isinstance(b"", Buffer), isinstance(bytearray(), WritableBuffer))
try:
    from umbel.typing import Nothing
except ImportError as error:
    print(error.name)
"""
    assert run_python(code) == "True True\numbel.typing\n"
