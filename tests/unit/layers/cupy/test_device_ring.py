"""Whether a batch can be overwritten before it has been used: streams that take their time, each step of each by chance."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.layers.cupy.device_ring import DeviceRing

COUNT, PIECES = 7, 3


class Streams:
    """Work given to streams waits in queues; whenever the host does something, some of it is done."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.all: list[Stream] = []

    def move(self) -> bool:
        """Do the next work of a stream that can go on; False where none can."""
        ready = [stream for stream in self.all if stream.queue and stream.queue[0][0]()]
        if ready:
            self.random.choice(ready).queue.popleft()[1]()
        return bool(ready)

    def pass_time(self) -> None:
        for _ in range(self.random.choice([0, 0, 0, 0, 1, 1, 2, 9])):
            self.move()


class Stream:
    def __init__(self, streams: Streams) -> None:
        self.queue: deque[tuple[Callable[[], bool], Callable[[], None]]] = deque()
        self.streams = streams
        streams.all.append(self)

    def give(self, work: Callable[[], None], when: Callable[[], bool] = lambda: True) -> None:
        self.queue.append((when, work))
        self.streams.pass_time()

    def wait_event(self, event: Event) -> None:
        latest = event.latest
        self.give(lambda: None, lambda: bool(latest[0]))

    def synchronize(self) -> None:
        while self.queue:
            assert self.streams.move()


class Event:
    def __init__(self, streams: Streams) -> None:
        self.streams, self.latest = streams, [True]

    def record(self, stream: Stream) -> None:
        self.latest = latest = [False]
        stream.give(lambda: latest.__setitem__(0, True))

    def synchronize(self) -> None:
        self.streams.pass_time()
        while not self.latest[0]:
            assert self.streams.move()


class SlowArray:
    """A part of the GPU's memory that is written when the stream gets to it."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def set(self, host: Any, stream: Stream) -> None:
        stream.give(lambda: np.copyto(self.values, host))


class Numbers:
    """Batch b is COUNT times b; the tops are what the GPU holds when its stream gets to it."""

    shapes = ((COUNT,),)
    kinds = (((COUNT,), np.dtype(np.float32)),)

    def __init__(self, stream: Stream) -> None:
        self.stream, self.found = stream, list[Any]()

    def fill(self, batch: int, arrays: Any, part: slice) -> int:
        arrays[0][part] = batch
        return 0

    def make_tops(self, arrays: Any, tops: Any) -> None:
        self.stream.give(lambda: self.found.append(arrays[0].values.copy()))


class Compute:
    """The backend's place."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.device = stream, CupyBackend().device


def train(seed: int, piece_count: int, monkeypatch: pytest.MonkeyPatch, spoil: str = "") -> list[Any]:
    """Twelve batches through a ring of two places; ``spoil`` names what is not waited for."""
    streams = Streams(seed)
    compute, copies = Stream(streams), Stream(streams)
    sent = Numbers(compute)
    backend: Any = Compute(compute)
    with monkeypatch.context() as patched:
        cuda = __import__("cupy").cuda
        patched.setattr(cuda, "Event", lambda **_: Event(streams))
        patched.setattr(cuda, "Stream", lambda **_: copies)
        ring = DeviceRing(backend, sent, place_count=2, piece_count=piece_count)
    for place in ring._places:
        slow_down(place)
        if spoil == "arrived":
            for event in place.arrived:
                event.synchronize = lambda: None
        if spoil == "used":
            place.used.record = lambda stream: None
    if spoil == "shown":
        compute.wait_event = lambda event: None  # type: ignore[method-assign]
    for batch in range(12):
        pieces = list(range(piece_count))
        streams.random.shuffle(pieces)
        for piece in pieces:
            ring.fill(batch, piece, batch % 2)
        if batch >= 1:
            ring.show((batch - 1) % 2, [])
            streams.pass_time()
    ring.close()
    assert not copies.queue, "the memory of the places may go to others now"
    compute.synchronize()
    return sent.found


def slow_down(place: Any) -> None:
    """Let its copies take their time."""
    parts = []
    for piece in place.copies:
        piece[:] = [(host, SlowArray(np.zeros(host.size, host.dtype))) for host, _ in piece]
        parts += [array.values for _, array in piece]
    place.device = [Joined(parts)]


class Joined:
    """The arrays of all pieces, as the top is made of them."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    @property
    def values(self) -> Any:
        return np.concatenate([part.view(np.float32) for part in self.parts])[:COUNT]


def spoilt_count(spoil: str, monkeypatch: pytest.MonkeyPatch) -> int:
    wrong = 0
    for seed in range(40):
        for piece_count in (1, PIECES):
            found = train(seed, piece_count, monkeypatch, spoil)
            assert len(found) == 11
            wrong += any((values != batch).any() for batch, values in enumerate(found))
    return wrong


def test_a_batch_is_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spoilt_count("", monkeypatch) == 0


@pytest.mark.parametrize("spoil", ["arrived", "used", "shown"])
def test_every_wait_is_needed(spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert spoilt_count(spoil, monkeypatch) > 0
