"""Address spaces of the `mem` transport."""

from __future__ import annotations

from _thread import LockType, allocate_lock
from typing import Final, final


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
        self.lock: LockType = allocate_lock()

    def __repr__(self) -> str:
        return f"<Memory with {len(self.listeners)} listeners>"


#: The address space that all share who name none.
SHARED_MEMORY: Final = Memory()
