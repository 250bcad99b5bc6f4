"""A coroutine of the program's: a function and its arguments, in a bundle."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Final, final

from umbel._kernel.coroutine import Coroutine
from umbel.errors import Canceled, require_run

if TYPE_CHECKING:
    from umbel.coroutines.bundles import Bundle

#: What to do with an async function, which umbel's coroutines and threads can't run.
ASYNC_ADVICE: Final = "use a plain one, or have asyncio or trio run it (umbel.aio)"


@final
class Member(Coroutine):
    """A coroutine in a bundle: a function and its arguments."""

    __slots__ = ("args", "bundle", "function", "kwargs", "started")

    def __init__(
        self,
        bundle: Bundle,
        function: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        started: tuple[CodeType, int] | None,
    ) -> None:
        self.bundle = bundle
        self.function = function
        self.args = args
        self.kwargs = kwargs
        #: The instruction that started it; of which line is found when asked for.
        self.started = started

    def run(self) -> None:
        """As `Coroutine.run`: what escapes is kept by the bundle."""
        bundle = self.bundle
        bundle.running[self] = None
        if bundle.is_stopping or self.hub is not bundle.hub:
            bundle.admit(self)
        try:
            # Without a star, where it can be: that takes no C stack, which each switch
            # would have to copy.
            count = -1 if self.kwargs else len(self.args)
            if count == 0:
                result = self.function()
            elif count == 1:
                result = self.function(self.args[0])
            elif count == 2:
                result = self.function(self.args[0], self.args[1])
            else:
                result = self.function(*self.args, **self.kwargs)
            if result is not None:
                require_run(result, ASYNC_ADVICE)
        except Canceled as error:
            if self.pending is None:
                bundle.fail(self, error)  # raised by hand: tell somebody
        except BaseException as error:  # noqa: BLE001 - kept for the waiter
            bundle.fail(self, error)
        finally:
            bundle.running.pop(self, None)  # a forked child has none
            # The hub may keep an ended coroutine for as long as nobody else runs.
            del self.function, self.args, self.kwargs
            if bundle.waiting or bundle.is_forgotten:
                bundle.tell()

    @property
    def origin(self) -> tuple[CodeType, int] | None:
        """As `Coroutine.origin`."""
        return self.started

    @property
    def name(self) -> str:
        """As `Coroutine.name`."""
        function = getattr(self, "function", None)  # None: it has just ended
        # Of a partial, whose repr would be that of all its arguments.
        function = getattr(function, "func", function)
        if isinstance(name := getattr(function, "__qualname__", None), str):
            return name
        from umbel.plugins.results import show  # as the census asks in another's call

        return show(function)
