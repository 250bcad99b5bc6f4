"""A pool of worker processes that are given jobs over ipc, one connection each.

A worker that dies is noticed by its errno, and its job goes to another: each job gets
its one answer, which is checked.
"""

import os
import subprocess
import sys
import tempfile

import umbel

JOBS = [b"one", b"two", b"three", b"four", b"five"]
WORKERS = 3
PATIENCE = 20.0

WORKER = """
import os
import sys
import umbel

with umbel.ipc_connect(sys.argv[1], umbel.within(20)) as s:
    while size := umbel.receive(s, 1):
        job = umbel.brecv(s, size[0])
        if sys.argv[2] == "0":
            os._exit(1)  # a crash, for show
        answer = job.upper()
        umbel.bsendl(s, [bytes([len(answer)]), answer])
"""


def serve(
    s: umbel.StreamHandle,
    jobs: umbel.ChannelHandle[bytes],
    returned: umbel.ChannelHandle[bytes],
    answers: umbel.ChannelHandle[bytes],
) -> None:
    with s:
        for job in jobs:
            try:
                answer = ask(s, job)
            except (BrokenPipeError, ConnectionResetError):
                umbel.hclose(s)
                returned.send(job)
                return
            answers.send(answer)


def ask(s: umbel.StreamHandle, job: bytes) -> bytes:
    until = umbel.within(PATIENCE)
    umbel.bsendl(s, [bytes([len(job)]), job], until)
    size = umbel.brecv(s, 1, until)[0]
    return umbel.brecv(s, size, until)


def hand_out(todo: umbel.ChannelHandle[bytes]) -> None:
    for job in JOBS:
        todo.send(job)


def run(listener: umbel.ListenerHandle) -> list[bytes]:
    # Hand to hand: a job is with who is to do it, or with a worker, and never lost.
    todo, jobs = umbel.chmake(bytes)
    answers, answered = umbel.chmake(bytes)
    with todo, jobs, answers, answered, umbel.bundle() as serving:
        for _ in range(WORKERS):
            s = umbel.ipc_accept(listener, umbel.within(PATIENCE))
            serving.go(serve, s, jobs, todo, answers)
        serving.go(hand_out, todo)
        found = [answered.receive(umbel.within(PATIENCE)) for _ in JOBS]
        todo.done()  # so that the workers may go
        serving.wait(umbel.within(PATIENCE))
        return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pool.sock")
        with umbel.ipc_listen(path) as listener:
            workers = [
                subprocess.Popen([sys.executable, "-c", WORKER, path, str(number)])
                for number in range(WORKERS)
            ]
            answers = run(listener)
            statuses = [worker.wait(PATIENCE) for worker in workers]
    print(statuses, sorted(answers))
    assert sorted(answers) == sorted(job.upper() for job in JOBS)
    assert statuses == [1, 0, 0]


if __name__ == "__main__":
    main()
