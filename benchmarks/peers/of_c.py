"""C: what the machine can do. The process becomes the compiled program."""

from __future__ import annotations

import os

from benchmarks.model import Job


def run(_variant: str, job: Job) -> None:
    os.execv(os.environ["UMBEL_ECHO_SERVER"], ["echo_server", job.address])
