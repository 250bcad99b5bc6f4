"""Who is let in: the option `allow=` of a listener.

Its function is the program's, and may be wrong, or meet a peer that it cannot judge:
one whose process has ended, for instance. Then that peer is sent away, and the log says
why; the listener, and all who wait in its queue, are none the worse for it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Final, TypeVar, cast, final

from umbel.spi import (
    Address,
    NotSupportedError,
    Options,
    PeerIdentity,
    SocketStream,
    Stream,
    Transfer,
    require_plain,
    require_run,
)
from umbel_transports._local_sockets import IpcListener

T = TypeVar("T")

_ADVICE: Final = "allow= is asked between two calls of accept, and must answer at once"
#: Perhaps there is one later on.
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
#: Of who accepts, as is what is no Exception; not of the question.
_OF_THE_CALLER: Final = (RecursionError, MemoryError)


def _lacks_descriptor(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR


@final
class ChoosyListener(IpcListener):
    """A listener that sends away those whom `allow=` does not let in.

    Raises:
        TypeError: `allow=` is an async function.
    """

    __slots__ = ("_allow", "_held")

    def __init__(
        self,
        sock: socket.SocketType,
        address: Address,
        options: Options,
        file: os.stat_result | None,
    ) -> None:
        super().__init__(sock, address, options, file)
        self._allow = cast("Callable[[PeerIdentity], object]", options["allow"])
        require_plain(self._allow, _ADVICE)
        #: Who could not be judged for want of a descriptor, and comes first.
        self._held: socket.SocketType | None = None

    def try_accept(self) -> Stream | None:
        """As `SocketListener.try_accept`."""
        held, self._held = self._held, None
        stream = None if held is None else self.make_stream(held)
        return stream or super().try_accept()

    def make_stream(self, sock: socket.SocketType) -> SocketStream | None:
        """As `SocketListener.make_stream`: None for a peer that is not allowed."""
        stream = super().make_stream(sock)
        if stream is None:
            return None
        try:
            peer = stream.query(PeerIdentity)
            if peer is not None and self._is_allowed(peer):
                return stream
        except BaseException as error:
            if _lacks_descriptor(error):
                # Whoever called closes *sock*.
                family, kind, protocol = int(sock.family), int(sock.type), sock.proto
                self._held = socket.SocketType(family, kind, protocol, sock.detach())
            stream.abort()
            raise
        stream.abort()
        return None

    def _is_allowed(self, peer: PeerIdentity) -> bool:
        """Tell whether *peer* is let in; a failure to tell is for the log."""
        try:
            answer = self._allow(peer)
            require_run(answer, _ADVICE)
            return bool(answer)
        except _OF_THE_CALLER:
            raise
        except Exception as error:
            if _lacks_descriptor(error):
                raise  # as an accept that had none: nobody is sent away for that
            import logging  # not at start

            message = "%s: allow= failed, so that process %d was sent away"
            logging.getLogger("umbel").exception(message, self.address, peer.pid)
            return False

    def query(self, kind: type[T]) -> T | None:
        """As `Listener.query`."""
        if kind is Transfer:
            message = "a listener with allow= can't be moved: its function stays here"
            raise NotSupportedError(message)
        return super().query(kind)

    def abort(self) -> None:
        """As `Listener.abort`."""
        super().abort()
        held, self._held = self._held, None
        if held is not None:
            held.close()
