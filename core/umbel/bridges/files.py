"""A stream as a binary file, for code that reads lines or pickles."""

from __future__ import annotations

import io
import math
import operator
import sys
import warnings
from typing import TYPE_CHECKING, Literal, Never, cast, final, overload

from umbel.deadline import check_seconds, within
from umbel.errors import BrokenStreamError, BusyError
from umbel.handle import CLOSE_GRACE, close, hclose_if_open, hown, open_handles, recast
from umbel.streams.connection import find_connection
from umbel.streams.receiving import receive
from umbel.streams.sending import bsend
from umbel.streams.stream import StreamHandle, descriptor_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from umbel.aio.stream import AnyStream


@overload
def as_file(
    handle: AnyStream,
    mode: Literal["rb"],
    *,
    seconds: float = math.inf,
    buffer_size: int = io.DEFAULT_BUFFER_SIZE,
) -> io.BufferedReader: ...


@overload
def as_file(
    handle: AnyStream,
    mode: Literal["wb"],
    *,
    seconds: float = math.inf,
    buffer_size: int = io.DEFAULT_BUFFER_SIZE,
) -> io.BufferedWriter: ...


@overload
def as_file(
    handle: AnyStream,
    mode: Literal["rwb"] = "rwb",
    *,
    seconds: float = math.inf,
    buffer_size: int = io.DEFAULT_BUFFER_SIZE,
) -> BufferedStreamFile: ...


def as_file(
    handle: AnyStream,
    mode: Literal["rb", "wb", "rwb"] = "rwb",
    *,
    seconds: float = math.inf,
    buffer_size: int = io.DEFAULT_BUFFER_SIZE,
) -> io.BufferedReader | io.BufferedWriter | BufferedStreamFile:
    """Turn a stream into a buffered binary file.

    Closing the file sends what it holds, and closes the stream in good order. For text,
    put an `io.TextIOWrapper` around it; for no buffer, use `StreamFile`.

    Args:
        handle: a byte stream. Taken over: the file owns it.
        mode: "rb", "wb" or "rwb". A file for one direction closes both directions, too.
        seconds: how long each receive, send or close may take. After a call that timed
            out, that direction is broken, since part of the call may have been done.
        buffer_size: bytes that are held, in each direction.

    Returns:
        the file. Its methods block the calling coroutine only. One coroutine may read
        from it, and one write to it; for a second writer, write and flush are EBUSY.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is no byte stream.
        ValueError: another *mode*, *seconds* is negative, or *buffer_size* less than 1.
            After each of these the stream is as it was.

    Source:
        own; socket.makefile.
    """
    if mode not in ("rb", "wb", "rwb"):
        message = f"the mode is {mode!r}: give 'rb', 'wb' or 'rwb'"
        raise ValueError(message)
    if not 1 <= operator.index(buffer_size) <= sys.maxsize:  # a float: TypeError
        message = f"buffer_size is {buffer_size}: give 1 or more, or use StreamFile"
        raise ValueError(message)
    raw = StreamFile(handle, seconds, is_buffered=True)
    if mode == "rb":
        return _Reader(raw, buffer_size)
    if mode == "wb":
        return _Writer(raw, buffer_size)
    return BufferedStreamFile(raw, buffer_size)


@final
class StreamFile(io.RawIOBase):
    """A stream as a file without a buffer.

    Args:
        handle: a byte stream. Taken over: the file owns it.
        seconds: how long each call may take.
        is_buffered: a receive that times out is the last one, since a reader behind a
            buffer may have lost what came before it.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not a byte stream.
        ValueError: *seconds* is negative.
    """

    #: The warning of having been forgotten, where warnings are errors.
    _untold: Warning | None = None

    def __init__(
        self,
        handle: AnyStream,
        seconds: float = math.inf,
        *,
        is_buffered: bool = False,
    ) -> None:
        check_seconds(seconds, "seconds")
        # ENOTSUP, before anything is taken over.
        address = find_connection(handle).address
        self._handle = recast(hown(handle), StreamHandle)
        self._address = address
        self._seconds = seconds
        self._is_buffered = is_buffered
        self._has_failed = self._is_forgotten = False

    def readinto(self, buffer: Buffer, /) -> int:
        """Receive what there is, 0 bytes at the end of the stream."""
        self._require_open()
        if self._has_failed:
            message = (
                "a receive was late or canceled before, and what came then may be lost"
            )
            raise BrokenStreamError(message)
        view = memoryview(cast("bytearray", buffer)).cast("B")
        if view.readonly:
            message = "readinto needs a writable buffer"
            raise TypeError(message)  # now: what has come would be lost
        if not view.nbytes:
            return 0
        try:
            data = receive(self._handle, view.nbytes, within(self._seconds))
        except (BusyError, RuntimeError):
            raise  # it never began
        except BaseException:  # late, canceled, or interrupted by a signal
            self._has_failed = self._is_buffered
            raise
        view[: len(data)] = data
        return len(data)

    def write(self, data: Buffer, /) -> int:
        """Send all of *data*."""
        self._require_open()
        view = memoryview(data)
        if not self._is_forgotten:
            bsend(self._handle, view, within(self._seconds))
        return view.nbytes

    def close(self) -> None:
        """Close the stream in good order. A second call has no effect."""
        if self.closed:
            return
        super().close()
        if self._handle in open_handles:
            close(self._handle, within(min(self._seconds, CLOSE_GRACE)))

    def abort(self) -> None:
        """Close the stream hard."""
        hclose_if_open(self._handle)
        super().close()

    def readable(self) -> bool:
        """Tell that it can be read from."""
        self._require_open()
        return True

    def writable(self) -> bool:
        """Tell that it can be written to."""
        self._require_open()
        return True

    @property
    def is_sending(self) -> bool:
        """Whether another coroutine or thread is in the midst of a send."""
        return self._is_open and find_connection(self._handle).sender is not None

    @property
    def is_receiving(self) -> bool:
        """Whether another coroutine or thread is in the midst of a receive."""
        return self._is_open and find_connection(self._handle).receiver is not None

    @property
    def _is_open(self) -> bool:
        return self._handle in open_handles

    @property
    def name(self) -> str:
        """The address of the stream, as of a file its path."""
        return str(self._address)

    def fileno(self) -> int:
        """As `StreamHandle.fileno`; ValueError if it was closed."""
        self._require_open()
        return descriptor_of(self._handle)

    def __reduce_ex__(self, protocol: object) -> Never:
        message = "a stream's file can't be copied or pickled: it owns the stream"
        raise TypeError(message)

    def _require_open(self) -> None:
        if self.closed:
            message = "I/O operation on closed file"
            raise ValueError(message)

    def _dealloc_warn(self, source: object) -> None:
        # Called by a buffer that was forgotten while it was open. It flushes and closes
        # us next, where an error could not be raised to anybody.
        if not self.closed and not self._is_forgotten:
            self._is_forgotten = True
            try:
                _warn(source)
            except Warning as error:
                # A buffer would swallow it. Its traceback would refer to us.
                self._untold = error.with_traceback(None)
            finally:
                hclose_if_open(self._handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) in open_handles:
            self._dealloc_warn(self)
        if self._untold is not None:
            raise self._untold


def _require_nobody_sends(raw: StreamFile | None) -> None:
    # Python's buffer has a lock, which would stop all coroutines of a second thread; in
    # the same thread it would tear what the first one sends.
    if raw is not None and raw.is_sending:
        message = (
            "another coroutine or thread writes to this file: let one write for all"
        )
        raise BusyError(message)


@final
class _Reader(io.BufferedReader):
    """A file to receive from."""

    def close(self) -> None:
        """As `BufferedReader.close`, also while another coroutine is in a call."""
        raw = cast("StreamFile | None", self.raw)  # None: it was detached
        if raw is not None and raw.is_receiving:
            raw.close()  # who is in a call has the buffer locked, and leaves it now
        super().close()


@final
class _Writer(io.BufferedWriter):
    """A file to send by."""

    def write(self, data: Buffer, /) -> int:
        """As `BufferedWriter.write`; EBUSY while another coroutine is in a call."""
        _require_nobody_sends(cast("StreamFile | None", self.raw))
        return super().write(data)

    def flush(self) -> None:
        """As `BufferedWriter.flush`; EBUSY while another coroutine is in a call."""
        _require_nobody_sends(cast("StreamFile | None", self.raw))
        super().flush()

    def close(self) -> None:
        """As `BufferedWriter.close`, also while another coroutine is in a call."""
        raw = cast("StreamFile | None", self.raw)
        if raw is not None and raw.is_sending:
            raw.close()
        super().close()


@final
class BufferedStreamFile(io.BufferedRWPair):
    """A file for both directions, which an `io.TextIOWrapper` can be put around."""

    def __init__(self, raw: StreamFile, buffer_size: int) -> None:
        super().__init__(raw, raw, buffer_size)
        self._raw = raw

    @property
    def name(self) -> str:
        """The address of the stream, as of a file its path."""
        return self._raw.name

    def fileno(self) -> int:
        """As `StreamFile.fileno`."""
        return self._raw.fileno()

    def write(self, data: Buffer, /) -> int:
        """As `BufferedRWPair.write`; EBUSY while another coroutine is in a call."""
        _require_nobody_sends(self._raw)
        return super().write(data)

    def flush(self) -> None:
        """As `BufferedRWPair.flush`; EBUSY while another coroutine is in a call."""
        _require_nobody_sends(self._raw)
        super().flush()

    def close(self) -> None:
        """As `BufferedRWPair.close`, also while another coroutine is in a call."""
        if self._raw.is_sending:
            self._raw.close()
        elif self._raw.is_receiving:
            try:
                self.flush()
            finally:
                self._raw.close()
        super().close()

    def _dealloc_warn(self, source: object) -> None:
        self._raw._dealloc_warn(source)  # of an io.TextIOWrapper

    def __del__(self) -> None:
        raw = getattr(self, "_raw", None)
        if raw is not None and not raw.closed:
            raw._dealloc_warn(self)


def _warn(source: object) -> None:
    warnings.warn(
        f"a stream's file was never closed: {source!r}",
        ResourceWarning,
        stacklevel=3,
        source=source,
    )
