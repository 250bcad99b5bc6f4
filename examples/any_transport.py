"""An echo server and its clients, over whatever transport the address names.

    python examples/any_transport.py ipc:/tmp/echo.sock
    python examples/any_transport.py mem://echo
    python examples/any_transport.py tcp://127.0.0.1:0
    python examples/any_transport.py example://echo     # of plugins/umbel-example

Nothing in here knows of any of them. Each client sends more than a transport holds,
ends its direction, reads its echo to the end, and parts in good order.
"""

import hashlib
import sys

import umbel

CLIENTS = 3
SIZE = 1 << 20
PATIENCE = 10.0


def echo(stream: umbel.StreamHandle) -> None:
    with stream:  # closes in good order
        for data in stream:
            umbel.bsend(stream, data, umbel.within(PATIENCE))


def serve(listener: umbel.ListenerHandle) -> None:
    with umbel.bundle() as echoing:
        for _ in range(CLIENTS):
            echoing.go(echo, umbel.accept(listener, umbel.within(PATIENCE)))
        echoing.wait()


def ask(address: umbel.Address, question: bytes) -> bytes:
    """Send *question*, and give what came back before the end."""
    with umbel.connect(address, umbel.within(PATIENCE)) as stream:
        with umbel.go(send, stream, question) as sending:
            answer = b"".join(stream)
            sending.wait()
        return answer


def send(stream: umbel.StreamHandle, question: bytes) -> None:
    umbel.bsend(stream, question, umbel.within(PATIENCE))
    umbel.done(stream)


def main(address: str) -> None:
    questions = [
        hashlib.shake_256(bytes([number])).digest(SIZE) for number in range(CLIENTS)
    ]
    # Where it listens may tell more than where it was to: tcp's port, for one.
    with umbel.listen(address) as listener, umbel.go(serve, listener) as serving:
        for question in questions:
            assert ask(listener.address, question) == question
        serving.wait(umbel.within(PATIENCE))
    print(f"{CLIENTS} times {SIZE} bytes and back over {address.partition(':')[0]}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "mem://echo")
