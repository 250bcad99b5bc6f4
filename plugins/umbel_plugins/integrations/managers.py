"""multiprocessing over umbel: its connections, and its managers at any address.

    class Manager(BaseManager): ...
    Manager.register("counter", Counter)

    manager = Manager(address="ipc:/run/counters.sock", authkey=key, serializer=UMBEL)

`UMBEL` is what managers call a serializer: the kind of their connections. Everything
else works as with their own "pickle": `start`, `connect`, `get_server`, and proxies,
which find their manager from other processes too. What is sent is pickled: as
everywhere in multiprocessing, anyone who knows the authkey can run code in the server.

`Listener` and `Client` are like those of `multiprocessing.connection`, for any address
of a transport whose streams have descriptors.
"""

from __future__ import annotations

import math
import multiprocessing.managers
import warnings
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, Final, Self, cast, final

import umbel
from umbel.bridges import as_socket


@final
class Listener:
    """Accepts multiprocessing's connections.

    Args:
        address: where to listen, such as "ipc:x.sock".
        backlog: how many may wait to be accepted.
        authkey: what both sides must know; None: anyone may connect.
        **options: of umbel's transport.
    """

    def __init__(
        self,
        address: str | umbel.Address,
        backlog: int = 128,
        authkey: bytes | None = None,
        **options: object,
    ) -> None:
        _check_key(authkey)
        self._authkey = authkey
        self._handle = umbel.listen(address, backlog, **options)
        # A manager's process ends without closing it; the file must not be left.
        self._close = Finalize(None, umbel.close, (self._handle,), exitpriority=0)
        #: Text, since it is pickled with every proxy, and compared.
        self.address = str(self._handle.address)

    def accept(self) -> Connection[Any, Any]:
        """Accept the next connection.

        Raises:
            AuthenticationError: it did not know the key; it is closed.
            OSError: the listener is closed, or as `umbel.accept`.
        """
        return _prove(
            umbel.accept(self._handle),
            self._authkey,
            (deliver_challenge, answer_challenge),
        )

    def close(self) -> None:
        """Stop listening. A second call has no effect."""
        self._close()

    def __del__(self) -> None:
        close: Finalize | None = getattr(self, "_close", None)
        if close is not None and close.still_active():
            message = f"{self.address} was never closed: use `with`, or close()"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def Client(  # noqa: N802 - as multiprocessing names it
    address: str | umbel.Address,
    authkey: bytes | None = None,
    *,
    timeout: float = math.inf,
) -> Connection[Any, Any]:
    """Connect to a `Listener`.

    Args:
        address: of the listener.
        authkey: as the listener has it.
        timeout: seconds that connecting may take.

    Returns:
        the connection, which blocks the whole thread.

    Raises:
        AuthenticationError: one side does not know the other's key.
        DeadlineError: ETIMEDOUT, nobody had room for the connection in time.
        NotSupportedError: ENOTSUP, streams of that transport have no socket.
        Canceled: ECANCELED, the calling coroutine is being canceled.
        OSError: as `umbel.connect`.

    Source:
        multiprocessing.connection.Client.
    """
    _check_key(authkey)
    stream = umbel.connect(address, umbel.within(timeout))
    return _prove(stream, authkey, (answer_challenge, deliver_challenge))


def _check_key(authkey: object) -> None:
    if authkey is not None and not isinstance(authkey, bytes):
        message = "authkey must be bytes"
        raise TypeError(message)


Step = Callable[[Any, bytes], object]


def _prove(
    stream: umbel.StreamHandle, authkey: bytes | None, steps: tuple[Step, Step]
) -> Connection[Any, Any]:
    """Make a connection of *stream*, once both sides have proved who they are."""
    try:
        sock = as_socket(stream)
    except BaseException:
        umbel.hclose(stream)
        raise
    connection: Connection[Any, Any] = Connection(sock.detach())
    if authkey is None:
        return connection
    try:
        for step in steps:
            step(connection, authkey)
    except (AuthenticationError, OSError, EOFError):
        connection.close()
        raise
    return connection


class _Serializer(str):
    """A name that brings this module along to wherever it is unpickled."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[[], str], tuple[()]]:
        return _the_serializer, ()


def _the_serializer() -> str:
    return UMBEL


#: For `BaseManager(serializer=…)`.
UMBEL: Final[str] = _Serializer("umbel")

# Where managers find a kind of connection; "xmlrpclib" is the other one of their own.
_KINDS: Final = cast(
    "dict[str, tuple[object, object]]",
    multiprocessing.managers.listener_client,  # type: ignore[attr-defined]  # typeshed has it not
)
_KINDS[UMBEL] = (Listener, Client)
