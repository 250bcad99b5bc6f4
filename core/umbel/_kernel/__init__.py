"""The runtime: one hub per OS thread, on which coroutines take turns.

Rules, kept by import-linter: only core imports this package, and of its modules
only `switch` knows greenlet.

    switch    carriers, on which coroutines run
    timers    what is due when
    poller    readiness, from epoll, kqueue or poll
    hub       the coroutines of a thread: ready queue, waiting, cancellation

docs/architecture.md tells how they fit together.
"""
