"""What `import umbel` costs, against importing what it must import anyway.

python benchmarks/start.py
"""

import subprocess
import sys
import time

FLOOR = "import socket, select, greenlet, typing"
RUNS = 25


def time_of(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    bare = ours = nothing = float("inf")
    for _ in range(RUNS):
        nothing = min(nothing, time_of("pass"))
        bare = min(bare, time_of(FLOOR))
        ours = min(ours, time_of("import umbel"))
    print(f"whole processes: {ours / bare:.2f} times {FLOOR!r}")
    print(f"imports alone: {(ours - nothing) / (bare - nothing):.2f} times")


if __name__ == "__main__":
    main()
