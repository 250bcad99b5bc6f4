"""`umbel check`: whether a transport behaves as every transport must."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Final

from umbel.testing.conformance import LIMIT, Report, Verdict, check, environment

_MARKS: Final = {"passed": "ok", "failed": "FAILED", "skipped": "-", "not tried": "?"}


def check_transport(
    scheme: str,
    *,
    numbers: Sequence[int] = (),
    drivers: Sequence[str] = (),
    as_json: bool = False,
    limit: float = LIMIT,
) -> int:
    """Try the behaviours on a transport, and print a report of them.

    Args:
        scheme: or an address template, as of `umbel.testing.conformance.Subject`.
        numbers: of the behaviours; none: all.
        drivers: by which to try them; none: all.
        as_json: print one JSON object instead of lines.
        limit: seconds that all may take together; 0: any time.

    Returns:
        the exit status: 0, all that applies passed; 1, something failed, or there was
        no time to try it.
    """
    on_verdict = None if as_json else _print
    report = check(scheme, numbers, drivers or None, on_verdict, limit)
    if as_json:
        json.dump(report.as_json(), sys.stdout, indent=2)
        print()
    else:
        print(_summary(report))
        if report.untried:
            count = f"{len(report.untried)} were not tried within {limit:g} s"
            print(f"NOT COMPLETE: {count}; `--limit SECONDS` allows more, 0 any time")
    return 1 if report.failed or report.untried else 0


def _print(verdict: Verdict) -> None:
    driver = verdict.driver[:10]
    mark = _MARKS[verdict.state]
    print(f"{verdict.number:>3}  {driver:<10}  {mark:<6}  {verdict.title}", flush=True)
    if verdict.state == "failed":
        print(f"     {verdict.reason}", flush=True)
    elif verdict.state != "passed":
        print(f"     ({verdict.reason})", flush=True)


def _summary(report: Report) -> str:
    counts = {
        state: sum(verdict.state == state for verdict in report.verdicts)
        for state in _MARKS
    }
    where = ", ".join(f"{name} {value}" for name, value in environment().items())
    seconds = sum(verdict.seconds for verdict in report.verdicts)
    said = ", ".join(
        f"{count} {state}"
        for state, count in counts.items()
        if count or state != "not tried"
    )
    return (
        f"\n{_declaration(report)}\n"
        f"{report.scheme} of {report.source}: {said} in {seconds:.0f} s ({where})"
    )


def _declaration(report: Report) -> str:
    declared = report.declared
    truths = [name for name, value in declared.items() if value is True]
    lists = [
        f"{name} {', '.join(value) or 'none'}"
        for name, value in declared.items()
        if isinstance(value, list)
    ]
    return "declared: " + "; ".join([*lists, *truths])
