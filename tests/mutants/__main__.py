"""Trying one mutant: `python -m tests.mutants NAME`."""

from __future__ import annotations

import os
import sys

from tests.mutants.making import (
    BASES,
    MUTANTS,
)
from umbel.registry import find_transport, remove_transport
from umbel.testing import transport_at_hand
from umbel.testing.conformance import BEHAVIOURS, Subject, Trial, try_behaviour

#: Seconds that what never comes is waited for: the whole point is that it doesn't.
PATIENCE = 1.5
#: Seconds after which it hangs, which is how some are caught.
WATCHDOG = 4.0


def main(name: str) -> None:
    """Try the behaviour that is meant for a mutant; print what the kit finds."""
    entry = MUTANTS[name]
    find_transport(entry.scheme)
    remove_transport(entry.scheme)
    Trial.patience = PATIENCE
    with transport_at_hand(entry.make(BASES[entry.scheme]), entry.scheme):
        subject = Subject(BASES[entry.scheme].traits().address)
        behaviour = BEHAVIOURS[entry.number]
        verdict = try_behaviour(behaviour, subject, entry.driver, WATCHDOG)
    print(verdict.state, verdict.reason)
    sys.stdout.flush()
    os._exit(0)  # whatever it has left running


if __name__ == "__main__":
    main(sys.argv[1])
