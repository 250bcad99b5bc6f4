"""Handles: integers that name open objects, and the one table behind them.

Numbers are never reused in a process, so a stale handle is always EBADF and never
somebody else's object. The typed handles are `int` subclasses whose methods are
sugar for the functions; both go through the table.

The handle object that a call returned owns what it names, like a file object: when the
last reference to it goes away while it is open, there is a ResourceWarning, and it is
closed hard. `int(handle)` is only a name.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import warnings
from types import CodeType, FrameType, TracebackType
from typing import ClassVar, Final, Never, TypeVar, cast, overload

from umbel._kernel.current import current_hub
from umbel._kernel.standstill import stop_others
from umbel.deadline import FOREVER, within
from umbel.errors import EXHAUSTED, BadHandleError, NotSupportedError
from umbel.report import CloseReport
from umbel.values.frames import first_of_others
from umbel.values.iolist import check_count

T = TypeVar("T")

#: Seconds that a `with` block gives the orderly close at its end.
CLOSE_GRACE: Final = 10.0


class AnyHandle(int):
    """An integer that names an open object; what all kinds of handles are."""

    __slots__ = ()

    def abort(self) -> None:
        """Close hard, as `hclose`."""
        hclose(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self)})"

    def __reduce__(self) -> Never:
        # Its number may name something else there, such as in a spawned process.
        message = (
            f"{self!r} can't be pickled or copied: send_handle moves it to another "
            "process, and int(handle) is a name for it in this one"
        )
        raise TypeError(message)

    def __del__(self) -> None:
        if self in open_handles:
            resource = open_handles.get(self)
            if resource is not None and resource.owner == id(self):
                resource.forsake(self)


class Handle(AnyHandle):
    """A handle whose methods block.

    At the end of its `with` block it is closed as by `close`, within 10 seconds; if the
    block ends by an error, as by `hclose`; if it is closed already, nothing happens.
    """

    __slots__ = ()

    def close(self, deadline: int = FOREVER) -> CloseReport:
        """Close in good order, as `close`."""
        return close(self, deadline)

    def __enter__(self: H) -> H:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self not in open_handles:
            return
        if kind is None:
            self.close(within(CLOSE_GRACE))
        else:
            self.abort()


class Resource:
    """What a handle names: a stream, listener, bundle, channel, or a user's object.

    Attributes:
        number: of its handle, or of the last one that it had.
        owner: `id` of the handle object that closes it when forgotten; 0: none.
        opened: the code and instruction that opened it.
    """

    __slots__ = ("__weakref__", "number", "opened", "owner")

    handle_class: ClassVar[type[AnyHandle]] = Handle
    noun: ClassVar[str] = "object"
    #: What to do with a handle of this kind, for the errors of a wrong kind.
    verbs: ClassVar[str] = "hquery, hown and hclose"
    #: An abort that failed halfway can be made again, and one too many is harmless.
    aborts_again: ClassVar[bool] = True

    number: int
    owner: int
    opened: tuple[CodeType, int] | None

    def query(self, kind: type[T]) -> T | None:
        """Give what it can do as an object of class *kind*, None if it can't."""
        return None

    def abort(self) -> None:
        """Close hard; it is out of the table already."""

    def close(self, deadline: int, drain_limit: int | None) -> CloseReport:
        """Close in good order; it is out of the table already."""
        self.abort()
        return CloseReport()

    def forsake(self, handle: int) -> None:
        """Deal with having been forgotten while open: warn, and close hard."""
        try:
            warn_of_leak(handle, self)
        finally:  # the warning may be an error
            hclose_if_open(handle)

    def disown(self) -> None:
        """In a forked child: forget the coroutines that only the parent has."""

    def free(self) -> None:
        """At exit: free what outlives the process; who is in a call never goes on."""

    def describe(self) -> str:
        """Say what it is, for people."""
        return self.noun


# Behind what binds them: a bound that is a string would be compiled; see `report`.
H = TypeVar("H", bound=AnyHandle)
R = TypeVar("R", bound=Resource)

#: The one table. Core's verbs look handles up here themselves, for speed.
open_handles: Final[dict[int, Resource]] = {}
_numbers: Final = itertools.count(1)


def register(resource: Resource, handle_class: type[H]) -> H:
    """Give *resource* a handle, which is new and owns it."""
    resource.number = number = next(_numbers)
    handle = handle_class(number)
    resource.owner = id(handle)
    try:
        # Who calls this is of umbel itself: a look at that frame is not for nothing.
        frame: FrameType | None = sys._getframe(2)
    except ValueError:
        frame = None  # a thread that began in umbel
    if frame is not None and frame.f_globals.get("__name__", "")[:5] == "umbel":
        frame = first_of_others(frame)  # seldom: a call of its own is a cost
    if frame is None:
        resource.opened = current_hub().current.origin
    else:
        resource.opened = frame.f_code, frame.f_lasti
    open_handles[number] = resource
    return handle


def where_opened(resource: Resource) -> str:
    """Say where *resource* was opened, as "file:line"."""
    return place_of(resource.opened) or "an unknown place"


def place_of(instruction: tuple[CodeType, int] | None) -> str:
    """Give the "file:line" of an instruction; "" for None."""
    if instruction is None:
        return ""
    code, offset = instruction
    for start, end, line in code.co_lines():
        if start <= offset < end:
            return f"{code.co_filename}:{line}"
    return code.co_filename


def warn_of_leak(handle: int, resource: Resource) -> None:
    """Issue the ResourceWarning for a handle that nobody closed."""
    warnings.warn(
        f"{resource.describe()} was never closed: handle {int(handle)}, opened at "
        f"{where_opened(resource)}; use `with`, close() or hclose()",
        ResourceWarning,
        stacklevel=3,
        source=resource,
    )


def refusal(handle: object, wanted: type[Resource]) -> Exception:
    """Make the error for a *handle* that does not name a *wanted*."""
    if not isinstance(handle, int):
        return TypeError(f"a handle is an int, not {handle!r}")
    found = open_handles.get(handle)
    if found is None:
        return bad_handle(handle)
    return NotSupportedError(
        f"handle {int(handle)} names {found.describe()}, not a {wanted.noun}: "
        f"it is for {found.verbs}"
    )


def bad_handle(handle: object) -> Exception:
    """Make the error for a *handle* that names nothing."""
    if not isinstance(handle, int):
        return TypeError(f"a handle is an int, not {handle!r}")
    return BadHandleError(
        f"handle {int(handle)} is not open: it was closed, handed on by hown, "
        "or never existed"
    )


def lookup(handle: int, kind: type[R]) -> R:
    """Find the *kind* that *handle* names; EBADF or ENOTSUP if it does not."""
    found = open_handles.get(handle)
    if isinstance(found, kind):
        return found
    raise refusal(handle, kind)


def claim(handle: int) -> Resource:
    """Take *handle* out of the table: of several claimants, one succeeds."""
    resource = open_handles.pop(handle, None)
    if resource is None:
        raise bad_handle(handle)
    return resource


@atexit.register
def _close_forgotten() -> None:
    # Python gives no promise that handles in globals are deleted at exit, and a
    # listener's file must not outlive its process. Daemon threads that are in calls on
    # them would be told, and the program's user by their errors: they stop before.
    stop_others()
    for number, resource in list(open_handles.items()):
        if resource.owner:
            try:
                try:
                    resource.forsake(number)
                finally:  # its warning may be an error
                    resource.free()
            except BaseException as error:  # noqa: BLE001 - whatever it is
                # As an error of a finalizer's, so that all of them are dealt with.
                sys.excepthook(type(error), error, error.__traceback__)


def _after_fork_in_child() -> None:
    # What was opened before the fork is the parent's to warn of and to close.
    for resource in open_handles.values():
        resource.owner = 0
        resource.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def hquery(handle: int, kind: type[T]) -> T:
    """Give a capability of *handle*, as an object of class *kind*.

    Args:
        handle: any handle.
        kind: a concrete class, such as `PeerIdentity`.

    Returns:
        the capability; valid while the handle is open.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it has no such capability.

    Source:
        libdill hquery(3). Also named `query`.
    """
    resource = open_handles.get(handle)
    if resource is None:
        raise bad_handle(handle)
    found = resource.query(kind)
    if found is None:
        message = f"{resource.describe()} has no {kind.__name__}"
        raise NotSupportedError(message)
    return found


@overload
def hown(handle: H) -> H: ...  # type: ignore[overload-overlap]  # a handle is no plain int


@overload
def hown(handle: int) -> Handle: ...


def hown(handle: H | int) -> H | Handle:
    """Move an object to a new handle; the old one is EBADF from now on.

    Args:
        handle: any handle, or its number as a plain int.

    Returns:
        a new handle of the same class. For a plain int it is of the class for that kind
        of object, which type checkers know as a `Handle` only.

    Raises:
        BadHandleError: EBADF, *handle* is not open.

    Source:
        libdill hown(3).
    """
    resource = claim(handle)
    opened = resource.opened
    is_plain = not isinstance(handle, AnyHandle)
    kind = resource.handle_class if is_plain else cast("type[H]", type(handle))
    owned = register(resource, kind)
    resource.opened = opened
    return cast("H | Handle", owned)


def recast(handle: int, handle_class: type[H]) -> H:
    """Name the same object by a handle of another class, which owns it from now on."""
    resource = open_handles.get(handle)
    if resource is None:
        raise bad_handle(handle)
    other = handle_class(handle)
    resource.owner = id(other)
    return other


def hclose(handle: int) -> None:
    """Close hard: free everything at once, whatever the peer does.

    On a stream, listener or channel it never blocks and never fails. On a bundle
    it cancels what runs and waits until it has stopped. Whoever is blocked on the
    handle gets EBADF.

    Args:
        handle: any handle. Closed on return, whatever is raised, except after EBADF,
            EDEADLK, and a RecursionError or MemoryError before it could be freed.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        OSError: EDEADLK, a coroutine closes a bundle that can't end before itself.
        ExceptionGroup: a bundle's coroutines failed, and nobody has been told yet.

    Source:
        libdill hclose(3).
    """
    resource = claim(handle)
    try:
        resource.abort()
    except EXHAUSTED:
        if resource.aborts_again:
            open_handles[resource.number] = resource  # as in hclose_if_open
        raise


def hclose_if_open(handle: int) -> None:
    """Close hard, unless that was done before, or is just done by another thread."""
    resource = open_handles.pop(handle, None)
    if resource is not None:
        try:
            resource.abort()
        except EXHAUSTED:
            # It may have freed nothing: it stays open for who calls again less deep
            # down, and for the end of its owner.
            if resource.aborts_again:
                open_handles[resource.number] = resource
            raise


def close(
    handle: int, deadline: int = FOREVER, *, drain_limit: int | None = None
) -> CloseReport:
    """Close in good order, in the way of the handle's transport.

    A stream: what was sent is delivered, our direction ends, and inbound bytes are
    discarded until the peer's end too, so that it has either read all our data or
    chosen not to. Anything else is closed as by `hclose`. Whoever is blocked on the
    handle gets EBADF.

    Args:
        handle: any handle. Closed on return, whatever is raised, except after EBADF,
            EINVAL, EDEADLK, the TypeError of a *drain_limit*, and a RecursionError or
            MemoryError before it could be freed.
        deadline: see `umbel.deadline`.
        drain_limit: bytes that may be discarded; None: any number.

    Returns:
        what is known of the peer.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        BrokenStreamError: ECONNRESET, the peer died, left without reading our
            bytes, or the stream was broken before; or a send was cut by this call.
        DeadlineError: ETIMEDOUT, the peer did not end in time.
        Canceled: ECANCELED, the calling coroutine is being canceled.
        OSError: EMSGSIZE, more than *drain_limit* bytes came. All of these but EBADF
            carry the CloseReport as `report`. EINVAL, *drain_limit* is negative.
            EDEADLK, as `hclose`.

    Source:
        libdill ipc_close(3), made generic. Differs: see `ipc_close`.
    """
    if drain_limit is not None:
        check_count(drain_limit, "drain_limit")
    resource = open_handles.pop(handle, None)  # as `claim` does, without a call
    if resource is None:
        raise bad_handle(handle)
    try:
        return resource.close(deadline, drain_limit)
    except EXHAUSTED:
        if resource.aborts_again:
            # It may have been too deep down to free anything.
            open_handles[resource.number] = resource
            hclose_if_open(handle)
        raise
