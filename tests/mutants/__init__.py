"""Transports that are broken on purpose, each in one way that real ones were.

    python -m tests.mutants NAME        tries the behaviour meant for it, and tells

Each is a working transport with one thing changed. What is changed is a proxy round a
stream or listener where that is enough, and the transport itself where it is not. With
each stands the behaviour that must catch it, and what that must say of it.
"""

from tests.mutants import abilities, closing, listening, moving, waiting
from tests.mutants.making import MUTANTS

__all__ = ["MUTANTS", "abilities", "closing", "listening", "moving", "waiting"]
