"""Where coroutines are: what each of them waits for, and in which line.

A thread's coroutines are looked at in that thread. To read the frames of a greenlet
that another thread may switch to at any moment crashes the interpreter.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Sequence
from functools import partial
from time import monotonic, monotonic_ns
from types import FrameType
from typing import Final, NamedTuple

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import all_hubs
from umbel._kernel.hub import Hub
from umbel._kernel.switch import frame_of
from umbel.coroutines.bundles import UNLISTED, Bundle
from umbel.coroutines.member import Member
from umbel.handle import open_handles, place_of
from umbel.values.frames import first_of_others, is_ours

#: Seconds that other threads may take to begin to answer, and then to do so: one that
#: has many thousands of coroutines needs a while.
PATIENCE: Final = 0.1
LONGEST_ANSWER: Final = 3.0
#: Hubs that have yet to answer an earlier question; they are asked no other.
_late: Final[set[Hub]] = set()


class LiveCoroutine(NamedTuple):
    """One coroutine that has not ended.

    Attributes:
        thread: the name of its thread.
        name: of its function; "main" for the thread's own program.
        bundle: the last handle of its bundle; 0 for "main".
        state: "running", "ready" or "waiting".
        waits_on: the call that it waits in, such as "receive(5)"; "" if in none.
        place: "file:line" of that call, or of where it is.
        waiting_ms: how long it has been waiting, by the real clock; counted from the
            last time that its thread looked for events before it began to wait.
        started: "file:line" of the call that started it.
    """

    thread: str
    name: str
    bundle: int
    state: str
    waits_on: str
    place: str
    waiting_ms: int
    started: str


def list_coroutines() -> list[LiveCoroutine]:
    """List those of all threads, by thread; waits a little for what others tell."""
    mine = threading.get_ident()
    view = _View()
    others = [h for h in view.coroutines if h.thread != mine and not h.is_abandoned]
    question = _Question(view)
    question.ask(others)
    found = []
    for hub in view.coroutines:
        if hub.thread == mine and not hub.is_abandoned:
            found += view.look_at(hub)
        else:
            found += question.answers.get(hub) or view.look_from_afar(hub)
    return found


class _Question:
    """Has the threads of other hubs look at their own coroutines.

    Attributes:
        answers: of those that have answered in time.
    """

    def __init__(self, view: _View) -> None:
        self.answers: dict[Hub, list[LiveCoroutine]] = {}
        self._view = view
        self._begun: set[Hub] = set()
        self._bell = threading.Semaphore(0)

    def ask(self, hubs: Sequence[Hub]) -> None:
        """Ask, and wait for the answers as long as one may."""
        asked = [hub for hub in hubs if hub not in _late]
        for hub in asked:
            _late.add(hub)
            hub.post(partial(self._answer, hub))
        start, heard = monotonic(), 0
        while heard < len(asked) and self._hears(start + PATIENCE):
            heard += 1
        while self._begun and self._hears(start + LONGEST_ANSWER):
            pass  # they are in the midst of it

    def _hears(self, give_up: float) -> bool:
        return self._bell.acquire(timeout=max(0, give_up - monotonic()))

    def _answer(self, hub: Hub) -> None:
        self._begun.add(hub)
        try:
            if not hub.is_abandoned:
                self.answers[hub] = self._view.look_at(hub)
        except RecursionError:
            pass  # in the midst of a deep call, which must not hear of it
        finally:
            self._begun.discard(hub)
            _late.discard(hub)
            self._bell.release()


class _View:
    """What one census looks at, found once: many threads may have many coroutines."""

    def __init__(self) -> None:
        self._names = {thread.ident: thread.name for thread in threading.enumerate()}
        self.coroutines: dict[Hub, list[Coroutine]] = {
            hub: [hub.main] for hub in all_hubs()
        }
        for member in _all_members():
            self.coroutines.setdefault(member.hub, []).append(member)

    def look_at(self, hub: Hub) -> list[LiveCoroutine]:
        """Look at what runs in *hub*, whose thread calls."""
        describe = partial(_describe, self._name_of(hub), set(hub.ready))
        # Who runs, or polls for its hub, has no frame of its own but the thread's.
        return [
            describe(
                coroutine,
                # No local for our own frame: it would refer to itself.
                *_find_call(frame_of(coroutine.carrier) or sys._getframe()),
            )
            for coroutine in self.coroutines[hub]
            if not _has_ended(coroutine)
        ]

    def look_from_afar(self, hub: Hub) -> list[LiveCoroutine]:
        """Tell what can be told of one that does not answer, or has no thread now."""
        top = None if hub.is_abandoned else sys._current_frames().get(hub.thread)
        top = first_of_others(top)
        here = "" if top is None else _place_in(top)
        describe = partial(_describe, self._name_of(hub), set(hub.ready))
        return [
            describe(coroutine, "", here if coroutine is hub.current else "")
            for coroutine in self.coroutines[hub]
            if not _has_ended(coroutine)
        ]

    def _name_of(self, hub: Hub) -> str:
        return self._names.get(hub.thread, "?")


def _all_members() -> list[Member]:
    listed = [b for b in list(open_handles.values()) if isinstance(b, Bundle)]
    bundles = {*listed, *UNLISTED}
    return [member for bundle in bundles for member in list(bundle.running)]


def _has_ended(coroutine: Coroutine) -> bool:
    """Tell whether it has ended meanwhile, so that its carrier is another one's."""
    return isinstance(coroutine, Member) and coroutine not in coroutine.bundle.running


def _describe(
    thread: str,
    ready: Collection[Coroutine],
    coroutine: Coroutine,
    call: str,
    place: str,
) -> LiveCoroutine:
    is_waiting = coroutine.is_parked
    state = "waiting" if is_waiting else "ready" if coroutine in ready else "running"
    member = coroutine if isinstance(coroutine, Member) else None
    now = monotonic_ns()
    # There is none yet if it is on its way into its first wait.
    begun = getattr(coroutine, "parked_at", now)
    return LiveCoroutine(
        thread,
        coroutine.name,
        0 if member is None else member.bundle.number,
        state,
        call if is_waiting else "",
        place,
        (now - begun) // 1_000_000 if is_waiting else 0,
        "" if member is None else place_of(member.started),
    )


def _find_call(frame: FrameType | None) -> tuple[str, str]:
    """Find the call of ours that a coroutine is in, and the user's line.

    The outermost one: what that calls may be a plugin's, or a transport's, which calls
    us in turn.
    """
    call = found = place = ""
    while frame is not None and frame.f_code is not Member.run.__code__:
        if is_ours(frame):
            handle = frame.f_locals.get("handle", frame.f_locals.get("self"))
            shown = str(int(handle)) if isinstance(handle, int) else ""
            call = f"{frame.f_code.co_name}({shown})"
        elif call or not place:
            found, place = call, _place_in(frame)
            if not call:
                break  # it runs
            call = ""
        frame = frame.f_back
    return (found, place) if place else (call, "")  # its function is one of ours


def _place_in(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
