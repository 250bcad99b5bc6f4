"""The command line: `umbel demo`, `listen`, `connect`, `transports`, `check`, `top`.

What moves bytes uses the library as anyone does. Only the two lists, of transports and
of a census, take their tables from the modules that make them. The exit statuses are
told by --help, in `parser`.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Collection, Sequence

import umbel
from umbel.cli.failure import report_failure, status_of
from umbel.cli.parser import make_parser
from umbel.cli.standard import (
    STDIN,
    STDOUT,
    all_written,
    fill_gaps,
    require_useful,
)
from umbel.plugins.discovery import own_version
from umbel.telling import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: those after the program's name; None: of this process.

    Returns:
        the exit status.
    """
    useless = fill_gaps()  # first of all: from now on descriptors are opened
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As standard error does: names need not be text.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = argparse.Namespace(command=None)
    try:
        with all_written():
            make_parser().parse_args(arguments, options)
            require_useful(_needed(options), useless)
            return _run(options)
    except (OSError, Warning) as error:  # PYTHONWARNINGS=error
        report_failure(options.command, error)
        return status_of(error)
    except BaseExceptionGroup as group:
        report_failure(options.command, group)
        return status_of(group)


def _needed(options: argparse.Namespace) -> Collection[int]:
    """Tell which of standard input and output are used."""
    if options.command == "connect":
        return STDIN, STDOUT
    if options.command == "listen" and options.echo:
        return ()
    if options.command == "listen" and not options.keep:
        return STDIN, STDOUT
    return (STDOUT,) if options.command or options.version else ()


def _exit_on_signal() -> None:
    # A terminal that is closed ends it, unless it was started by nohup; and Ctrl-C is
    # not for what a shell has started in the background.
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    heard = [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]
    if heard:
        umbel.exit_on_signal(*heard)


def _run(options: argparse.Namespace) -> int:
    if options.version:
        print(f"umbel {own_version()}")
        return 0
    if options.command is None:
        make_parser().print_help(sys.stderr)
        return 2
    if options.command != "transports":  # that never waits, so it would not hear of one
        _exit_on_signal()
    if "address" in options:
        _require_meeting_place(options.address)
    return _run_command(options)


def _require_meeting_place(address: str) -> None:
    if umbel.Address.parse(address).scheme == "mem":
        message = (
            f"{address} is within one process, and this is one of its own: nobody can "
            "meet it there; give an address such as ipc:x.sock"
        )
        raise umbel.NotSupportedError(message)


def _run_command(options: argparse.Namespace) -> int:
    if options.command == "demo":
        from umbel.cli.demo import answer, demo

        return demo() if options.answer_at is None else answer(options.answer_at)
    if options.command == "transports":
        from umbel.cli.transports import list_transports

        return list_transports()
    if options.command == "check":
        from umbel.cli.check import check_transport

        return check_transport(
            options.scheme,
            numbers=options.only,
            drivers=options.driver,
            as_json=options.json,
            limit=options.limit,
        )
    if options.command == "top":
        from umbel.cli.top import show_census

        return show_census(options.address, options.interval, once=options.once)
    if options.command == "connect":
        from umbel.cli.pipe import connect_and_pipe

        return connect_and_pipe(options.address, options.deadline)
    return _listen(options)


def _listen(options: argparse.Namespace) -> int:
    from umbel.cli import pipe

    if options.keep:
        serve = pipe.keep_echoing if options.echo else pipe.keep_piping
    else:
        serve = pipe.listen_and_echo if options.echo else pipe.listen_and_pipe
    with umbel.listen(options.address, options.backlog) as listener:
        if options.address.rstrip("0").endswith(":"):
            say(f"listening at {listener.address}")
        serve(listener, options.deadline)
    return 0
