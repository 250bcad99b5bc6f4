"""`async for` over a handle: a generator of which the loop does not know.

A loop is told of each async generator that begins, so that it can finish one that was
abandoned halfway, such as by an error in the body of its `async for`; trio warns of it
then. Ours hold nothing while they are not awaited, so there is nothing to finish.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Generic, Self, TypeVar, final

T = TypeVar("T")


@final
class Items(Generic[T]):
    """Gives what *generator* yields.

    Args:
        generator: not begun yet; where it yields, it has nothing to clean up.
    """

    #: A slot, in which the generator's own is found at once: one call an item.
    __slots__ = ("__anext__", "aclose")

    __anext__: Callable[[], Awaitable[T]]

    def __init__(self, generator: AsyncGenerator[T, None]) -> None:
        self.__anext__ = partial(self._begin, generator)
        #: As an async generator's.
        self.aclose = generator.aclose

    def __aiter__(self) -> Self:
        return self

    def _begin(self, generator: AsyncGenerator[T, None]) -> Awaitable[T]:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            first = generator.__anext__()
        finally:
            sys.set_asyncgen_hooks(*hooks)
        self.__anext__ = generator.__anext__
        return first
