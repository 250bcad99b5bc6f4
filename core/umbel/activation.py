"""Listeners that a service manager has opened for us: systemd's socket activation."""

from __future__ import annotations

import errno
import os
from typing import Final

from umbel._kernel.current import checkpoint
from umbel.errors import NotSupportedError
from umbel.ipc import ipc_listener_fromfd
from umbel.streams.listener import ListenerHandle
from umbel.tcp import tcp_listener_fromfd

#: The first descriptor that is passed (SD_LISTEN_FDS_START).
FIRST: Final = 3
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def activated_listeners() -> list[tuple[str, ListenerHandle]]:
    """Take over the listeners that the service manager has passed to us.

    Call it once: it removes the variables that describe them, so that a child does not
    take them for its own. What is no listener of ipc or tcp, such as a connection or
    datagrams, is left alone, as is one of a scheme that is forbidden: if there may be
    some, read the variables before.

    Returns:
        the name (FileDescriptorName=) and the handle of each, in the order of the unit;
        none, if nothing was passed to this process. Their files belong to the manager.

    Raises:
        OSError: EBADF, a descriptor that was promised is not open. None is taken over.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        sd_listen_fds_with_names(3).
    """
    pid, count, names = (os.environ.get(name, "") for name in _VARIABLES)
    is_ours = pid == str(os.getpid()) and count.isascii() and count.isdigit()
    fds = range(FIRST, FIRST + int(count)) if is_ours else range(0)
    shown = names.split(":") if names else []
    for fd in fds:
        os.set_inheritable(fd, False)  # EBADF before any is taken over
    checkpoint()  # not before: what a new hub opens might fill a gap among them
    for name in _VARIABLES:
        os.environ.pop(name, None)
    found = []
    for index, fd in enumerate(fds):
        listener = _adopt(fd)
        if listener is not None:
            name = shown[index] if index < len(shown) else "unknown"
            found.append((name, listener))
    return found


def _adopt(fd: int) -> ListenerHandle | None:
    for adopt in (ipc_listener_fromfd, tcp_listener_fromfd):
        try:
            return adopt(fd)
        except NotSupportedError:
            pass  # that transport is forbidden here
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return None
