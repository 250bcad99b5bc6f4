"""Records: what contexts and capabilities are made of."""

from __future__ import annotations

import inspect

import pytest

from umbel.transport import CloseContext
from umbel.values.address import Address
from umbel.values.record import Record


class Point(Record):
    x: int
    y: int = 5


def test_fields_are_given_by_place_or_name_and_have_defaults() -> None:
    assert (Point(1).x, Point(1).y) == (1, 5)
    assert (Point(1, 2).y, Point(y=3, x=1).y) == (2, 3)


def test_a_record_shows_its_fields() -> None:
    assert repr(Point(1)) == "Point(x=1, y=5)"


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="make a new one"):
        Point(1).x = 2  # type: ignore[misc]


def test_missing_surplus_and_unknown_fields_are_type_errors() -> None:
    with pytest.raises(TypeError, match="lacks 'x'"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="takes x, y"):
        Point(1, 2, 3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="takes x, y"):
        Point(1, z=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="takes x, y"):
        Point(1, x=3)  # type: ignore[misc]


def test_a_copy_with_a_change_has_all_the_other_fields() -> None:
    stream = object()
    context = CloseContext(7, stream, 100, Address("mem", "x"), True)  # type: ignore[arg-type]

    copy = context.__replace__(deadline=5)

    assert (copy.deadline, context.deadline) == (5, 100)
    assert (copy.handle, copy.endpoint, copy.is_done) == (7, stream, True)
    with pytest.raises(TypeError, match="until"):
        Record.__replace__(context, until=5)


def test_a_record_is_what_type_checkers_take_it_for() -> None:
    match Point(1):
        case Point(x, y):
            assert (x, y) == (1, 5)
    assert str(inspect.signature(Point)) == "(x: 'int', y: 'int' = 5)"
    # One that is made otherwise says how.
    assert "drain_limit" in inspect.signature(CloseContext).parameters


def test_a_subclass_may_put_its_fields_where_a_call_can_not() -> None:
    class Solid(Point):
        z: int  # type: ignore[misc]  # which Python allows
        y: int = 7

    assert repr(Solid(1, z=3)) == "Solid(x=1, y=7, z=3)"
    inspect.signature(Solid)  # whatever it is
