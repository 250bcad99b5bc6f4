"""For tests of programs that use umbel."""

from umbel.testing.clock import run

__all__ = ["run"]
