"""`async for` over a handle: by generators of which the loop does not know.

A loop is told of each async generator that begins, so that it can finish one that was
abandoned halfway, such as by an error in the body of its `async for`; trio warns of it
then. Ours hold nothing while they are not awaited, so there is nothing to finish.

And a generator that has raised is over. One that was canceled, or timed out, would then
tell of an end that has not come: so the next item is another one's.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, Self, TypeAlias, TypeVar, final

H = TypeVar("H")
T = TypeVar("T")

#: Its body stands in a `with` block of what it is given.
Function: TypeAlias = "Callable[[H, Beginning[H, T]], AsyncGenerator[T, None]]"


@final
class Items(Generic[T]):
    """Gives what generators of *function*, for *handle*, yield: one after the other."""

    #: A slot, in which the generator's own is found at once: one call an item.
    __slots__ = ("__anext__", "__weakref__")

    __anext__: Callable[[], Awaitable[T]]

    def __init__(self, function: Function[H, T], handle: H) -> None:
        self.__anext__ = Beginning(self, function, handle)

    def __aiter__(self) -> Self:
        return self


@final
class Beginning(Generic[H, T]):
    """Begins a generator, and is there again when that has raised."""

    __slots__ = ("_function", "_handle", "_items")

    def __init__(self, items: Items[T], function: Function[H, T], handle: H) -> None:
        # They refer to us: a cycle would keep the handle open until it is found.
        self._items = weakref.ref(items)
        self._function = function
        self._handle = handle

    def __call__(self) -> Awaitable[T]:
        """Give the first item of another generator."""
        generator = self._function(self._handle, self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            first = generator.__anext__()
        finally:
            sys.set_asyncgen_hooks(*hooks)
        self._put(generator.__anext__)
        return first

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and kind is not GeneratorExit:
            self._put(self)

    def _put(self, found: Callable[[], Awaitable[T]]) -> None:
        items = self._items()
        if items is not None:  # else it is closed as it is forgotten
            items.__anext__ = found
