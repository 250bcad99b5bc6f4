"""Taking over a descriptor that is already a socket."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from umbel.errors import system_error
from umbel.fd import require_descriptor


def adopt_socket(
    fd: int,
    *,
    is_listening: bool,
    families: Sequence[socket.AddressFamily] = (socket.AF_UNIX,),
) -> socket.socket:
    """Take over a descriptor that is a stream socket.

    Args:
        fd: stays the caller's if an error is raised.
        is_listening: whether it must listen; otherwise it must be connected.
        families: the address families that it may have.

    Returns:
        the socket, which owns *fd*.

    Raises:
        OSError: EINVAL, it is something else; EBADF, it is not open.
    """
    try:
        require_descriptor(fd)
    except OSError as error:
        if fd < 0:
            raise system_error(errno.EINVAL, f"{fd} is no descriptor") from error
        raise
    os.fstat(fd)
    is_blocking = os.get_blocking(fd)
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        raise system_error(errno.EINVAL, f"descriptor {fd} is not a socket") from None
    if socket.getdefaulttimeout() is not None:
        os.set_blocking(fd, is_blocking)  # which Python has changed
    problem = _find_problem(sock, is_listening, families)
    if problem:
        sock.detach()
        raise system_error(errno.EINVAL, f"descriptor {fd} {problem}")
    return sock


def _find_problem(
    sock: socket.socket, is_listening: bool, families: Sequence[int]
) -> str:
    if sock.family not in families or sock.type != socket.SOCK_STREAM:
        names = " or ".join(socket.AddressFamily(family).name for family in families)
        return f"is not a stream socket of {names}"
    listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if listens and not is_listening:
        return "listens: adopt it as a listener"
    if is_listening and not listens:
        return "does not listen: adopt it as a stream"
    if not is_listening:
        try:
            sock.getpeername()
        except OSError:
            return "is not connected"
    return ""
