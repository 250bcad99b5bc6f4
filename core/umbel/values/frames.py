"""Which frames are of umbel's own code, and so no place to show to its user."""

from __future__ import annotations

from types import FrameType
from typing import Final

#: Our packages. A program's own `umbel_chat` is none of them.
_OURS: Final = frozenset({"umbel", "umbel_transports", "umbel_plugins"})


def is_ours(frame: FrameType) -> bool:
    """Tell whether *frame* runs umbel's own code."""
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in _OURS


def first_of_others(frame: FrameType | None) -> FrameType | None:
    """Give *frame*, or else the innermost caller of it, that is not ours."""
    while frame is not None and is_ours(frame):
        frame = frame.f_back
    return frame
