"""For tests of programs that use umbel, and of transports.

`run` gives a program a clock that jumps; `transport_at_hand` registers a transport for
a while; `umbel.testing.conformance` is the kit that every transport must pass, and
`umbel.testing.pytest_plugin` runs it as pytest tests.
"""

from umbel.testing.clock import run
from umbel.testing.transports import transport_at_hand

__all__ = ["run", "transport_at_hand"]
