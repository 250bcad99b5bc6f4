"""docs/capabilities.md says what is so: which transport has what, and who uses it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import umbel
from tests.pages import names_in, rows
from umbel import spi
from umbel.plugins.registry import find_transport

CAPABILITIES = (Path(__file__).parents[2] / "docs" / "capabilities.md").read_text()

CLASSES = {
    name: found
    for name, found in vars(spi).items()
    if isinstance(found, type)
    and found.__module__ in {"umbel.transport", "umbel.values.peer"}
    and getattr(found, "__final__", False)
}
SCHEMES = ("ipc", "mem", "tcp")


def test_every_capability_is_in_a_table() -> None:
    tables = rows(CAPABILITIES, "## Of streams") + rows(CAPABILITIES, "## Of listeners")

    assert {names_in(row[0])[0] for row in tables} == CLASSES.keys()


def test_every_verb_of_the_tables_exists() -> None:
    for table in ("## Of streams", "## Of listeners"):
        for row in rows(CAPABILITIES, table):
            for name in re.findall(r"`([\w.]+)`", row[2]):
                found: object = umbel
                for part in name.removeprefix("umbel.").split("."):
                    if part not in ("consumed", "aio"):
                        found = getattr(found, part)


def has(handle: int, name: str) -> str:
    try:
        umbel.hquery(handle, CLASSES[name])
    except umbel.NotSupportedError:
        return "no"
    return "yes"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_transport_has_the_capabilities_that_the_tables_say(
    scheme: str, tmp_path: Path
) -> None:
    places = {
        "ipc": f"ipc:{tmp_path}/x",
        "mem": "mem://table",
        "tcp": "tcp://127.0.0.1:0",
    }
    column = 3 + SCHEMES.index(scheme)
    of_streams = dict.fromkeys(CLASSES, "no")
    of_listeners = dict.fromkeys(CLASSES, "no")
    for row in rows(CAPABILITIES, "## Of streams"):
        of_streams[names_in(row[0])[0]] = row[column]
    for row in rows(CAPABILITIES, "## Of listeners"):
        of_listeners[names_in(row[0])[0]] = row[column]

    with umbel.listen(places[scheme]) as listener:
        streams = [umbel.connect(listener.address, umbel.within(5))]
        streams.append(umbel.accept(listener, umbel.within(5)))
        if scheme != "tcp":
            streams += umbel.pair(scheme)
        found = [{name: has(stream, name) for name in CLASSES} for stream in streams]
        found_of_listener = {name: has(listener, name) for name in CLASSES}
        for stream in streams:
            umbel.hclose(stream)

    assert all(each == of_streams for each in found), found
    assert found_of_listener == of_listeners


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_the_traits_declare_is_in_the_table(scheme: str) -> None:
    traits = find_transport(scheme).traits()
    assert traits is not None
    faster = {"StreamAttempts"}
    column = 3 + SCHEMES.index(scheme)
    listed = {
        names_in(row[0])[0]
        for row in rows(CAPABILITIES, "## Of streams")
        if row[column] == "yes"
    }

    assert {kind.__name__ for kind in traits.capabilities} == listed - faster
