"""The page about integrations: its examples run, with the real packages."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import run_python
from umbel import Address

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "integrations.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

#: By a word that its example alone has.
NEEDS = {"httpx": "uvicorn", "BaseManager": "multiprocessing", "MCPServer": "mcp"}


def find_example(word: str) -> str:
    (found,) = [example for example in EXAMPLES if word in example]
    assert isinstance(found, str)
    return found


def check(example: str, tmp_path: Path) -> None:
    place = tmp_path / "example.py"  # in a file: multiprocessing looks at it
    place.write_text(example)
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"

    printed = run_python(code, str(place)).splitlines()

    assert printed == re.findall(r"# prints (.*)", example)


@pytest.mark.slow
@pytest.mark.parametrize("word", NEEDS)
def test_an_example_does_what_it_says(word: str, tmp_path: Path) -> None:
    if not find_spec(NEEDS[word]):
        pytest.skip(f"{NEEDS[word]} is not installed")

    check(find_example(word), tmp_path)


@pytest.mark.slow
def test_the_example_of_redis_does_what_it_says(
    redis_address: Address, tmp_path: Path
) -> None:
    pytest.importorskip("redis")
    example = find_example("import redis")

    check(example.replace("ipc:/run/redis/redis.sock", str(redis_address)), tmp_path)


@pytest.mark.slow
def test_the_example_of_postgres_does_what_it_says(
    postgres_address: Address, tmp_path: Path
) -> None:
    pytest.importorskip("pg8000")
    example = find_example("pg8000.native")
    theirs = "ipc:/run/postgresql/.s.PGSQL.5432"

    check(example.replace(theirs, str(postgres_address)), tmp_path)
