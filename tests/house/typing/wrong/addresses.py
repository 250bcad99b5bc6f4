"""Addresses of the wrong kind."""

from __future__ import annotations

import umbel


def main(listener: umbel.ListenerHandle) -> None:
    umbel.listen(b"mem://x")  # error
    umbel.listen(umbel.ipaddr_local("127.0.0.1", 0))  # error
    umbel.listen("mem://x", "128")  # error
    umbel.tcp_listen("tcp://127.0.0.1:0")  # error
    umbel.tcp_connect(umbel.Address("tcp", "127.0.0.1:1"))  # error
    stream: umbel.StreamHandle = umbel.tcp_accept(listener)  # error
    umbel.ipaddr_local("127.0.0.1", "0")  # error
    print(umbel.ipaddr_port(umbel.tcp_address(listener)).bit)  # error
    umbel.Address.parse(b"mem://x")  # error
    umbel.Address("mem")  # error
    umbel.Address("mem", "x").location = "y"  # error
    umbel.ipc_connect(5.0)  # error
    umbel.ipc_listen_mem("x", mem="shared")  # error
    umbel.pair(umbel.Address("mem", "x"))  # error
    both: umbel.StreamHandle = umbel.pair()  # error
    listener.address = "mem://x"  # error
    print(stream, both)
