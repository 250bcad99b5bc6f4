"""The types that umbel's own signatures mention, for programs that write them down.

    from umbel.typing import Buffer, HandleObject

    def send_all(streams: list[umbel.StreamHandle], data: Buffer) -> None: ...

    AnyPath             what names a file: str, bytes, or a path object
    Buffer              what can be sent: anything with the buffer protocol
    WritableBuffer      what can be received into: bytearray, memoryview, array, mmap
    HandleObject        what `hmake` takes: an object with `query` and `close`
    Target              what `brecvl` takes: a WritableBuffer, or a Skip
    Clause              what `choose` takes: a `Send` or a `Recv`
    Inbound, Outbound   an end of a channel, as `Recv` and `Send` take it
    AnyStream           a StreamHandle, or one of `umbel.aio`
    AnyListener         a ListenerHandle, or one of `umbel.aio`
    LiveCoroutine, OpenHandle
                        what a `Census` lists
    AnyioStream, BufferedStreamFile, StreamServer, StreamTransport
                        what `umbel.bridges` gives
    Talk                what `umbel.bridges.start_server` calls for each connection

umbel does not import this module itself.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from umbel.aio.listener import AnyListener
from umbel.aio.stream import AnyStream
from umbel.coroutines.channel import Inbound, Outbound
from umbel.coroutines.choice import Clause
from umbel.coroutines.whereabouts import LiveCoroutine
from umbel.insight import OpenHandle
from umbel.ipc import AnyPath
from umbel.values.iolist import Skip
from umbel.values.protocols import Buffer, HandleObject, WritableBuffer

if TYPE_CHECKING:
    from umbel.bridges.anyio_stream import AnyioStream
    from umbel.bridges.asyncio_server import StreamServer, Talk
    from umbel.bridges.asyncio_transport import StreamTransport
    from umbel.bridges.files import BufferedStreamFile
    from umbel.values.iolist import Target
else:
    Target = WritableBuffer | Skip

#: What brings asyncio or anyio with it is imported when it is first used.
_LATER: Final = {
    "AnyioStream": "umbel.bridges.anyio_stream",
    "BufferedStreamFile": "umbel.bridges.files",
    "StreamServer": "umbel.bridges.asyncio_server",
    "StreamTransport": "umbel.bridges.asyncio_transport",
    "Talk": "umbel.bridges.asyncio_server",
}


if not TYPE_CHECKING:  # or checkers would take any name for one of ours

    def __getattr__(name: str) -> object:
        module = _LATER.get(name)
        if module is None:
            message = f"module 'umbel.typing' has no attribute {name!r}"
            raise AttributeError(message)
        from importlib import import_module

        return getattr(import_module(module), name)


__all__ = [
    "AnyListener",
    "AnyPath",
    "AnyStream",
    "AnyioStream",
    "Buffer",
    "BufferedStreamFile",
    "Clause",
    "HandleObject",
    "Inbound",
    "LiveCoroutine",
    "OpenHandle",
    "Outbound",
    "StreamServer",
    "StreamTransport",
    "Talk",
    "Target",
    "WritableBuffer",
]

# So that `from umbel.typing import *` works without it.
if not TYPE_CHECKING and find_spec("anyio") is None:
    __all__.remove("AnyioStream")
