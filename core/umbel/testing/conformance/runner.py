"""Trying behaviours, each in a thread of its own, under a watchdog."""

from __future__ import annotations

import errno
import gc
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import umbel
from umbel.errors import system_error
from umbel.handle import open_handles
from umbel.plugins.observers import load_requested
from umbel.testing.conformance.behaviour import BEHAVIOURS, ELSEWHERE, Behaviour
from umbel.testing.conformance.children import kill_all
from umbel.testing.conformance.expecting import Violation
from umbel.testing.conformance.looking import allow_descriptors, open_descriptors
from umbel.testing.conformance.loops import AsyncioTrial, TrioTrial
from umbel.testing.conformance.subject import Subject, new_folder
from umbel.testing.conformance.trial import CoroutineTrial, Trial
from umbel.testing.conformance.verdicts import Report, Verdict

#: Seconds after which a behaviour hangs.
WATCHDOG: Final = 30.0
#: Seconds that all behaviours of a scheme may take together, unless told otherwise.
LIMIT: Final = 55.0
#: Seconds between two looks whether a signal has come.
GLANCE: Final = 0.1
#: Seconds that a behaviour has to clean up, when the program ends in the middle of it.
LAST_MOMENT: Final = 0.5

#: What runs behaviours, by name: the trial that each gives them.
DRIVERS: Final[dict[str, type[Trial]]] = {
    "threads": Trial,
    "coroutines": CoroutineTrial,
    "asyncio": AsyncioTrial,
    "trio": TrioTrial,
}

_PARTS: Final = (
    "moving",
    "ending",
    "closing",
    "aborting",
    "waiting",
    "canceling",
    "native",
    "sharing",
    "listening",
    "files",
    "abilities",
    "manners",
)
for _part in _PARTS:
    import_module(f"umbel.testing.conformance.{_part}")


_NUMBERS: Final = {*BEHAVIOURS, *ELSEWHERE}


def check(
    scheme_or_template: str,
    numbers: Collection[int] = (),
    drivers: Collection[str] | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
    limit: float = LIMIT,
) -> Report:
    """Try the behaviours on a transport.

    Args:
        scheme_or_template: as of `Subject`.
        numbers: of the behaviours; none: all.
        drivers: of `DRIVERS`; None: all.
        on_verdict: called with each verdict as it comes.
        limit: seconds that all behaviours may take together; those that no time is left
            for are "not tried". 0: no limit. One that takes longer than 30 s fails.

    Returns:
        all verdicts.

    Raises:
        OSError: the transport can't be loaded, or does not say where to try it;
            EINVAL, there is no such behaviour or driver.
    """
    subject = Subject(scheme_or_template)
    load_requested()  # now, or what an observer opens would seem a behaviour's leak
    _require_known(numbers, drivers or ())
    wanted = sorted(set(numbers) or _NUMBERS)
    give_up = time.monotonic() + (limit or math.inf)
    verdicts = []
    for verdict in _try_all(subject, wanted, list(drivers or DRIVERS), give_up):
        if on_verdict is not None:
            on_verdict(verdict)
        verdicts.append(verdict)
    source = subject.transport.source
    return Report(subject.scheme, source, subject.declared(), verdicts)


def _require_known(numbers: Collection[int], drivers: Collection[str]) -> None:
    unknown = [str(number) for number in numbers if number not in _NUMBERS]
    if unknown:
        strange, first, last = ", ".join(unknown), min(_NUMBERS), max(_NUMBERS)
        message = f"no behaviour has the number {strange}: they are {first} to {last}"
        raise system_error(errno.EINVAL, message)
    unknown = [driver for driver in drivers if driver not in DRIVERS]
    if unknown:
        strange = ", ".join(driver or "''" for driver in unknown)
        message = f"no driver is called {strange}: there are {', '.join(DRIVERS)}"
        raise system_error(errno.EINVAL, message)


def _try_all(
    subject: Subject, numbers: Sequence[int], drivers: Sequence[str], give_up: float
) -> Iterator[Verdict]:
    for number in numbers:
        if number in ELSEWHERE:
            title = "shown elsewhere"
            yield Verdict(number, title, "", "skipped", ELSEWHERE[number])
            continue
        for driver in drivers:
            yield _try_in_time(BEHAVIOURS[number], subject, driver, give_up)


def _try_in_time(
    behaviour: Behaviour, subject: Subject, driver: str, give_up: float
) -> Verdict:
    left = give_up - time.monotonic()
    if left <= 0:
        reason = behaviour.why_not(subject, driver)
        state = "skipped" if reason else "not tried"
        reason = reason or "no time was left"
        return Verdict(behaviour.number, behaviour.title, driver, state, reason)
    patience = min(left + 1, WATCHDOG)
    verdict = try_behaviour(behaviour, subject, driver, patience)
    if verdict.seconds < patience or patience == WATCHDOG:
        return verdict
    # It would perhaps have passed: nobody knows.
    reason = "no time was left to finish it"
    number, title, seconds = behaviour.number, behaviour.title, verdict.seconds
    return Verdict(number, title, driver, "not tried", reason, seconds)


def try_behaviour(
    behaviour: Behaviour, subject: Subject, driver: str, patience: float = WATCHDOG
) -> Verdict:
    """Try one behaviour with one driver.

    Args:
        behaviour: which one.
        subject: the transport.
        driver: of `DRIVERS`.
        patience: seconds after which it counts as hanging.

    Returns:
        the verdict.
    """
    reason = behaviour.why_not(subject, driver) or DRIVERS[driver].why_not()
    if reason:
        return Verdict(behaviour.number, behaviour.title, driver, "skipped", reason)
    start = time.monotonic()
    problem = _run(behaviour, subject, driver, patience)
    seconds = time.monotonic() - start
    state = "failed" if problem else "passed"
    return Verdict(behaviour.number, behaviour.title, driver, state, problem, seconds)


def _run(behaviour: Behaviour, subject: Subject, driver: str, patience: float) -> str:
    told, has_left = _run_once(behaviour, subject, driver, patience)
    if has_left:  # what the transport keeps for good is not left a second time
        told, has_left = _run_once(behaviour, subject, driver, patience)
    return told


def _run_once(
    behaviour: Behaviour, subject: Subject, driver: str, patience: float
) -> tuple[str, bool]:
    """Tell what went wrong, and whether that is only that something was left."""
    umbel.now()
    before, handles = open_descriptors(), set(open_handles)
    threads = threading.active_count()
    problems: list[str] = []

    with new_folder() as folder:  # of this thread: removed if the program ends in here

        def work() -> None:
            trial = DRIVERS[driver](subject, folder)
            try:
                trial.run(lambda: problems.extend(_try(behaviour, trial)))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is wrong
                problems.append(_tell(error))

        worker = threading.Thread(target=work, name=f"umbel.check {behaviour.number}")
        worker.daemon = True
        worker.start()
        _join(worker, patience)
        if worker.is_alive():
            allow_descriptors()
            told = f"it hangs: {_where(worker)}"
            kill_all()  # children: they would outlive the program
            _disown(set(open_handles) - handles)
            return told, False
    has_left = not problems and not _is_clean(before, threads)
    if has_left:
        left = len(open_descriptors() - before)
        problems.append(
            f"it left {left} descriptors and "
            f"{threading.active_count() - threads} threads behind"
        )
    return "; ".join(problems), has_left


def _disown(handles: Collection[int]) -> None:
    """Let nobody close what a call that hangs uses: its abort may hang at exit, too."""
    for handle in handles:
        resource = open_handles.get(handle)
        if resource is not None:
            resource.owner = 0


def _join(worker: threading.Thread, patience: float) -> None:
    """Wait for *worker*, but no longer than until something ends the program."""
    give_up = time.monotonic() + patience
    try:
        while worker.is_alive() and (left := give_up - time.monotonic()) > 0:
            worker.join(min(left, GLANCE))
            umbel.yield_()  # where a signal's SystemExit is raised: see decision 8
    except BaseException:
        worker.join(LAST_MOMENT)
        kill_all()
        raise


def _try(behaviour: Behaviour, trial: Trial) -> Iterator[str]:
    try:
        behaviour.run(trial)
    except Violation as violation:
        yield str(violation)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is wrong
        yield _tell(error)
    try:
        trial.clean_up()
    except BaseException as error:  # noqa: BLE001
        yield f"cleaning up: {_tell(error)}"


def _is_clean(before: set[int], threads: int) -> bool:
    for attempt in range(50):
        if open_descriptors() <= before and threading.active_count() <= threads:
            return True
        if attempt == 1:
            gc.collect()
        time.sleep(0.01)  # other threads of the program may be busy
    return False


def _tell(error: BaseException) -> str:
    """Say what went wrong, in which line of the behaviour, and where that came from."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # a loop's own group says nothing
    frames = traceback.extract_tb(error.__traceback__)
    told = f"{type(error).__name__}: {error}"
    own = [frame for frame in frames if _is_behaviour(frame.filename)]
    if own:
        told += f", in `{own[-1].line}`"
    if frames:
        told += f" at {frames[-1].filename}:{frames[-1].lineno}"
    return told


def _is_behaviour(filename: str) -> bool:
    path = Path(filename)
    return path.parent.name == "conformance" and path.stem in _PARTS


def _where(thread: threading.Thread) -> str:
    """Say where a thread, or what coroutine runs in it, hangs."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return "nowhere"
    stack = traceback.extract_stack(frame)
    own = [f for f in stack if "conformance" in f.filename] or stack
    shown = [*own[-2:], stack[-1]]
    return " > ".join(f"{f.name} ({f.filename}:{f.lineno})" for f in shown)
