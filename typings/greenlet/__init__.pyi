# Only what umbel's kernel uses of greenlet.
from collections.abc import Callable
from contextvars import Context
from types import FrameType

class greenlet:
    parent: greenlet
    gr_context: Context | None
    @property
    def gr_frame(self) -> FrameType | None: ...
    def __init__(
        self, run: Callable[[], object] | None = None, parent: greenlet | None = None
    ) -> None: ...
    def switch(self) -> object: ...
    def throw(self) -> object: ...

def getcurrent() -> greenlet: ...
