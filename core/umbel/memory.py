"""Address spaces of the `mem` transport."""

from __future__ import annotations

import os
from _thread import RLock
from typing import Final, final

#: Of all memories. A signal's handler may close a listener while its thread holds it,
#: and so may the garbage collector.
_lock = RLock()


@final
class Memory:
    """An in-process address space for `mem` connections, with names of its own.

    A name in one Memory means nothing in another. Connections in it are real socket
    pairs; nothing in it is a file.

    Attributes:
        listeners: by name. For the transport only; guarded by `lock`.
    """

    __slots__ = ("listeners",)

    def __init__(self) -> None:
        self.listeners: dict[str, object] = {}

    @property
    def lock(self) -> RLock:
        """What is held for look-ups and changes, and no longer."""
        return _lock

    def __repr__(self) -> str:
        return f"<Memory with {len(self.listeners)} listeners>"


#: The address space that all share who name none.
SHARED_MEMORY: Final = Memory()


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - who held it may be a thread that is not here
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
