"""Results as a table, and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.model import SUBJECT, Result

PACKAGES = (
    *("umbel", "greenlet", "uvloop", "trio", "anyio", "gevent", "curio"),
    *("pyzmq", "pynng"),
)


def table(result: Result) -> str:
    """Make the table of one case: who costs what, and umbel as a multiple of it."""
    case = result.case
    lines = [
        f"\n{case.name}",
        f"  {'':18} {case.unit:>9} {case.rate_unit:>10}  {SUBJECT}/peer (of rounds)",
    ]
    for name in sorted(result.samples, key=result.cost):
        rate = f"{result.rate(name):,.0f}" if case.rate_unit else ""
        line = f"  {name:18} {result.cost(name):9,.2f} {rate:>10}"
        if name != SUBJECT and SUBJECT in result.samples:
            ratios = result.ratios(name)
            middle = statistics.median(ratios)
            line += f"  {middle:6.2f}  ({min(ratios):.2f} - {max(ratios):.2f})"
        lines.append(line)
    return "\n".join(lines)


def machine() -> dict[str, object]:
    """Tell what the figures were measured on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "packages": versions,
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [line for line in text.splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def to_json(results: Iterable[Result], rounds: int) -> str:
    """Write down all samples, so that others can judge them anew."""
    found = [
        {
            "workload": result.case.workload,
            "case": result.case.label,
            "unit": result.case.unit,
            "rate_unit": result.case.rate_unit,
            "curve": result.case.curve,
            "place": result.case.place,
            "costs": {
                name: [sample.cost for sample in samples]
                for name, samples in result.samples.items()
            },
            "rates": {
                name: [sample.rate for sample in samples]
                for name, samples in result.samples.items()
            },
        }
        for result in results
    ]
    return json.dumps({"machine": machine(), "rounds": rounds, "results": found})
