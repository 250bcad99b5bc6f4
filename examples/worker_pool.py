"""A pool of worker processes that are given jobs over ipc, one connection each.

A worker that dies is noticed by its errno, and its job goes to another.
"""

import os
import subprocess
import sys
import tempfile

import umbel

WORKER = """
import sys
import umbel

with umbel.ipc_connect(sys.argv[1], umbel.within(20)) as s:
    while size := umbel.receive(s, 1):
        job = umbel.brecv(s, size[0])
        if job == b"die" and sys.argv[2] == "0":
            sys.exit(umbel.hclose(s))
        answer = job.upper()
        umbel.bsendl(s, [bytes([len(answer)]), answer])
"""


def serve(s: umbel.StreamHandle, jobs: list[bytes], answers: list[bytes]) -> None:
    with s:
        while jobs:
            job = jobs.pop()
            try:
                umbel.bsendl(s, [bytes([len(job)]), job], umbel.within(10))
                size = umbel.brecv(s, 1, umbel.within(10))[0]
                answers.append(umbel.brecv(s, size, umbel.within(10)))
            except (BrokenPipeError, ConnectionResetError):
                jobs.append(job)
                umbel.hclose(s)
                return


def main() -> None:
    jobs = [b"one", b"two", b"three", b"die", b"five"]
    answers: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pool.sock")
        with umbel.ipc_listen(path) as listener:
            workers = [
                subprocess.Popen([sys.executable, "-c", WORKER, path, str(i)])
                for i in range(3)
            ]
            with umbel.bundle() as serving:
                for _ in workers:
                    s = umbel.ipc_accept(listener, umbel.within(20))
                    serving.go(serve, s, jobs, answers)
            for worker in workers:
                worker.wait()
    print(sorted(answers))


if __name__ == "__main__":
    main()
