"""Who is at the other end, and who may connect: answers for `allow=`.

Annotations are not strings here: see `report`.
"""

import os
from typing import NamedTuple, final


@final
class PeerIdentity(NamedTuple):
    """Who is at the other end, by the word of the kernel.

    Attributes:
        pid: process that connected or listened; it may be gone by now.
        uid: its effective user.
        gid: its effective group.
        pidfd: a descriptor of that process, which no other can take the place of. The
            stream's own: valid while it is open. -1 where the kernel has none.
    """

    pid: int
    uid: int
    gid: int
    pidfd: int = -1


def same_user(peer: PeerIdentity) -> bool:
    """Allow who runs as the same effective user as we do: listen(..., allow=same_user).

    Args:
        peer: who connects, by the word of the kernel.

    Returns:
        whether it may.

    Source:
        unix(7), SO_PEERCRED.
    """
    return peer.uid == os.geteuid()
