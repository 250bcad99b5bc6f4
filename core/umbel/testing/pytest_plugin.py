"""pytest: the conformance kit as tests.

    pytest --umbel-transport=example              all behaviours, without any file
    pytest --umbel-transport='example://{name}'   at addresses of your choice

or, in a test module of your own, which may set things up first:

    def test_conformance(umbel_behaviour):
        umbel_behaviour("example")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from umbel.testing.conformance import Verdict


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("umbel")
    group.addoption(
        "--umbel-transport",
        action="append",
        default=[],
        metavar="SCHEME",
        help="try all behaviours of umbel's conformance kit on this transport, "
        "by its scheme or by an address with {folder} and {name}",
    )


def _parts() -> Iterator[tuple[int, str]]:
    from umbel.testing.conformance import BEHAVIOURS, DRIVERS

    for number in sorted(BEHAVIOURS):
        for driver in DRIVERS:
            yield number, driver


def _judge(transport: str, number: int, driver: str) -> None:
    from umbel.testing.conformance import BEHAVIOURS, Subject, try_behaviour

    try:
        subject = Subject(transport)
    except OSError as error:
        pytest.fail(f"{transport} can't be tried: {error}", pytrace=False)
    verdict: Verdict = try_behaviour(BEHAVIOURS[number], subject, driver)
    if verdict.state == "skipped":
        pytest.skip(verdict.reason)
    if verdict.state == "failed":
        pytest.fail(f"{number}. {verdict.title}: {verdict.reason}", pytrace=False)


class ConformanceItem(pytest.Item):
    """One behaviour of one transport, with one driver."""

    #: Set once it is made: pytest makes nodes of a name and a parent.
    case: tuple[str, int, str]

    def runtest(self) -> None:
        """Try it."""
        _judge(*self.case)

    def reportinfo(self) -> tuple[str, None, str]:
        """Say what it is, in place of a file and line."""
        return self.case[0], None, self.name


@pytest.hookimpl(tryfirst=True)  # so that -k and -m choose among these, too
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the behaviours of the transports that the option names."""
    for transport in config.getoption("--umbel-transport"):
        _require_usable(transport)
        for number, driver in _parts():
            name = f"{transport}-{number:02}-{driver}"
            item: ConformanceItem = ConformanceItem.from_parent(
                session, name=name, nodeid=f"umbel::{name}"
            )
            item.case = (transport, number, driver)
            items.append(item)


def _require_usable(transport: str) -> None:
    # Once for all, instead of in each test.
    from umbel.testing.conformance import Subject

    try:
        Subject(transport)
    except OSError as error:
        message = f"--umbel-transport={transport}: {error}"
        raise pytest.UsageError(message) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let a test that asks for a behaviour run once for each."""
    if "umbel_behaviour" in metafunc.fixturenames:
        parts = list(_parts())
        ids = [f"{number:02}-{driver}" for number, driver in parts]
        metafunc.parametrize("umbel_behaviour", parts, ids=ids, indirect=True)


@pytest.fixture
def umbel_behaviour(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Give a function that tries one behaviour on the transport that it is told.

    The test that asks for it runs once for each behaviour and driver; the function
    fails or skips the test.
    """
    number, driver = request.param

    def try_on(transport: str) -> None:
        _judge(transport, number, driver)

    return try_on
