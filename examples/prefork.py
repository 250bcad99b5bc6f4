"""A supervisor that listens once and forks workers, which accept from one listener.

A worker that crashes is replaced. On SIGTERM and Ctrl-C the name is removed, so that
nobody new comes, the workers serve who waits, and all end within a deadline: nothing
that was accepted is lost, even if the signal comes to all processes at once, as from a
terminal or systemd. Run without arguments it plays its own clients and checks that.
"""

import os
import signal
import subprocess
import sys
import tempfile

import umbel

WORKERS = 3
PATIENCE = 10.0


def answer(s: umbel.StreamHandle) -> None:
    with s:
        question = umbel.brecv(s, 1, umbel.within(PATIENCE))
        if question == b"!":
            os._exit(1)  # a crash, for show
        umbel.bsend(s, b"<" + question + b">")


def work(listener: umbel.ListenerHandle) -> None:
    umbel.exit_on_signal()
    answering = umbel.bundle()
    s = None
    try:
        while True:
            s = umbel.accept(listener)
            answering.go(answer, s)
            s = None
    except SystemExit:
        be_deaf()
        if s is not None:
            answering.go(answer, s)
    try:
        while True:
            answering.go(answer, umbel.accept(listener, 0))
    except umbel.DeadlineError:
        pass  # nobody waits any more
    answering.wait(umbel.within(PATIENCE))
    answering.abort()


def be_deaf() -> None:
    """Let the signals after the first, such as the supervisor's, cut nobody off."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    while True:
        try:
            return umbel.yield_()
        except SystemExit:
            pass  # one that came just before


def watch(pid: int, workers: set[int], deaths: umbel.ChannelHandle[int]) -> None:
    # Not a thread that waits: a process with threads can't fork safely.
    fd = os.pidfd_open(pid)
    try:
        umbel.fdin(fd)
    finally:
        os.close(fd)
    os.waitpid(pid, 0)
    workers.discard(pid)  # at once: its number may soon be another process's
    deaths.send(pid)


def supervise(path: str) -> None:
    umbel.exit_on_signal()
    workers: set[int] = set()
    deaths, told = umbel.chmake(int)
    watching = umbel.bundle()
    try:
        with umbel.ipc_listen(path) as listener, deaths, told:
            print("listening", flush=True)
            try:
                while True:
                    while len(workers) < WORKERS:
                        pid = fork_worker(listener)
                        workers.add(pid)
                        watching.go(watch, pid, workers, deaths)
                    told.receive()
            finally:
                watching.abort()
            # Leaving the block removes the name; the workers have the listener still.
    except SystemExit:
        pass  # a signal
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        for pid in workers:
            os.waitpid(pid, 0)


def fork_worker(listener: umbel.ListenerHandle) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work(listener)
        finally:
            os._exit(0)
    return pid


def ask(path: str, question: bytes, answers: list[bytes]) -> None:
    s = umbel.ipc_connect(path, umbel.within(PATIENCE))
    umbel.bsend(s, question)
    try:
        answers.append(umbel.brecv(s, 3, umbel.within(PATIENCE)))
    except OSError:
        answers.append(b"")
    umbel.hclose(s)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "prefork.sock")
        command = [sys.executable, __file__, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
            assert supervisor.stdout is not None
            supervisor.stdout.readline()  # it listens now
            answers: list[bytes] = []
            for question in (b"a", b"!", b"b", b"c"):
                ask(path, question, answers)
            with umbel.bundle() as asking:
                for i in range(20):
                    asking.go(ask, path, bytes([97 + i]), answers)
                umbel.msleep(umbel.within(0.05))  # all are connected
                supervisor.send_signal(signal.SIGTERM)
            status = supervisor.wait()
    print(status, sorted(answers))
    expected = [b"", b"<a>", b"<b>", b"<c>", *(b"<%c>" % (97 + i) for i in range(20))]
    assert sorted(answers) == sorted(expected)
    assert status == 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        supervise(sys.argv[1])
    else:
        main()
