"""Who is at the other end.

Annotations are not strings here: see `umbel.report`.
"""

from collections.abc import Callable
from typing import NamedTuple, final


class _Numbers(NamedTuple):
    pid: int
    uid: int
    gid: int


@final
class PeerIdentity(_Numbers):
    """Who is at the other end, according to the kernel.

    A tuple of the first three, and of nothing else.

    Args:
        pid: process that connected or listened; it may be gone by now.
        uid: its effective user.
        gid: its effective group.
        open_pidfd: gives what `pidfd` is, or raises its errors.
    """

    _open_pidfd: Callable[[], int] | None

    def __new__(
        cls,
        pid: int,
        uid: int,
        gid: int,
        open_pidfd: Callable[[], int] | None = None,
    ) -> "PeerIdentity":
        """Make one; a test of a program's own needs no *open_pidfd*."""
        self = super().__new__(cls, pid, uid, gid)
        self._open_pidfd = open_pidfd
        return self

    @property
    def pidfd(self) -> int:
        """A descriptor for that process, which can never come to mean another one.

        Opened when it is asked for first. Owned by the stream, and valid while the
        stream is open. -1 if the kernel gives none.

        Raises:
            OSError: EMFILE, ENFILE: no descriptor is left.

        Source:
            unix(7); SO_PEERPIDFD, since Linux 6.5.
        """
        return -1 if self._open_pidfd is None else self._open_pidfd()

    def __reduce__(self) -> tuple[object, ...]:
        # What opens it can't be copied, and means nothing elsewhere.
        return type(self), tuple(self)
