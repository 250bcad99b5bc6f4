"""Values of another type than the channel's, and wrong clauses of choose."""

from __future__ import annotations

import umbel
from umbel import ChannelHandle, Recv, Send


def values(numbers: ChannelHandle[int], words: ChannelHandle[str]) -> None:
    numbers.send("one")  # error
    umbel.chsend(words, 1)  # error
    word: str = numbers.receive()  # error
    number: int = umbel.chrecv(words)  # error
    for number in words:  # error
        print(number)
    print(word)


def ends(numbers: ChannelHandle[int], stream: umbel.StreamHandle) -> None:
    objects: ChannelHandle[object] = numbers  # error
    truths: ChannelHandle[bool] = numbers  # error
    made: tuple[ChannelHandle[str], ChannelHandle[str]] = umbel.chmake(int)  # error
    umbel.chmake(5)  # error
    umbel.chsend(stream, b"x")  # error
    umbel.chdone(stream)  # error
    umbel.bsend(numbers, b"x")  # error
    print(objects, truths, made)


def clauses(
    numbers: ChannelHandle[int], words: ChannelHandle[str], stream: umbel.StreamHandle
) -> None:
    umbel.choose([Send(numbers, "one")])  # error
    umbel.choose([Recv(numbers), Send(words, 1)])  # error
    umbel.choose([Send(numbers)])  # error
    umbel.choose([Recv(numbers, 1)])  # error
    umbel.choose([Recv(stream)])  # error
    umbel.choose([numbers])  # error
    umbel.choose(Recv(numbers))  # error
    umbel.choose([Recv(numbers)], 0.5)  # error
    index, word = umbel.choose([Recv(numbers)])
    word.upper()  # error
    index.upper()  # error
    number: int = umbel.choose([Recv(numbers)])[1]  # error
    Recv(numbers).channel = numbers  # error
    print(number)
