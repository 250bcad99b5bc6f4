"""Capabilities are asked for by class, and come as objects of that class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import assert_type

import umbel
from umbel.spi import DescriptorPassing, Fileno, UnreadBytes


def is_friend(peer: umbel.PeerIdentity) -> bool:
    return peer.uid == os.geteuid()


def main() -> None:
    left, right = umbel.pair("ipc")
    with left, right:
        peer = umbel.query(left, umbel.PeerIdentity)
        assert_type(peer, umbel.PeerIdentity)
        assert_type(peer.pid, int)
        assert is_friend(peer)
        assert umbel.hquery(right, umbel.PeerIdentity).pid == os.getpid()
        assert_type(umbel.hquery(left, Fileno).fd, int)
        assert_type(umbel.hquery(left, UnreadBytes).is_zero(), bool)
        passing = umbel.hquery(left, DescriptorPassing)
        passing.send(memoryview(b"x"), [left.fileno()], umbel.within(5))
        data, descriptors = umbel.receive_with_fds(right, 10, 1, umbel.within(5))
        assert_type(data, bytes)
        assert_type(descriptors, list[int])
        for descriptor in descriptors:
            os.close(descriptor)
        right.done()
        left.done()
    pass_on(Path("typed.sock"))


def pass_on(path: Path) -> None:
    with umbel.ipc_listen(path) as listener:
        assert_type(listener, umbel.ListenerHandle)
        client = umbel.ipc_connect(path, umbel.within(5))
        server = umbel.ipc_accept(listener, umbel.within(5))
        with server, client:
            umbel.ipc_sendfd(client, client.fileno(), umbel.within(5))
            descriptor = umbel.ipc_recvfd(server, umbel.within(5))
            assert_type(descriptor, int)
            os.close(descriptor)
            left, right = umbel.ipc_pair()
            umbel.send_handle(client, left, umbel.within(5))
            moved = umbel.receive_handle(server, umbel.within(5))
            assert_type(moved, umbel.StreamHandle | umbel.ListenerHandle)
            umbel.hclose(right)
            umbel.hclose(moved)
            umbel.ipc_done(client)
            umbel.hclose(server)
            assert_type(umbel.ipc_close(client), umbel.CloseReport)


if __name__ == "__main__":
    main()
