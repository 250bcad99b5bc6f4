"""Running a hook inside the wrappers of observing plugins.

A wrapper is a generator function: it gets the context, yields once, is sent the
`Outcome`, and returns one (or None, to leave it as it is). What it raises is
logged with its plugin's name and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")
C = TypeVar("C")


class Outcome(NamedTuple, Generic[T]):
    """How a hook ended: with a value, or with an error."""

    value: T | None = None
    error: BaseException | None = None


_Generator: TypeAlias = "Generator[None, Outcome[object], Outcome[object] | None]"
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
    for wrapper in wrappers:
        try:
            generator = wrapper.function(context)
            next(generator)
            running.append((wrapper.plugin_name, generator))
        except StopIteration:
            _log(wrapper.plugin_name, hook, "did not yield")
        except Exception:  # noqa: BLE001 - whatever a plugin does wrong
            _log(wrapper.plugin_name, hook, "failed before its yield")
    first: Outcome[object]
    try:
        first = Outcome(value=call(context))
    except BaseException as error:  # noqa: BLE001 - handed to the wrappers, then on
        first = Outcome(error=error)
    outcome = _unwind(hook, running, first)
    if outcome.error is not None:
        if first.error is None:
            _abort(first.value)
        try:
            raise outcome.error
        finally:
            # A traceback that refers to itself would keep sockets alive.
            del outcome, first
    return outcome.value  # type: ignore[return-value]  # of the wrappers' making


def _unwind(hook: str, running: _Running, outcome: Outcome[object]) -> Outcome[object]:
    for name, generator in reversed(running):
        try:
            generator.send(outcome)
        except StopIteration as stop:
            if isinstance(stop.value, Outcome):
                outcome = stop.value
            elif stop.value is not None:
                _log(name, hook, "returned something else than an Outcome")
        except Exception:  # noqa: BLE001 - whatever a plugin does wrong
            _log(name, hook, "failed after its yield")
        else:
            generator.close()
            _log(name, hook, "yielded twice")
    return outcome


def _abort(value: object) -> None:
    # A wrapper turned success into an error: what was opened must not leak.
    for opened in value if isinstance(value, tuple) else (value,):
        abort = getattr(opened, "abort", None)
        if callable(abort):
            abort()


def _log(plugin_name: str, hook: str, what: str) -> None:
    import logging
    import sys

    logging.getLogger("umbel").error(
        "plugin %r: its wrapper of %s %s",
        plugin_name,
        hook,
        what,
        exc_info=sys.exc_info()[1],
    )
