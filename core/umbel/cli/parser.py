"""What the command line takes, and what its --help says."""

from __future__ import annotations

import argparse
from typing import Final, TypeAlias

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

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

_STATUSES: Final = """\
exit status:
  0     all went well
  2     wrong usage, or ENOENT
  128+n ended by signal n: 130 by Ctrl-C, 143 by SIGTERM, 129 by a closed terminal
  else  the errno of what went wrong, as the message on standard error names it, such
        as 104 for ECONNRESET; 1 if it has none"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="umbel",
        description="Byte streams between processes.",
        epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print it and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser("demo", help="two processes talk and part in good order")
    demo.add_argument("--answer-at", metavar="PATH", help=argparse.SUPPRESS)
    _add_listen(commands)
    _add_pipe(commands, "connect", "pipe through a connection", _CONNECT)
    commands.add_parser("transports", help="list what is installed, and its state")
    _add_check(commands)
    _add_top(commands)
    return parser


def _add_pipe(
    commands: _Commands, name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", help="such as ipc:x.sock or ipc:@name")
    parser.add_argument(
        "--deadline",
        type=_deadline,
        metavar="SECONDS",
        help="for the whole exchange, the wait for the peer included; with "
        "`listen --keep`, for each client by itself",
    )
    return parser


def _add_listen(commands: _Commands) -> None:
    listen = _add_pipe(commands, "listen", "pipe through the next connection", _LISTEN)
    listen.add_argument(
        "--echo", action="store_true", help="send back what comes, use no in- or output"
    )
    listen.add_argument(
        "--keep",
        action="store_true",
        help="serve until stopped; without --echo one client at a time, and standard "
        "input is not read",
    )
    listen.add_argument(
        "--backlog",
        type=_connections,
        default=128,
        metavar="COUNT",
        help="connections that may wait (%(default)s)",
    )


def _add_check(commands: _Commands) -> None:
    check = commands.add_parser(
        "check",
        help="try whether a transport behaves as it must",
        description="Try the behaviours of the conformance kit on a transport, and "
        "print what came of each. Status: 0, all that applies passed; 1, one failed, "
        "or was not tried within the limit; 2, wrong usage; else the errno of what "
        "kept it from being tried.",
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
    check.add_argument(
        "--limit",
        type=_seconds,
        default=55.0,
        metavar="SECONDS",
        help="for all behaviours together; 0: any time (%(default)g)",
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")


def _add_top(commands: _Commands) -> None:
    top = commands.add_parser(
        "top",
        help="show the open handles and coroutines of another process",
        description="That process must run with UMBEL_PLUGINS=census.",
    )
    top.add_argument(
        "address", help="ipc:$XDG_RUNTIME_DIR/umbel-UID-PID.sock, or as set"
    )
    top.add_argument(
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="between two looks (%(default)g)",
    )
    top.add_argument("--once", action="store_true", help="print it once and exit")


# What argparse says of a value is what these raise.


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not value >= 0:
        message = f"{text!r}: give 0 or more seconds"
        raise argparse.ArgumentTypeError(message)
    return value


def _deadline(text: str) -> float:
    try:
        return _seconds(text)
    except argparse.ArgumentTypeError as error:
        message = f"{error}, or none to wait for ever"
        raise argparse.ArgumentTypeError(message) from None


def _connections(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        message = f"{text!r}: give a number of connections, 0 or more"
        raise argparse.ArgumentTypeError(message)
    return value
