"""The names of local sockets: what the kernel takes, and what is wrong with one.

A path of up to 107 bytes is a name as it is; a longer one is reached through its
folder. `@name` is abstract: the kernel's name for it begins with a NUL.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from umbel.spi import Address, system_error
from umbel_transports._holder import find_holder

#: sun_path holds 108 bytes, the last of which is a NUL.
PATH_MAX: Final = 107
#: Of a path that is reached by its folder: the kernel's own limit, less a NUL.
LONGEST_PATH: Final = 4095
#: What is left of sun_path for an abstract name, whose first byte is a NUL.
ABSTRACT_MAX: Final = 107
#: Where the folders of long paths are found, by their descriptors.
_FOLDERS: Final = b"/proc/self/fd/"


def check_location(address: Address) -> bytes:
    """Give the location in bytes. EINVAL or ENAMETOOLONG: it can't be a name."""
    try:
        raw = os.fsencode(address.location)
    except UnicodeEncodeError as error:
        message = f"the path can't be encoded: {error.reason}"
        raise system_error(errno.EINVAL, message) from None
    if raw in (b"", b"@"):
        message = "the path is empty: write ipc:name.sock or ipc:///folder/name.sock"
        raise system_error(errno.EINVAL, message)
    if len(raw) > LONGEST_PATH:
        message = f"a path can have {LONGEST_PATH} bytes, not {len(raw)}: shorten it"
        raise system_error(errno.ENAMETOOLONG, message)
    if b"\0" in raw:
        message = "the path has a NUL in it: an abstract name starts with @"
        raise system_error(errno.EINVAL, message)
    return raw


def short_name(address: Address) -> bytes | None:
    """Give the name by which the kernel takes *address*; None for a long path."""
    raw = check_location(address)
    if not raw.startswith(b"@"):
        return raw if len(raw) <= PATH_MAX else None
    if len(raw) > 1 + ABSTRACT_MAX:
        message = (
            f"{address}: after the @ a name can have {ABSTRACT_MAX} bytes, not "
            f"{len(raw) - 1}: shorten it"
        )
        raise system_error(errno.ENAMETOOLONG, message)
    return b"\0" + raw[1:]


@contextmanager
def reachable(address: Address) -> Iterator[bytes]:
    """Give the name by which the kernel takes *address*, also a long path."""
    short = short_name(address)
    if short is not None:
        yield short
    else:
        path = os.fsencode(address.location)
        folder, name = os.path.split(path)
        try:
            at = os.open(folder or b".", getattr(os, "O_PATH", os.O_RDONLY))
        except OSError as error:
            raise explain(error, address) from None
        try:
            start = b"%s%d/" % (_FOLDERS, at)
            room = PATH_MAX - len(start)
            if len(name) > room:
                message = (
                    f"{address}: the last part of a path of {len(path)} bytes can have "
                    f"{room} bytes at most, not {len(name)}: shorten it, or the whole "
                    f"path to {PATH_MAX}"
                )
                raise system_error(errno.ENAMETOOLONG, message)
            yield start + name
        finally:
            os.close(at)


def location_of(name: bytes | str) -> str:
    """Give the location that the kernel's *name* is of; "" if that can't be known."""
    raw = os.fsencode(name)
    if raw.startswith(_FOLDERS):
        return ""  # a long path, by a descriptor that was closed since
    if raw.startswith(b"\0"):
        raw = b"@" + raw[1:]
    elif raw.startswith(b"@"):
        raw = b"./" + raw  # a file, in the folder that was the current one
    return os.fsdecode(raw)


def absolute(address: Address) -> str:
    """Give the path that another process can use, and that we find after a chdir."""
    location = address.location
    try:
        if ".." in location.split("/") or location.endswith(("/", "/.")):
            # As the kernel will read it: what leads to ".." may be a symbolic link, and
            # what is in front of a last "/" must be a folder.
            return os.path.join(os.getcwd(), location)
        return os.path.abspath(location)
    except FileNotFoundError:
        message = (
            f"{address}: the current folder was deleted: change to another, or give a "
            "whole path"
        )
        raise system_error(errno.ENOENT, message) from None


# Errors.


def in_use(name: bytes, address: Address, *, is_sure: bool = True) -> OSError:
    """Give the error of a name that somebody holds: it says who, if that is known."""
    pid = find_holder(name)
    who = "a live process" if pid is None else f"the live process {pid}"
    message = f"{address} is in use by {who}: stop it, or use another path"
    if pid is None and not is_sure:
        message = (
            f"{address} is there already, and we have no permission to see whether "
            "somebody listens: use another path"
        )
    return system_error(errno.EADDRINUSE, message)


_ADVICE: Final = {
    errno.ENOENT: "there is no such file: start the listener, or mend the path",
    errno.ECONNREFUSED: "nobody listens there: the listener has stopped",
    errno.EACCES: "no permission for the socket file or its folder",
    errno.EPERM: "the system forbids it: the socket file may be another user's",
    errno.EADDRINUSE: "the name is taken: stop who holds it, or choose another",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EPROTOTYPE: "that socket is not a stream socket",
}


def kind_of(found: os.stat_result) -> str:
    """Tell what a file that is no socket is instead."""
    if stat.S_ISDIR(found.st_mode):
        return "a folder"
    return "a fifo" if stat.S_ISFIFO(found.st_mode) else "a file"


def explain(error: OSError, address: Address) -> OSError:
    """Give *error*, of a system call on *address*, with words that say what to do."""
    number = error.errno or errno.EIO
    if number == errno.ECONNREFUSED and not address.location.startswith("@"):
        try:
            found = os.stat(address.location)
        except OSError:
            pass  # it went meanwhile
        else:
            if not stat.S_ISSOCK(found.st_mode):
                what = f"{address} is {kind_of(found)}, and no socket: mend the path"
                return system_error(number, what)
    if number == errno.ENOENT and not os.path.lexists(
        os.path.dirname(address.location) or "."
    ):
        advice = "make it"
        if address.location.startswith("~") or "/~" in address.location:
            advice = "a ~ stays as it is: use os.path.expanduser"
        message = f"{address}: its folder does not exist: {advice}"
        return system_error(number, message)
    return system_error(number, f"{address}: {_ADVICE.get(number, 'it failed')}")
