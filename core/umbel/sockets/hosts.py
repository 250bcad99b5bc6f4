"""Numeric hosts, as the kernel gives them."""

from __future__ import annotations

import socket


def numeric_host(name: tuple[object, ...]) -> str:
    """Give the host of what getsockname, getpeername or getaddrinfo gave.

    Args:
        name: a socket's name, of AF_INET or AF_INET6.

    Returns:
        such as "127.0.0.1", "::1" or "fe80::1%eth0".

    Source:
        RFC 4007: a link's own address means something only with the link's name.
    """
    host, _, *rest = name
    index = rest[1] if len(rest) == 2 else 0
    if not isinstance(index, int) or not index:
        return str(host)
    try:
        return f"{host}%{socket.if_indextoname(index)}"
    except OSError:
        return f"{host}%{index}"  # it is gone
