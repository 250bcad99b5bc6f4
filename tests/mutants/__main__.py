"""Trying transports with the kit, several at once, each in a process of its own.

    python -m tests.mutants NAME...

A name is that of a mutant, on which the one behaviour is tried that is meant for it; or
of a transport that is sound, on which all are. Each gives one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence

from tests.mutants import MUTANTS, minimal, opaque
from tests.mutants.making import BASES
from umbel.registry import find_transport, remove_transport
from umbel.testing import transport_at_hand
from umbel.testing.conformance import (
    BEHAVIOURS,
    Report,
    Subject,
    Trial,
    check,
    try_behaviour,
)

#: Seconds that what never comes is waited for: the whole point is that it doesn't.
PATIENCE = 1.5
#: Seconds after which it hangs, which is how some are caught.
WATCHDOG = 4.0
#: Tries are for the most part waits: so more of them at once than there are processors.
AT_ONCE = 4
#: One line, which is written at once.
LONGEST = 3000


def try_mutant(name: str) -> tuple[str, str]:
    """Try the behaviour that is meant for a mutant."""
    entry = MUTANTS[name]
    find_transport(entry.scheme)
    remove_transport(entry.scheme)
    Trial.patience = PATIENCE
    base = BASES[entry.scheme]
    with transport_at_hand(entry.make(base), entry.scheme):
        subject = Subject(base.traits().address)
        behaviour = BEHAVIOURS[entry.number]
        verdict = try_behaviour(behaviour, subject, entry.driver, WATCHDOG)
    return verdict.state, verdict.reason


def check_minimal() -> tuple[str, str]:
    """Try everything on the smallest transport."""
    with transport_at_hand(minimal.transport, "loop"):
        return told(check("loop"))


def check_opaque() -> tuple[str, str]:
    """Try everything on the opaque one; core may ask it for nothing else."""
    with transport_at_hand(opaque.transport, "opaque"):
        state, reason = told(check("opaque"))
    # The standard shutdown tells a stream from a listener by it.
    strange = opaque.asked_for - {"OpaqueListener.receive_into"}
    return (state, reason) if not strange else ("failed", f"asked for {strange}")


def told(report: Report) -> tuple[str, str]:
    """Give the state of a report as a whole, and what failed."""
    failed = [f"{v.number} {v.driver}: {v.reason}" for v in report.failed]
    passed = {v.number for v in report.verdicts if v.state == "passed"}
    return ("failed", "; ".join(failed)) if failed else ("passed", f"{len(passed)}")


SOUND: dict[str, Callable[[], tuple[str, str]]] = {
    "ipc": lambda: told(check("ipc")),
    "mem": lambda: told(check("mem")),
    "tcp": lambda: told(check("tcp")),
    "loop": check_minimal,
    "opaque": check_opaque,
}


def try_one(name: str) -> None:
    """Print what comes of one name."""
    state, reason = SOUND[name]() if name in SOUND else try_mutant(name)
    line = json.dumps({"name": name, "state": state, "reason": reason[:LONGEST]})
    os.write(sys.stdout.fileno(), line.encode() + b"\n")


def try_all(names: Sequence[str]) -> None:
    """Try each name in a process of its own."""
    running = 0
    for name in names:
        if running == AT_ONCE:
            os.wait()
            running -= 1
        if not os.fork():
            try:
                try_one(name)
            finally:
                os._exit(0)  # whatever it has left running
        running += 1
    for _ in range(running):
        os.wait()


if __name__ == "__main__":
    try_all(sys.argv[1:])
