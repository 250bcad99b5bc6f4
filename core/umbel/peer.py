"""Who may connect: ready-made answers for `allow=`."""

from __future__ import annotations

import os

from umbel.transport import PeerIdentity


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
