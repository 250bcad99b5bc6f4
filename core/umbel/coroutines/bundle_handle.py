"""The handle of a bundle: `with` blocks, and methods."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, Self, final

from umbel._kernel.current import current_hub
from umbel.coroutines.bundles import Bundle, together
from umbel.coroutines.member import Member
from umbel.coroutines.with_block import WithBlock, lenient_checkpoint
from umbel.deadline import FOREVER
from umbel.errors import Canceled
from umbel.handle import Handle, lookup, open_handles, refusal

P = ParamSpec("P")


@final
class BundleHandle(Handle):
    """Names a bundle."""

    #: While it is used in a `with` block.
    _block: WithBlock | None = None

    def go(
        self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Start a coroutine in it, as `bundle_go`."""
        hub = lenient_checkpoint()
        found = open_handles.get(self)
        if type(found) is not Bundle:
            raise refusal(self, Bundle)
        frame = sys._getframe(1)
        place = (frame.f_code, frame.f_lasti)
        hub.start(Member(found, function, args, kwargs, place))

    def wait(self, deadline: int = FOREVER) -> None:
        """Wait until nothing runs in it, as `bundle_wait`."""
        lenient_checkpoint()
        lookup(self, Bundle).join(deadline)

    def __enter__(self) -> Self:
        bundle = open_handles.get(self)
        if isinstance(bundle, Bundle) and self._block is None:  # once more: no effect
            self._block = WithBlock(current_hub().current)
            bundle.enter(self._block)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block, self._block = self._block, None
        failure = None if block is None else block.end()
        if not isinstance(error, Canceled):
            failure = None  # it was not interrupted: it has ended by itself
        bundle = open_handles.get(self)
        if not isinstance(bundle, Bundle):
            if failure is not None:  # others were told, but it was we who were stopped
                raise together([failure])
            return  # closed inside the block
        bundle.keep(failure)  # as above
        if kind is None:
            try:
                bundle.wait(FOREVER, until_failure=True)
            except BaseException as stopped:  # nothing runs on all the same
                bundle.leave(self, stopped)
                raise
        try:
            bundle.leave(self, error)
        except BaseExceptionGroup as group:
            if failure is not None:
                group.__suppress_context__ = True  # how the block was interrupted
            elif isinstance(error, Exception):  # which Canceled is not
                raise together([error, *group.exceptions]) from None
            raise


Bundle.handle_class = BundleHandle
