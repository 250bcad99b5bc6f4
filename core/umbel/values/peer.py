"""Who is at the other end, and who may connect: answers for `allow=`.

Annotations are not strings here: see `umbel.report`.
"""

import os
from typing import NamedTuple, final


@final
class PeerIdentity(NamedTuple):
    """Who is at the other end, according to the kernel.

    Attributes:
        pid: process that connected or listened; it may be gone by now.
        uid: its effective user.
        gid: its effective group.
        pidfd: a descriptor for that process, which can never come to mean another one.
            Owned by the stream, and valid while the stream is open. -1 if the kernel
            gives none.
    """

    pid: int
    uid: int
    gid: int
    pidfd: int = -1


def same_user(peer: PeerIdentity) -> bool:
    """Allow peers that have our own effective user: listen(..., allow=same_user).

    Args:
        peer: who connects, according to the kernel.

    Returns:
        whether it may.

    Source:
        unix(7), SO_PEERCRED.
    """
    return peer.uid == os.geteuid()
