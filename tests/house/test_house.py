"""The house itself: imports, docstrings, packaging, and that the README tells truth."""

from __future__ import annotations

import inspect
import os
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import umbel
from tests.support import run_python
from umbel import aio, bridges

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def functions_of(module: object, names: list[str]) -> dict[str, Callable[..., object]]:
    return {
        name: found
        for name in names
        if inspect.isfunction(found := getattr(module, name))
    }


FUNCTIONS = functions_of(umbel, umbel.__all__)
TWINS = functions_of(aio, aio.__all__)
WAITING = [
    name
    for name, function in FUNCTIONS.items()
    if "deadline" in inspect.signature(function).parameters
]
#: By where they are documented: each must tell what its parameters bring.
DOCUMENTED = {f"umbel.{name}": function for name, function in FUNCTIONS.items()} | {
    f"umbel.aio.{name}": function for name, function in TWINS.items()
}


def test_importing_umbel_imports_neither_pluggy_nor_asyncio_nor_a_transport() -> None:
    code = """
import sys
before = set(sys.modules)
import umbel
for name in ("pluggy", "asyncio", "umbel_transports", "importlib.metadata", "logging",
             "argparse", "inspect", "dataclasses", "concurrent.futures", "json"):
    if name in sys.modules and name not in before:
        print(name)
"""
    assert run_python(code) == ""


def test_on_a_free_threaded_build_umbel_warns_when_it_is_imported() -> None:
    code = """
import sys, warnings
sys.abiflags = "t"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import umbel
print(*[warning.message for warning in caught])
"""
    assert "use the usual build" in run_python(code)


def test_importing_umbel_has_typing_compile_no_annotations() -> None:
    code = """
import selectors, socket, sys, typing
def look(event, arguments):
    if event == "compile" and arguments[1] == "<string>":
        # One cheap line of each named tuple's is compiled by its maker.
        assert b"_tuple_new" in arguments[0], arguments[0]
sys.addaudithook(look)
import umbel
"""
    run_python(code)


def test_every_public_name_exists_and_is_listed_once() -> None:
    assert len(set(umbel.__all__)) == len(umbel.__all__)
    for name in umbel.__all__:
        assert getattr(umbel, name) is not None


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_a_function_documents_the_errors_that_its_parameters_bring(name: str) -> None:
    text = inspect.getdoc(DOCUMENTED[name]) or ""
    parameters = inspect.signature(DOCUMENTED[name]).parameters
    twin = re.search(r"as `((?:umbel\.|ipc_)\w+)`", text.split("Args:")[0])
    if twin:
        assert twin[1].removeprefix("umbel.") in FUNCTIONS  # that one tells
        return

    if "deadline" in parameters and "never needed here" not in text:
        assert "Canceled: ECANCELED" in text
        if not name.endswith(".msleep"):
            assert "DeadlineError: ETIMEDOUT" in text
    if "handle" in parameters:
        assert "BadHandleError: EBADF" in text
    assert "Source:" in text


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_who_can_block_has_the_deadline_last(name: str) -> None:
    parameters = list(inspect.signature(DOCUMENTED[name]).parameters.values())
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    if "deadline" in positional:
        assert positional[-1] == "deadline"


@pytest.mark.parametrize("name", sorted(WAITING))
def test_what_can_wait_has_an_awaitable_twin_of_the_same_parameters(name: str) -> None:
    ours, twin = FUNCTIONS[name], TWINS[name]

    assert inspect.iscoroutinefunction(twin)
    assert shape(twin) == shape(ours)


def shape(function: Callable[..., object]) -> list[tuple[str, object, object]]:
    """Give names, kinds and defaults of the parameters: their types may differ."""
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters]


def test_what_has_a_twin_and_never_waits_is_a_plain_function() -> None:
    for name in set(TWINS) & set(FUNCTIONS) - set(WAITING):
        assert not inspect.iscoroutinefunction(TWINS[name]), name
        assert shape(TWINS[name]) == shape(FUNCTIONS[name]), name


@pytest.mark.parametrize("part", [aio, bridges], ids=["aio", "bridges"])
def test_every_public_name_of_a_part_exists_and_is_listed_once(
    part: ModuleType,
) -> None:
    names: list[str] = part.__all__

    assert names == sorted(set(names))
    assert set(names) <= set(dir(part))


def test_the_first_example_of_the_readme_is_short() -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None

    assert 10 <= len(example[1].splitlines()) <= 20


def test_the_readme_leads_to_every_page() -> None:
    for page in [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "howto").glob("*.md"),
    ]:
        assert f"({page.relative_to(ROOT)})" in README


def run_strictly(folder: Path, *arguments: str) -> str:
    """Run Python with warnings as errors; it must succeed and complain of nothing."""
    result = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def lacks_what_it_needs(code: str) -> bool:
    """Tell whether a package that the first line names is not installed."""
    needs = re.match(r"# needs (.*)", code)
    return needs is not None and not all(map(find_spec, needs[1].split(", ")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path) -> None:
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        if code.startswith("# not run") or lacks_what_it_needs(code):
            continue
        promised = re.findall(r"# prints (.*)", code)
        assert run_strictly(tmp_path, "-c", code).splitlines() == promised


@pytest.mark.parametrize(
    "example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name
)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    run_strictly(tmp_path, str(example))

    assert os.listdir(tmp_path) == []


def test_the_reference_is_what_the_docstrings_say() -> None:
    pytest.importorskip("anyio")  # a bridge of which it tells
    made = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))

    assert (ROOT / "docs" / "reference.md").read_text() == made["make_reference"](), (
        "run: python docs/make_reference.py"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_top_level_holds_what_it_should() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    if tracked.returncode:
        pytest.skip("not a checkout")

    assert {line.split("/")[0] for line in tracked.stdout.splitlines()} == {
        ".ci",
        ".gitignore",
        "LICENSE",
        "README.md",
        "benchmarks",
        "core",
        "docs",
        "examples",
        "plugins",
        "pyproject.toml",
        "tests",
        "transports",
        "typings",
    }


def test_all_packages_are_marked_as_typed() -> None:
    for package in (
        "core/umbel",
        "transports/umbel_transports",
        "plugins/umbel_plugins",
    ):
        assert (ROOT / package / "py.typed").exists()


def test_the_built_in_transports_are_found_by_entry_point_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = project["entry-points"]["umbel.transports.v1"]
    files = {path.stem for path in (ROOT / "transports/umbel_transports").glob("*.py")}

    assert {value.split(":")[0].split(".")[1] for value in entries.values()} == {
        name for name in files if not name.startswith("_")
    }


def test_a_wheel_holds_the_three_packages_the_command_and_no_more(
    tmp_path: Path,
) -> None:
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}

    assert tops == {
        "umbel",
        "umbel_transports",
        "umbel_plugins",
        "_umbel_command.py",
        "umbel-0.1.0.dist-info",
    }
    assert sum(name.endswith("py.typed") for name in names) == 3


def test_every_decision_is_in_the_index_by_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()

    for page in folder.glob("0*.md"):
        number, title = (
            page.read_text().split("\n")[0].removeprefix("# ").split(". ", 1)
        )
        assert page.name.startswith(f"{int(number):04}-")
        assert f"{number}. [{title}]({page.name})" in index


def _rows(code_map: str, indent: str = "") -> set[str]:
    """Give the modules in the first column of a code map, of those so indented."""
    rows = re.findall(rf"^{indent}(\w+(?: \w+)*)(?:  |$)", code_map, re.MULTILINE)
    return {name for row in rows for name in row.split(" ")}


def _modules(folder: Path) -> set[str]:
    found = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
    names = {m.parent.name if m.stem == "__init__" else m.stem for m in found}
    return names - {folder.name, "__main__"}


def test_the_code_map_has_every_module_of_core() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    code_map = page.split("```")[1]
    core = ROOT / "core" / "umbel"
    rooms = dict(re.findall(r"^(\w+)  .*\n((?:  .*\n)+)", code_map, re.MULTILINE))
    packages = {name for name in rooms if (core / name).is_dir()}

    assert _rows(code_map) == _modules(core)
    assert {"_kernel", "plugins", "streams"} <= packages
    for name in packages:
        assert _rows(rooms[name], "  ") == _modules(core / name), name


def test_the_code_map_has_every_module_of_transports_and_plugins() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = dict(
        re.findall(r"^(\w+)\n((?:  .*\n)+)", page.split("```")[3], re.MULTILINE)
    )

    for folder in ("transports/umbel_transports", "plugins/umbel_plugins"):
        modules = _modules(ROOT / folder)
        assert _rows(rooms.pop(Path(folder).name), "  ") == modules, folder
    assert not rooms


def test_each_file_that_a_page_names_exists() -> None:
    folders = "tests|core|transports|examples|benchmarks|docs"
    found = [
        (page, name)
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for name in re.findall(rf"`((?:{folders})/[\w/.-]+)`", page.read_text())
    ]

    assert len(found) > 20
    assert [(page, name) for page, name in found if not (ROOT / name).exists()] == []


def test_the_lower_layers_reach_aio_by_one_door_only() -> None:
    core = ROOT / "core" / "umbel"
    below = [core, *(core / name for name in ("_kernel", "coroutines", "streams"))]
    named = {
        module.name
        for folder in below
        for module in folder.glob("*.py")
        if "import_module(" in module.read_text()
    }

    assert named == {"loops.py", "__init__.py", "typing.py"}  # two are lists of names


def test_each_promise_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "promises.md").read_text()
    tests = {
        path.stem: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")
    }

    found = re.findall(r"(test_\w+): ((?:`\w+`(?:, )?)+)", page)

    assert len(found) > 20
    for module, names in found:
        for name in re.findall(r"`(\w+)`", names):
            assert f"def test_{name}(" in tests[module], name
