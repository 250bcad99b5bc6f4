"""`python -m benchmarks [WORKLOAD ...]`: tables, JSON and a plot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import peers_of, run_case
from benchmarks.model import SUBJECT, Case, Result
from benchmarks.peers import PEERS, what_is_missing
from benchmarks.plot import svg
from benchmarks.report import machine, table, to_json
from benchmarks.targets import targets_table
from benchmarks.workloads import WORKLOADS

ROUNDS = 7
QUICK_ROUNDS = 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="umbel against its peers: processor time of an operation.",
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS)
    )
    parser.add_argument("--peers", help=f"only these, as A,B,C, and {SUBJECT}")
    parser.add_argument("--rounds", type=int, default=0, help=f"{ROUNDS} if not given")
    parser.add_argument("--only", default="", help="cases with this text in their name")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    parser.add_argument("--svg", type=Path, help="draw the curves into this file")
    parser.add_argument(
        "--targets", action="store_true", help="end with what must be reached"
    )
    options = parser.parse_args(arguments)
    for name in options.workloads:
        if name not in WORKLOADS:
            parser.error(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")
    for name in (options.peers or "").split(","):
        if name and name not in PEERS:
            parser.error(f"no peer {name!r}; there are {', '.join(PEERS)}")
    return options


def quick(case: Case) -> Case:
    """Make a case short enough for a look at whether it runs."""
    job = replace(case.job, count=case.job.count // 20, total=case.job.total // 8)
    return replace(case, job=job, seconds=0.2, warmup=0.1)


def complain(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    wanted = options.peers.split(",") if options.peers else None
    print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    for peer in PEERS.values():
        if missing := what_is_missing(peer):
            print(f"{peer.name} is left out: {missing}")
    results: list[Result] = []
    for name in options.workloads or WORKLOADS:
        for case in WORKLOADS[name]():
            if options.only not in case.name:
                continue
            asked = quick(case) if options.quick else case
            peers = peers_of(asked, wanted)
            results.append(run_case(asked, peers, rounds, complain))
            print(table(results[-1]), flush=True)
            if options.json:
                options.json.write_text(to_json(results, rounds))
    if options.svg:
        options.svg.write_text(svg(results))
    if options.targets:
        print(targets_table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
