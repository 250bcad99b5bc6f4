"""loop:PORT - TCP within this machine: as little as a transport can be."""

from __future__ import annotations

import errno
import os
import socket

from umbel.spi import (
    Address,
    ConnectContext,
    Fileno,
    ListenContext,
    Readiness,
    SocketListener,
    SocketStream,
    Traits,
    hookimpl,
    system_error,
    take_options,
)


class LoopTransport:
    @hookimpl.listen
    def listen(self, context: ListenContext) -> SocketListener:
        take_options(context.options)
        sock = socket.socket()
        try:
            sock.bind(place_of(context.address))
            sock.listen(context.backlog)
        except BaseException:
            sock.close()
            raise
        return SocketListener(sock, Address("loop", str(sock.getsockname()[1])))

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> SocketStream:
        take_options(context.options)
        sock = socket.socket()
        readiness = Readiness(sock.fileno())
        try:
            sock.setblocking(False)
            number = sock.connect_ex(place_of(context.address))
            while number in (errno.EINPROGRESS, errno.EALREADY):
                readiness.wait_out(context.deadline)
                number = sock.connect_ex(place_of(context.address))
            if number not in (0, errno.EISCONN):
                raise system_error(number, os.strerror(number))
        except BaseException:
            readiness.forget()
            sock.close()
            raise
        readiness.forget()
        return SocketStream(sock)

    @hookimpl.traits
    def traits(self) -> Traits:
        return Traits(address="loop:0", capabilities=frozenset({Fileno}))


def place_of(address: Address) -> tuple[str, int]:
    if not address.location.isdigit():
        raise system_error(errno.EINVAL, f"write loop:PORT, not {address}")
    return "127.0.0.1", int(address.location)


transport = LoopTransport()
