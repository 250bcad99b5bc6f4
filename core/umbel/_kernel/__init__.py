"""The runtime: one hub per OS thread, on which coroutines take turns.

Rules, kept by import-linter: only core imports this package, and of its modules
only `switch` knows greenlet. docs/architecture.md tells what each is for.
"""

import sys
import warnings

if "t" in sys.abiflags:
    # See docs/decisions/0025-free-threading.md.
    warnings.warn(
        "this is a free-threaded build of Python, for which umbel is not made: it "
        "relies on the GIL, and greenlet may crash; use the usual build",
        RuntimeWarning,
        stacklevel=2,
    )
