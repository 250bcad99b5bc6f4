"""Bridges: what was written for something else, over any umbel stream.

    as_socket(stream)                      a `socket.socket`, if it has a descriptor
    as_file(stream, "rwb")                 a binary file
    as_asyncio_transport(stream, protocol) an `asyncio.Transport`
    await open_connection(address)         asyncio's StreamReader and StreamWriter
    await create_server(listener, factory) a server of asyncio protocols
    await start_server(listener, talk)     a server of asyncio's readers and writers
    as_anyio_stream(stream)                an `anyio.abc.ByteStream`, on both its loops;
                                           its `extra` knows each `UmbelAttribute`

Each takes the stream over: the handle that it is given is no longer open, and closing
what it returns closes the stream, in good order.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from umbel.bridges.files import as_file
from umbel.bridges.sockets import as_socket

if TYPE_CHECKING:
    from umbel.bridges.anyio_stream import UmbelAttribute, as_anyio_stream
    from umbel.bridges.asyncio_server import (
        create_server,
        open_connection,
        start_server,
    )
    from umbel.bridges.asyncio_transport import as_asyncio_transport

#: What brings asyncio or anyio with it is imported when it is first used.
_LATER: Final = {
    "UmbelAttribute": "umbel.bridges.anyio_stream",
    "as_anyio_stream": "umbel.bridges.anyio_stream",
    "as_asyncio_transport": "umbel.bridges.asyncio_transport",
    "create_server": "umbel.bridges.asyncio_server",
    "open_connection": "umbel.bridges.asyncio_server",
    "start_server": "umbel.bridges.asyncio_server",
}


if not TYPE_CHECKING:  # or checkers would take any name for one of ours

    def __getattr__(name: str) -> object:
        module = _LATER.get(name)
        if module is None:
            message = f"module 'umbel.bridges' has no attribute {name!r}"
            raise AttributeError(message)
        from importlib import import_module

        found: object = getattr(import_module(module), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = [
    "UmbelAttribute",
    "as_anyio_stream",
    "as_asyncio_transport",
    "as_file",
    "as_socket",
    "create_server",
    "open_connection",
    "start_server",
]

# So that `from umbel.bridges import *` works without it.
if not TYPE_CHECKING and find_spec("anyio") is None:
    __all__.remove("as_anyio_stream")
    __all__.remove("UmbelAttribute")
