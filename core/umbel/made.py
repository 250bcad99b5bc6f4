"""Handles for objects of the program's own: libdill's hmake."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, TypeVar, final

from umbel._kernel.current import checkpoint, current_hub
from umbel.errors import Canceled
from umbel.handle import Handle, Resource, register
from umbel.report import CloseReport

if TYPE_CHECKING:
    from umbel.values.protocols import HandleObject

T = TypeVar("T")

#: What is pending while an object of the user's closes; never raised itself.
_FORBIDDEN: Final = Canceled("blocking calls are forbidden here")
_NOTHING: Final = CloseReport()


@final
class _Made(Resource):
    """An object of the user's own."""

    __slots__ = ("made",)

    aborts_again: ClassVar[bool] = False  # its `close` is called once, whatever it does
    #: Set by `hmake`: a class without __init__ is made in half the time.
    made: HandleObject

    def query(self, kind: type[T]) -> T | None:
        """As `Resource.query`."""
        return self.made.query(kind)

    def abort(self) -> None:
        """As `Resource.abort`, with blocking forbidden."""
        self.close(0, None)

    def close(self, deadline: int, drain_limit: int | None) -> CloseReport:
        """As `Resource.close`, with blocking forbidden."""
        me = current_hub().current
        saved = me.pending
        me.pending = _FORBIDDEN
        try:
            self.made.close()
        finally:
            if me.pending is _FORBIDDEN:  # else it was canceled meanwhile
                me.pending = saved
        return _NOTHING

    def describe(self) -> str:
        """As `Resource.describe`."""
        return f"an object of class {type(self.made).__name__}"


def hmake(obj: HandleObject) -> Handle:
    """Give an object of your own a handle.

    Args:
        obj: has `query(kind)` and `close()`. Owned by the handle from now on.

    Returns:
        its handle.

    Raises:
        Canceled: ECANCELED, the calling coroutine is being canceled.
        TypeError: *obj* lacks one of the two methods.

    Source:
        libdill hmake(3).
    """
    checkpoint()
    try:
        # The second look is for programs that no type checker reads.
        is_fit = callable(obj.query) and callable(obj.close)  # type: ignore[redundant-expr]
    except AttributeError:
        is_fit = False
    if not is_fit:
        message = f"{obj!r} needs the methods query(kind) and close() to get a handle"
        raise TypeError(message)
    resource = _Made()
    resource.made = obj
    return register(resource, Handle)
