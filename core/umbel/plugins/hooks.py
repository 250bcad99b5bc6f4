"""Marking the functions that implement hooks, so that type checkers can check them.

    class Transport:
        @hookimpl.listen
        def listen(self, context: ListenContext) -> Listener: ...

    class Watcher:
        @hookimpl.close.wrapper
        def closing(self, context: CloseContext) -> Wrapped[CloseReport]:
            outcome = yield
            return outcome

mypy and pyright report a hook that does not exist, a parameter other than `context` or
of another type, and a wrong result. The function's own name is free. Plain `@hookimpl`
on a function named `umbel_listen` means the same, but is not checked until the plugin
is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import FunctionType
from typing import (
    TYPE_CHECKING,
    Final,
    Generic,
    Never,
    NoReturn,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    final,
    overload,
)

from pluggy import HookimplMarker

from umbel.plugins.wrappers import Outcome
from umbel.report import CloseReport
from umbel.transport import (
    AcceptContext,
    AdoptContext,
    CloseContext,
    ConnectContext,
    DoneContext,
    ListenContext,
    Listener,
    PairContext,
    Stream,
    Traits,
)

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., object])
R = TypeVar("R")
S = TypeVar("S")
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)

#: What a wrapper returns: it yields once, is sent how the hook ended, and returns how
#: it is to end; None: as it did.
Wrapped: TypeAlias = Generator[None, Outcome[R], Outcome[R] | None]

#: The same of a wrapper that may answer itself: it yields None, as others, or an
#: outcome that stands for the owner's, which is not called then.
Answered: TypeAlias = Generator[Outcome[R] | None, Outcome[R], Outcome[R] | None]

_marker: Final = HookimplMarker("umbel")


class _Function(Protocol[C_contra, R_co]):
    """A hook of a plugin that is a module."""

    def __call__(self, context: C_contra) -> R_co: ...


class _Method(Protocol[S_contra, C_contra, R_co]):
    """A hook of a plugin that is an object."""

    def __call__(self, plugin: S_contra, /, context: C_contra) -> R_co: ...


def _require_function(found: object) -> Callable[..., object]:
    # pluggy takes no other callable, and does not say so.
    if isinstance(found, FunctionType | staticmethod | classmethod):
        return cast("Callable[..., object]", found)
    message = f"a hook is a function or a method, not {found!r}"
    raise TypeError(message)


class _Marker(Generic[C, R]):
    """Marks a function as an implementation of one hook."""

    def __init__(self, hook: str, is_wrapper: bool = False) -> None:
        self._hook = hook
        self._is_wrapper = is_wrapper

    @overload
    def __call__(self, function: _Method[S, C, R]) -> Callable[[S, C], R]: ...
    @overload
    def __call__(self, function: _Function[C, R]) -> Callable[[C], R]: ...
    def __call__(self, function: object) -> object:
        """Mark *function*, and give it back."""
        found = _require_function(function)
        return _marker(found, specname=self._hook, wrapper=self._is_wrapper)


class _Hook(_Marker[C, R]):
    """A hook that a transport implements, and that any plugin may wrap."""

    def __init__(self, hook: str) -> None:
        super().__init__(hook)
        self.wrapper: Final[_Marker[C, Answered[R]]] = _Marker(hook, is_wrapper=True)


class _Seen(Generic[C, R]):
    """A hook that core runs itself, so that plugins can only wrap it."""

    def __init__(self, hook: str) -> None:
        self._hook = hook
        self.wrapper: Final[_Marker[C, Answered[R]]] = _Marker(hook, is_wrapper=True)

    def __call__(self, function: Never) -> NoReturn:
        """Say what to do instead."""
        name = self._hook.removeprefix("umbel_")
        message = f"core runs `{name}` itself: wrap it, by @hookimpl.{name}.wrapper"
        raise TypeError(message)


class _Bare(Generic[R]):
    """A hook without a context."""

    def __init__(self, hook: str) -> None:
        self._hook = hook

    @overload
    def __call__(self, function: Callable[[S], R]) -> Callable[[S], R]: ...
    @overload
    def __call__(self, function: Callable[[], R]) -> Callable[[], R]: ...
    def __call__(self, function: object) -> object:
        """Mark *function*, and give it back."""
        return _marker(_require_function(function), specname=self._hook)


@final
class _HookMarker:
    """The class of `hookimpl`: a marker, and one more for each hook by its name."""

    listen: Final = _Hook[ListenContext, Listener]("umbel_listen")
    connect: Final = _Hook[ConnectContext, Stream]("umbel_connect")
    pair: Final = _Hook[PairContext, tuple[Stream, Stream]]("umbel_pair")
    adopt: Final = _Hook[AdoptContext, Stream | Listener]("umbel_adopt")
    close: Final = _Hook[CloseContext, CloseReport]("umbel_close")
    traits: Final = _Bare[Traits]("umbel_traits")
    accept: Final = _Seen[AcceptContext, Stream]("umbel_accept")
    done: Final = _Seen[DoneContext, None]("umbel_done")
    start: Final = _Bare[None]("umbel_start")
    stop: Final = _Bare[None]("umbel_stop")

    @overload
    def __call__(self, function: F) -> F: ...
    @overload
    def __call__(self, *, wrapper: bool = False) -> Callable[[F], F]: ...
    def __call__(
        self, function: F | None = None, *, wrapper: bool = False
    ) -> F | Callable[[F], F]:
        """Mark a function whose name is that of its hook."""
        if function is None:
            return _marker(wrapper=wrapper)
        _require_function(function)
        return _marker(function, wrapper=wrapper)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            """Say which there are: a type checker has told already."""
            known = [each for each in vars(type(self)) if not each.startswith("_")]
            message = f"there is no hook {name!r}: {', '.join(known)}"
            raise AttributeError(message, name=name, obj=self)


#: Marks the functions that implement hooks.
hookimpl: Final = _HookMarker()
