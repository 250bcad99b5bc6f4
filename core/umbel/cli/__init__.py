"""The command line: `umbel demo`, `listen`, `connect`, `transports`, `check`, `top`.

What moves bytes uses the library as anyone does. Only the two lists, of transports and
of a census, take their tables from the modules that make them.
Exit status: 0, all went well; 2, wrong usage; 128 and a signal's number; else the
errno of what went wrong, as the message on standard error names it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

import umbel
from umbel.cli.failure import report_failure, status_of

_LISTEN: Final = """\
Wait for a connection, then carry standard input to it and what it sends to standard
output.

At the end of input our direction ends and receiving goes on; input that was empty
from the start, such as /dev/null, keeps it open until the peer's end. When the peer
has ended its own, a terminal is not read on, but a file or pipe is sent to its end.
Then both part in good order: status 0.

A peer that was killed is reported (ECONNRESET) while our own direction is open, or
bytes of ours lie unread. Once our input has ended and the peer has read all of it,
one that was killed and one that ended look alike: that can't be known, here or in
any program. Over a network it may never be known."""

_CONNECT: Final = """\
Connect, then carry standard input to the peer and what it sends to standard output.
The end is as with `umbel listen`, which also tells about killed peers, but for this:
empty input ends our direction at once."""


def _seconds(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise ValueError
    return value


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="umbel", description="Byte streams between processes."
    )
    parser.add_argument("--version", action="store_true", help="print it and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    demo = commands.add_parser("demo", help="two processes talk and part in good order")
    demo.add_argument("--answer-at", metavar="PATH", help=argparse.SUPPRESS)

    listen = _add_pipe(commands, "listen", "pipe through the next connection", _LISTEN)
    listen.add_argument(
        "--echo", action="store_true", help="send back what comes, use no in- or output"
    )
    listen.add_argument(
        "--keep",
        action="store_true",
        help="serve until stopped; standard input is not read then",
    )
    listen.add_argument(
        "--backlog",
        type=int,
        default=128,
        help="connections that may wait (%(default)s)",
    )
    _add_pipe(commands, "connect", "pipe through a connection", _CONNECT)

    commands.add_parser("transports", help="list what is installed, and its state")

    check = commands.add_parser(
        "check",
        help="try whether a transport behaves as it must",
        description="Try the behaviours of the conformance kit on a transport, and "
        "print what came of each. Status: 0, all that applies passed; 1, one failed.",
    )
    check.add_argument(
        "scheme", help="or an address with {folder} and {name}, such as mem://{name}"
    )
    check.add_argument(
        "--only",
        type=int,
        nargs="+",
        metavar="NUMBER",
        default=[],
        help="these behaviours alone",
    )
    check.add_argument(
        "--driver",
        action="append",
        default=[],
        help="threads, coroutines, asyncio or trio; may be repeated",
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")

    top = commands.add_parser(
        "top",
        help="show the open handles and coroutines of another process",
        description="That process must run with UMBEL_PLUGINS=census.",
    )
    top.add_argument(
        "address", help="ipc:$XDG_RUNTIME_DIR/umbel-UID-PID.sock, or as set"
    )
    top.add_argument("--interval", type=_seconds, default=1.0, metavar="SECONDS")
    top.add_argument("--once", action="store_true", help="print it once and exit")
    return parser


def _add_pipe(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", help="such as ipc:x.sock or ipc:@name")
    parser.add_argument(
        "--deadline",
        type=_seconds,
        metavar="SECONDS",
        help="for the whole exchange, the wait for the peer included",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: those after the program's name; None: of this process.

    Returns:
        the exit status.
    """
    parser = _make_parser()
    options = parser.parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(f"umbel {version('umbel')}")
        return 0
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    umbel.exit_on_signal()
    try:
        return _run(options)
    except OSError as error:
        report_failure(options.command, error)
        return status_of(error)
    except BaseExceptionGroup as group:
        report_failure(options.command, group)
        return status_of(group)


def _run(options: argparse.Namespace) -> int:
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
        )
    if options.command == "top":
        from umbel.cli.top import show_census

        return show_census(options.address, options.interval, once=options.once)
    from umbel.cli.pipe import connect_and_pipe, listen_and_echo, listen_and_pipe

    if options.command == "connect":
        return connect_and_pipe(options.address, options.deadline)
    serve = listen_and_echo if options.echo else listen_and_pipe
    return serve(options.address, options.backlog, options.deadline, options.keep)
