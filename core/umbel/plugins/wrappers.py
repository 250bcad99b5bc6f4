"""Running a hook inside the wrappers of observers.

A wrapper is a generator function: it gets the context, yields once, is sent the
`Outcome`, and returns one (or None, to leave it as it is). What it raises is logged
with its observer's name and changes nothing; the same is true of an answer that makes
no sense. One that yields an Outcome, and not None, answers in the place of the owner,
which is not called then.

Anything that is not an Exception (Ctrl-C, a cancellation) is for the program, wherever
it comes from: it becomes the outcome, which the wrappers further out see like any
other.

Nothing that was opened leaks: if the hook ends in an error, core aborts everything that
the owner and the wrappers gave on the way there, the last first.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from umbel.plugins.results import Kind, discard, flaw_of, show

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C")


class Outcome(NamedTuple, Generic[T_co]):
    """How a hook ended: with a value, or with an error."""

    value: T_co | None = None
    error: BaseException | None = None


_Generator: TypeAlias = (
    "Generator[Outcome[object] | None, Outcome[object], Outcome[object] | None]"
)
WrapperFunction: TypeAlias = "Callable[..., _Generator]"


class Wrapper(NamedTuple):
    """One plugin's wrapper of one hook."""

    plugin_name: str
    function: WrapperFunction


_Running: TypeAlias = "list[tuple[str, _Generator]]"


def run_wrapped(
    hook: str, wrappers: Sequence[Wrapper], context: C, call: Callable[[C], T]
) -> T:
    """Call *call* with *context*, inside *wrappers*, the first one outermost."""
    running: _Running = []
    values: list[object] = []
    try:
        outcome = _enter(hook, wrappers, context, running)
    except BaseException as error:  # noqa: BLE001 - of the log, as one below
        outcome = Outcome(error=error)
    if outcome is None:
        try:
            outcome = Outcome(value=call(context))
        except BaseException as error:  # noqa: BLE001 - handed to the wrappers, then on
            outcome = Outcome(error=error)
    while running:
        values.append(outcome.value)
        try:
            outcome = _leave(hook, *running.pop(), outcome)
        except BaseException as error:  # noqa: BLE001 - a handler of the log that raises
            outcome = Outcome(error=error)
    if outcome.error is None:
        return outcome.value  # type: ignore[return-value]  # of the wrappers' making
    values.append(outcome.value)
    discard(values[::-1])
    try:
        raise outcome.error
    finally:
        # A traceback that refers to itself would keep sockets alive.
        del outcome


def _enter(
    hook: str, wrappers: Sequence[Wrapper], context: object, running: _Running
) -> Outcome[object] | None:
    """Run *wrappers* up to their yields; give what ended the hook before it began."""
    for name, function in wrappers:
        try:
            generator = function(context)
            answer = next(generator)
        except StopIteration:
            _log(name, hook, "did not yield")
        except Exception as error:  # noqa: BLE001 - whatever a plugin does wrong
            _log(name, hook, "failed before its yield", error)
        except BaseException as error:  # noqa: BLE001 - the outcome, see the top
            return Outcome(error=error)
        else:
            running.append((name, generator))
            if isinstance(answer, Outcome) and _is_sound(hook, answer):
                return answer
            if answer is not None:
                what = f"yielded {show(answer)}, which can't be the outcome"
                _log(name, hook, what)
    return None


def _leave(
    hook: str, name: str, generator: _Generator, outcome: Outcome[object]
) -> Outcome[object]:
    """Run a wrapper from its yield to its end; give the outcome that it makes."""
    traceback = None if outcome.error is None else outcome.error.__traceback__
    try:
        generator.send(outcome)
        generator.close()
        _log(name, hook, "yielded twice")
    except StopIteration as stop:
        return _choose(hook, name, outcome, stop.value)
    except Exception as error:  # noqa: BLE001 - whatever a plugin does wrong
        _log(name, hook, "failed after its yield", error)
    except BaseException as error:  # noqa: BLE001 - the outcome, see the top
        if error is not outcome.error:
            error.__context__ = error.__context__ or outcome.error
            return Outcome(error=error)
    finally:
        # A wrapper that raised it again is in its traceback, and refers to it.
        if outcome.error is not None:
            outcome.error.__traceback__ = traceback
    return outcome


def _choose(
    hook: str, name: str, outcome: Outcome[object], answer: object
) -> Outcome[object]:
    if answer is None:
        return outcome
    if isinstance(answer, Outcome) and _is_sound(hook, answer):
        return answer
    _log(name, hook, f"returned {show(answer)}, which can't be its outcome")
    return outcome


#: What each hook gives. Of `adopt` it is known by its context alone.
_KINDS: Final[dict[str, Kind]] = {
    "umbel_listen": "a listener",
    "umbel_connect": "a stream",
    "umbel_accept": "a stream",
    "umbel_pair": "a tuple of two streams",
    "umbel_close": "a CloseReport",
}


def _is_sound(hook: str, outcome: Outcome[object]) -> bool:
    value, error = outcome
    if error is not None:
        return isinstance(error, BaseException)
    if hook == "umbel_adopt":
        return not (flaw_of(value, "a stream") and flaw_of(value, "a listener"))
    return not flaw_of(value, _KINDS[hook]) if hook in _KINDS else value is None


def _log(
    plugin_name: str, hook: str, what: str, error: BaseException | None = None
) -> None:
    import logging

    message = "plugin %r: its wrapper of %s %s"
    logging.getLogger("umbel").error(message, plugin_name, hook, what, exc_info=error)
