"""Address spaces of the `mem` transport."""

from __future__ import annotations

import os
from _thread import RLock
from typing import Final, final

#: Of all memories: reentrant, as a signal's handler may close a listener while its
#: thread holds it, and so may the garbage collector.
_lock: Final = RLock()


@final
class Memory:
    """An in-process address space for `mem` connections, with names of its own.

    A name in one Memory means nothing in another. Connections in it are real socket
    pairs; nothing in it is a file.

    Attributes:
        listeners: by name. For the transport only; guarded by `lock`.
        lock: held for look-ups and changes only.
    """

    __slots__ = ("listeners", "lock")

    def __init__(self) -> None:
        self.listeners: dict[str, object] = {}
        self.lock: RLock = _lock

    def __repr__(self) -> str:
        return f"<Memory with {len(self.listeners)} listeners>"


#: The address space that all share who name none.
SHARED_MEMORY: Final = Memory()

# A child that was forked while another thread looks something up would else find the
# lock held by nobody.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_lock.release,
    )
