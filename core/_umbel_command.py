"""The command `umbel`, up to where the package is imported.

A module of its own: a Ctrl-C while `import umbel` is on its way, which is most of the
time that a command takes to start, could be caught nowhere in the package.
"""

from __future__ import annotations


def main() -> int:
    """Run the command line; give the exit status."""
    try:
        from umbel.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # 128 and SIGINT; later on `umbel.exit_on_signal` sees to it
