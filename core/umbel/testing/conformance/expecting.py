"""What behaviours require, and how they say what is not so."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Final

import umbel

#: Milliseconds by which a wake-up may be late on an idle machine.
SLACK: Final = 20
#: For whoever must be woken by another's close or cancellation.
WAKE_SLACK: Final = 50
#: A busy machine makes anything late now and then: the best of so many counts.
TRIES: Final = 6

#: What a transport may buffer of a send that nobody receives.
LARGEST_BUFFER: Final = 32 << 20

#: What umbel's own errors must be, wherever they come from: programs catch them by
#: class.
CLASSES: Final = {
    kind.number: kind
    for kind in (
        umbel.BadHandleError,
        umbel.BrokenStreamError,
        umbel.BusyError,
        umbel.DeadlineError,
        umbel.EndOfStreamError,
        umbel.NotSupportedError,
        umbel.UnknownTransportError,
    )
}


class Violation(AssertionError):  # noqa: N818 - what it is, not an accident
    """The transport does not behave as it must."""


def require(condition: object, what: str) -> None:
    """Raise a Violation, which says *what* is not so, unless *condition* holds."""
    if not condition:
        raise Violation(what)


def equal(actual: object, wanted: object, what: str) -> None:
    """Require *actual* to be *wanted*."""
    if actual != wanted:
        shown = repr(actual) if len(repr(actual)) < 200 else f"{repr(actual)[:200]}…"
        raise Violation(f"{what}: {shown}, instead of {wanted!r}"[:600])


def fails(
    numbers: int | Sequence[int],
    what: str,
    call: Callable[..., object],
    *args: object,
    **named: object,
) -> BaseException:
    """Require *call*, told as *what*, to raise one of those errnos; give it."""
    wanted = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    names = " or ".join(errno.errorcode[number] for number in wanted)
    try:
        came = call(*args, **named)
    except (OSError, umbel.Canceled) as error:
        if error.errno in wanted:
            _require_class(error, what)
            return error
        name = errno.errorcode.get(error.errno or 0, "no errno")
        raise Violation(f"{what} gave {name} ({error}), instead of {names}") from error
    raise Violation(f"{what} gave {came!r:.100}, instead of {names}")


def _require_class(error: OSError | umbel.Canceled, what: str) -> None:
    kind = CLASSES.get(error.errno or 0)
    if kind is not None and not isinstance(error, kind):
        message = f"{what} gave {error!r}, where {kind.__name__} must come"
        raise Violation(message) from error


def in_time(attempt: Callable[[], int], slack: int, what: str) -> None:
    """Require *attempt*, which gives by how many ms it was late, to be in time."""
    found = []
    for _ in range(TRIES):
        late = attempt()
        require(late >= 0, f"{what} came {-late} ms too early")
        if late <= slack:
            return
        found.append(late)
    raise Violation(f"{what} came {min(found)} ms late, at best of {TRIES} times")
