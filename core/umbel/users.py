"""Who may connect: answers for `allow=`."""

from __future__ import annotations

import os
from typing import Final

from umbel.values.peer import PeerIdentity

#: Any other error is raised, such as that no descriptor is left: we can't tell then.
_NO_SUCH_FILE: Final = (FileNotFoundError, NotADirectoryError)
#: (uid_t) -1 is nobody's.
_ALL_USERS: Final = (1 << 32) - 1


def same_user(peer: PeerIdentity) -> bool:
    """Allow peers that have our own effective user: listen(..., allow=same_user).

    Args:
        peer: who connects, according to the kernel.

    Returns:
        whether it may. False for all if we run as the user as whom the kernel shows
        those of other user namespaces: it may be anybody.

    Raises:
        OSError: EMFILE, ENFILE: no descriptor is left to find that out.

    Source:
        unix(7), SO_PEERCRED; user_namespaces(7), unmapped user and group IDs.
    """
    return peer.uid == os.geteuid() and (
        peer.uid != _overflow_uid() or _maps_all_users() or peer.pid == os.getpid()
    )


def _overflow_uid() -> int:
    try:
        with open("/proc/sys/kernel/overflowuid") as file:
            return int(file.read())
    except _NO_SUCH_FILE:
        return 65534


def _maps_all_users() -> bool:
    """Tell whether each user has a number here, as outside of user namespaces."""
    try:
        with open("/proc/self/uid_map") as file:
            return sum(int(line.split()[2]) for line in file) >= _ALL_USERS
    except _NO_SUCH_FILE:
        return True  # no namespaces, or none that we are told of
