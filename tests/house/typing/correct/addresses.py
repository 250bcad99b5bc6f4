"""Addresses as text, as values, and libdill's tcp calls by IpAddress."""

from __future__ import annotations

from typing import assert_type

import umbel


def echo(address: str | umbel.Address) -> None:
    with umbel.listen(address, backlog=4) as listener:
        client = umbel.connect(listener.address, umbel.within(5))
        server = listener.accept(umbel.within(5))
        with umbel.go(umbel.close, server, umbel.within(5)):
            umbel.close(client, umbel.within(5))


def tcp() -> None:
    here = umbel.ipaddr_local("127.0.0.1", 0, umbel.IPADDR_IPV4)
    assert_type(here, umbel.IpAddress)
    with umbel.tcp_listen(here, 4) as listener:
        there = umbel.tcp_address(listener)
        assert_type(there, umbel.IpAddress)
        assert_type(umbel.ipaddr_port(there), int)
        assert_type(umbel.ipaddr_str(there), str)
        assert umbel.ipaddr_equal(here, there, ignore_port=True)
        again = umbel.ipaddr_remote("127.0.0.1", umbel.ipaddr_port(there))
        client = umbel.tcp_connect(again, umbel.within(5))
        server, peer = umbel.tcp_accept(listener, umbel.within(5))
        assert_type(server, umbel.StreamHandle)
        assert_type(peer, umbel.IpAddress)
        with server:
            umbel.tcp_done(client)
            server.done()
            assert_type(umbel.tcp_close(client, umbel.within(5)), umbel.CloseReport)


def main() -> None:
    echo("mem://typed")
    echo(umbel.Address.parse("mem://typed"))
    echo(umbel.Address("tcp", "127.0.0.1:0"))
    assert_type(str(umbel.Address("mem", "x")), str)
    known: dict[umbel.Address, str] = {umbel.Address("mem", "x"): "hashable"}
    assert known
    memory = umbel.Memory()
    with umbel.ipc_listen_mem("x", mem=memory) as listener:
        umbel.hclose(umbel.ipc_connect_mem("x", mem=memory))
        umbel.hclose(umbel.ipc_accept_mem(listener, memory, umbel.within(5)))
    tcp()


if __name__ == "__main__":
    main()
