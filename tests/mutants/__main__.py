"""Trying transports with the kit, several at once, each in a process of its own.

    python -m tests.mutants NAME...

A name is that of a mutant, on which the one behaviour is tried that is meant for it; or
of a transport that is sound and a driver, such as mem-threads, with which all are. Each
gives one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from tests.mutants import MUTANTS, minimal, opaque
from tests.mutants.making import BASES
from umbel.plugins.registry import add_transport, find_transport, remove_transport
from umbel.testing import transport_at_hand
from umbel.testing.conformance import (
    BEHAVIOURS,
    Subject,
    Trial,
    check,
    try_behaviour,
)

#: Seconds that what never comes is waited for: the whole point is that it doesn't.
PATIENCE = 1.5
#: Seconds after which it hangs, which is how some are caught.
WATCHDOG = 10.0
#: Tries are for the most part waits: so more of them at once than there are processors.
AT_ONCE = 6
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


def check_sound(scheme: str, driver: str) -> tuple[str, str]:
    """Try everything on a transport with one driver; tell what failed."""
    if scheme == "loop":
        add_transport(minimal.transport, scheme)
    elif scheme == "opaque":
        add_transport(opaque.transport, scheme)
    report = check(scheme, drivers=[driver])
    failed = [f"{verdict.number}: {verdict.reason}" for verdict in report.failed]
    # The standard shutdown tells a stream from a listener by it.
    strange = opaque.asked_for - {"OpaqueListener.receive_into"}
    failed += [f"core asked for {name}" for name in strange]
    passed = sum(verdict.state == "passed" for verdict in report.verdicts)
    return ("failed", "; ".join(failed)) if failed else ("passed", f"{passed}")


def try_one(name: str) -> None:
    """Print what comes of one name."""
    scheme, _, driver = name.partition("-")
    state, reason = check_sound(scheme, driver) if driver else try_mutant(name)
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
