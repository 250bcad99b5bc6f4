"""The file of a listening local socket: made, replaced, removed.

* Nobody can connect before it has its group and its mode.
* A live listener's file is never taken, unless a takeover is asked for; a stale one
  is replaced; what is no socket is never touched.
* Whoever makes, replaces or removes a file holds the folder's lock, and looks at the
  file under it: two who do so at the same moment don't remove each other's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from umbel.spi import Address, Options, system_error
from umbel_transports._holder import is_taker_name, taker_name
from umbel_transports._local_names import (
    explain,
    in_use,
    kind_of,
    reachable,
)

#: How long a racing starter may hold the folder's lock, in seconds. It needs less than
#: a millisecond; who was stopped amid that holds it for as long.
LOCK_PATIENCE: Final = 1.0
#: The same for who removes its file, and must not block for long.
SHORT_PATIENCE: Final = 0.1


def bind(sock: socket.SocketType, name: bytes, address: Address) -> None:
    """Give *sock* its name, in place of a stale file. EADDRINUSE: somebody holds it.

    If the name is of a file, whoever calls holds the folder's lock.
    """
    try:
        sock.bind(name)
        return
    except OSError as error:
        if error.errno != errno.EADDRINUSE or name.startswith(b"\0"):
            if error.errno == errno.EADDRINUSE:
                raise in_use(name, address) from None
            raise explain(error, address) from None
    _remove_stale(name, address)
    try:
        sock.bind(name)
    except OSError as error:
        raise explain(error, address) from None


def make_file(
    sock: socket.SocketType,
    name: bytes,
    address: Address,
    backlog: int,
    options: Options,
) -> os.stat_result:
    """Make the socket file, and listen. If that fails, none is left."""
    group = options.get("group")
    number = None if group is None else _group_number(group)  # which may take long
    file = None
    try:
        # Meanwhile it could become another's, by a takeover.
        with _locked_folder(name):
            bind(sock, name, address)
            file = os.lstat(name)
            mode = options.get("mode")
            if number is not None or isinstance(mode, int):
                with _opened(name, file) as at:
                    if number is not None:
                        _give(at, number, address, group)
                    if isinstance(mode, int):
                        os.chmod(at, mode)
        sock.listen(backlog)
        return file
    except BaseException:  # also Ctrl-C, right after the bind
        if file is not None:
            remove_file(os.fsdecode(name), file)
        elif sock.getsockname():
            with suppress(FileNotFoundError):
                os.unlink(name)
        raise


@contextmanager
def _opened(name: bytes, file: os.stat_result) -> Iterator[str]:
    """Give a name for *file* that nobody can make another's, as they can its own."""
    if not os.path.exists("/proc/self/fd"):
        yield os.fsdecode(name)
        return
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISSOCK(found.st_mode) or not os.path.samestat(found, file):
            message = "somebody has replaced the socket file while it was made"
            raise system_error(errno.EADDRINUSE, message)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _give(name: str, group: int, address: Address, told: object) -> None:
    try:
        os.chown(name, -1, group)
    except PermissionError:
        message = f"{address}: group={told!r}: you are not in that group"
        raise system_error(errno.EPERM, message) from None


def replace_file(
    sock: socket.SocketType, address: Address, backlog: int, options: Options
) -> os.stat_result:
    """Listen under another name, then move that over the old one: no gap, no loss."""
    target = address.location
    with reachable(address) as name:  # or it could be moved there for nobody
        _require_replaceable(target, address)
        _require_no_other_kind(name, address)
    _remove_abandoned(os.path.dirname(target))
    beside = f"{os.path.dirname(target)}/{taker_name(id(sock))}"
    with reachable(Address("ipc", beside)) as name:
        file = make_file(sock, name, address, backlog, options)
        try:
            # Or who replaces a stale file could take ours for that one.
            with _locked_folder(os.fsencode(target)):
                _require_replaceable(target, address)
                os.rename(beside, target)
        except BaseException as error:  # also Ctrl-C, right after the move
            with suppress(FileNotFoundError):
                os.unlink(name)
            remove_file(target, file)
            if isinstance(error, PermissionError):
                raise explain(error, address) from None
            raise
    return file


def remove_file(location: str, file: os.stat_result) -> None:
    """Remove what is at *location* if it is still *file*; without an error."""
    try:
        # Or another listener's could be moved here between look and removal.
        with _locked_folder(os.fsencode(location), SHORT_PATIENCE):
            if os.path.samestat(os.lstat(location), file):
                os.unlink(location)
    except OSError:
        pass  # removed by someone else: as good


def handed_on(address: Address, state: Options | None) -> os.stat_result | None:
    """Find the file of a listener that came with *state*, if it is still that file."""
    if not state:
        return None
    try:
        found = os.lstat(address.location)
    except (OSError, ValueError):  # ValueError: a NUL in it
        return None
    is_it = (found.st_dev, found.st_ino) == (state.get("device"), state.get("inode"))
    return found if is_it and stat.S_ISSOCK(found.st_mode) else None


def _require_replaceable(target: str, address: Address) -> None:
    try:
        found = os.lstat(target)
    except OSError:
        return  # there is none, or what is made beside it will tell
    _require_socket(found, address)


def _require_no_other_kind(name: bytes, address: Address) -> None:
    """Refuse to take the name from who listens for something else: EADDRINUSE."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as probe:
            probe.setblocking(False)
            if probe.connect_ex(name) in (0, errno.EAGAIN):
                message = (
                    f"{address} is in use by a live socket of another kind than a "
                    "stream's, whose clients would be cut off: use another path"
                )
                raise system_error(errno.EADDRINUSE, message)


def _require_socket(found: os.stat_result, address: Address) -> None:
    if stat.S_ISSOCK(found.st_mode):
        return
    if stat.S_ISLNK(found.st_mode):
        message = (
            f"{address} is a symbolic link to {os.readlink(address.location)}: listen "
            "there, or choose another path"
        )
    else:
        what = kind_of(found)
        message = f"{address} is {what}, and no socket: choose another path"
    raise system_error(errno.EADDRINUSE, message)


@contextmanager
def _locked_folder(name: bytes, patience: float = LOCK_PATIENCE) -> Iterator[None]:
    """Keep out others who are replacing or removing a file at the same moment."""
    try:
        # Refused before it waits, as for the other end of a fifo.
        folder = os.open(os.path.dirname(name) or b".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        folder = -1
    if folder < 0:
        # It may be written to, but not read. If it is gone, what follows will tell.
        yield
        return
    try:
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    break  # bind decides all the same, only less politely
                time.sleep(0.001)
            except OSError:
                break  # a file system without locks: likewise
        yield
    finally:
        # A child that was forked meanwhile has a copy, which would keep the lock.
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)
        os.close(folder)


def _remove_stale(name: bytes, address: Address) -> None:
    try:
        found = os.lstat(name)
    except FileNotFoundError:
        return
    _require_socket(found, address)
    # A datagram connect tells a held socket (EPROTOTYPE) from a stale one
    # (ECONNREFUSED) and leaves nothing in a live backlog.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        number = probe.connect_ex(name)
    if number == errno.ECONNREFUSED:
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass  # by one who can't lock the folder; bind decides
        except PermissionError as error:
            raise explain(error, address) from None
    elif number != errno.ENOENT:
        raise in_use(name, address, is_sure=number != errno.EACCES)


def _remove_abandoned(folder: str) -> None:
    """Remove the files of takeovers that were killed before they moved them."""
    place = os.fsencode(f"{folder}/")
    with suppress(OSError), _locked_folder(place, SHORT_PATIENCE):
        for found in filter(is_taker_name, os.listdir(os.fsencode(folder))):
            address = Address("ipc", f"{folder}/{os.fsdecode(found)}")
            with suppress(OSError), reachable(address) as name:
                _remove_stale(name, address)


def _group_number(group: object) -> int:
    if isinstance(group, int):
        return group
    import grp

    try:
        return grp.getgrnam(str(group)).gr_gid
    except KeyError:
        message = f"there is no group {group!r} on this machine"
        raise system_error(errno.EINVAL, message) from None
