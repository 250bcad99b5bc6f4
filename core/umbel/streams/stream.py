"""Byte streams by handle: what their verbs do is in `sending` and `receiving`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, final

from umbel.deadline import FOREVER
from umbel.errors import NotSupportedError
from umbel.handle import Handle
from umbel.streams.connection import Connection, find_connection
from umbel.streams.receiving import DEFAULT_SIZE, brecv, receive
from umbel.streams.sending import bsend, done
from umbel.transport import Fileno
from umbel.values.address import Address

if TYPE_CHECKING:
    from typing_extensions import Buffer


@final
class StreamHandle(Handle):
    """Names a byte stream: the functions on byte streams, as methods.

    `for chunk in stream` receives until the end of the stream.
    """

    def send(self, data: Buffer, deadline: int = FOREVER) -> None:
        """Send all of *data*, as `bsend`."""
        bsend(self, data, deadline)

    def receive(self, max_bytes: int = DEFAULT_SIZE, deadline: int = FOREVER) -> bytes:
        """Receive what there is, as `receive`."""
        return receive(self, max_bytes, deadline)

    def receive_exactly(self, count: int, deadline: int = FOREVER) -> bytes:
        """Receive *count* bytes, as `brecv`."""
        return brecv(self, count, deadline)

    def done(self, deadline: int = FOREVER) -> None:
        """End our direction, as `done`."""
        done(self, deadline)

    def fileno(self) -> int:
        """Give the descriptor, which stays umbel's.

        While somebody waits for it, by `fdin` or `fdout`, a receive or send that must
        wait as well gets EBUSY, maybe in its midst, which breaks that direction: wait
        for a copy instead (`os.dup`).

        Raises:
            NotSupportedError: ENOTSUP, there is none.
            BusyError: EBUSY, umbel has bytes of it that came for a canceled `receive`:
                who reads the descriptor, or waits for it, would miss them.
        """
        return descriptor_of(self)

    @property
    def address(self) -> Address:
        """Where it was connected, or accepted."""
        return find_connection(self).address

    def __iter__(self) -> Iterator[bytes]:
        while chunk := receive(self):
            yield chunk


Connection.handle_class = StreamHandle


def descriptor_of(handle: int) -> int:
    """Give the descriptor of a stream; for the errors see `StreamHandle.fileno`."""
    connection = find_connection(handle)
    found = connection.query(Fileno)
    if found is None:
        message = "this transport's streams have no descriptor"
        raise NotSupportedError(message)
    connection.require_nothing_kept()
    return found.fd
