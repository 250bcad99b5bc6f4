"""Who is let in: the option `allow=` of a listener.

Its function is the program's, and may be wrong, or meet a peer that it cannot judge:
one whose process has ended, for instance. Then that peer is sent away, and the log says
why; the listener, and all who wait in its queue, are none the worse for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from umbel.spi import Address, PeerIdentity, require_plain, require_run

_ADVICE: Final = "allow= is asked between two calls of accept, and must answer at once"
#: Of who accepts, as is what is no Exception; not of the question.
_OF_THE_CALLER: Final = (RecursionError, MemoryError)


def admission(
    allow: Callable[[PeerIdentity], object], address: Address
) -> Callable[[PeerIdentity], bool]:
    """Give what tells whether a peer is let in, and never fails for its sake.

    Args:
        allow: the program's; true lets in, and nothing else does.
        address: of the listener, for the log.

    Raises:
        TypeError: *allow* is an async function.
    """
    require_plain(allow, _ADVICE)

    def is_allowed(peer: PeerIdentity) -> bool:
        try:
            answer = allow(peer)
            require_run(answer, _ADVICE)
            return bool(answer)
        except _OF_THE_CALLER:
            raise
        except Exception:
            message = "%s: allow= failed, so that process %d was sent away"
            logging.getLogger("umbel").exception(message, address, peer.pid)
            return False

    return is_allowed
