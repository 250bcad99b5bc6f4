"""The runtime: one hub per OS thread, on which coroutines take turns.

Rules, kept by import-linter: only core imports this package, and of its modules
only `switch` knows greenlet. docs/architecture.md tells what each is for.
"""
