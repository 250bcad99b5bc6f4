"""Options: named, typed, and refused when unknown."""

from __future__ import annotations

import pytest

from umbel.spi import take_options


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (bool, True),
        (int, 1),
        ((int, str), "x"),
        (object, True),
        ((bool, int), False),
        (float, 5),
    ],
)
def test_a_value_of_its_type_is_taken(
    kind: type | tuple[type, ...], value: object
) -> None:
    assert take_options({"size": value}, size=kind) == {"size": value}
    assert take_options({"options": value}, options=kind) == {"options": value}


@pytest.mark.parametrize(
    ("kind", "value"),
    [(int, True), ((int, str), False), (bool, 1), (str, b"x"), (float, True)],
)
def test_one_of_another_is_refused_and_a_bool_is_no_int(
    kind: type | tuple[type, ...], value: object
) -> None:
    with pytest.raises(TypeError, match="option size="):
        take_options({"size": value}, size=kind)


def test_an_unknown_one_is_told_with_what_is_near() -> None:
    with pytest.raises(TypeError, match="unknown option 'sise': perhaps size"):
        take_options({"sise": 1}, size=int, mode=int)
