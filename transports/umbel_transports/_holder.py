"""Which process holds the name of a local socket, for people who want to use it."""

from __future__ import annotations

import os
import re
from typing import Final

_TAKER: Final = re.compile(rb"\.\d+-[0-9a-f]+")


def taker_name(number: int) -> str:
    """Name the file of a listener that is to take a path over.

    /proc lists the listener by that name ever after.

    Args:
        number: one that no other such listener of this process has.
    """
    return f".{os.getpid()}-{number:x}"


def is_taker_name(name: bytes) -> bool:
    """Tell whether `taker_name` may have made *name*, in whatever process."""
    return _TAKER.fullmatch(name) is not None


def find_holder(name: bytes) -> int | None:
    """Find who listens there, as far as /proc lets us see; it is only for a message."""
    shown = b"@" + name[1:] if name.startswith(b"\0") else name
    try:
        with open("/proc/net/unix", "rb") as table:
            rows = [line.split(None, 7) for line in table]
        # Not those of accepted streams, which have the name of their listener.
        listed = [(r[6], r[7].strip()) for r in rows if len(r) == 8 and r[5] == b"01"]
        inodes = {inode.decode() for inode, at in listed if at == shown}
        if len(inodes) != 1 or any(_may_have_taken(at, shown) for _, at in listed):
            return None  # after a takeover the old listener has the name, too
        (inode,) = inodes
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if _holds(pid, inode):
                return int(pid)
    except OSError:
        pass  # no /proc here
    return None


def _may_have_taken(name: bytes, path: bytes) -> bool:
    folder, last = os.path.split(name)
    is_near = folder == os.path.dirname(path) or folder.startswith(b"/proc/self/fd/")
    return is_near and is_taker_name(last)


def _holds(pid: str, inode: str) -> bool:
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{fd}"
            if os.path.islink(path) and os.readlink(path) == f"socket:[{inode}]":
                return True
    except OSError:
        pass  # another user's, or gone
    return False
