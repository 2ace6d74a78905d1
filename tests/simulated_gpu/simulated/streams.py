"""Streams, events and the capture of graphs.

Work is done at once, unless its stream captures: then it is only written down. Late streams (late.py) do it later.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from simulated import devices, late
from simulated.counts import counts
from simulated.errors import CUDARuntimeError
from simulated.memory import Block

__all__ = ["Capture", "Graph", "current_stream", "forbid_in_capture", "is_capturing", "queue_of", "record", "wait"]

NON_BLOCKING = 1
_INTERPROCESS = 4
_numbers = itertools.count(0x5150000000, 0x100)
_local = threading.local()
_streams: dict[int, _Stream] = {}
_events: dict[int, _Event] = {}


class _Stream:
    def __init__(self, device: int, flags: int) -> None:
        self.device, self.flags = device, flags
        self.capture: Capture | None = None
        self.queue = late.Queue(device, late.NON_BLOCKING if flags & NON_BLOCKING else late.BLOCKING)


class _Event:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.time_s: float | None = None
        self.capture: Capture | None = None
        self.stream = 0
        self.work: late.Work | None = None
        """Where streams are late: the work that ends when the event comes."""


class Capture:
    """What the streams of one capture were given to do, in order."""

    def __init__(self, origin: int) -> None:
        self.origin = origin
        self.actions: list[tuple[Callable[[], object], list[tuple[Block, int]]]] = []
        self.host: list[late.Range] = []
        self.streams = {origin}
        self.unjoined: set[int] = set()
        self.is_valid = True


class Graph:
    """What was captured. It holds addresses and no arrays: their memory must live as long as the graph is launched."""

    def __init__(self, capture: Capture) -> None:
        self._actions, self._host = capture.actions, capture.host
        self._blocks = {(block, generation): None for _, blocks in capture.actions for block, generation in blocks}

    def launch(self, stream: Any = None) -> None:
        """Do it all again; RuntimeError where memory that is used was freed since the capture."""
        counts["graph_launch"] += 1
        for block, generation in self._blocks:
            if not block.is_alive or block.generation != generation:
                raise CUDARuntimeError(700, "the graph uses memory that was freed after it was captured")
        blocks = [block for block, _ in self._blocks]
        record(self._run, None if stream is None else stream.ptr, blocks, self._host)

    def _run(self) -> None:
        for action, _ in self._actions:
            action()

    def upload(self, stream: Any = None) -> None:
        """Nothing has to be sent ahead here."""

    def debug_dot_str(self, flags: int = 0) -> str:
        return "digraph {" + "".join(f" {i};" for i in range(len(self._actions))) + " }"

    def __len__(self) -> int:
        """How many pieces of work it holds."""
        return len(self._actions)


def stream_of(pointer: int) -> _Stream:
    """The stream; 0, 1 and 2 are the default streams of the current device."""
    if pointer in (0, 1, 2):
        key = -1 - (3 * devices.current() + max(pointer, 1))
        if key not in _streams:
            made = _Stream(devices.current(), 0)
            made.queue.kind = late.BLOCKING if pointer == 2 else late.NULL
            _streams.setdefault(key, made)
        return _streams[key]
    if pointer not in _streams:
        raise CUDARuntimeError(400, "no such stream")
    return _streams[pointer]


def current_stream() -> int:
    """The pointer of this thread's stream on its device."""
    return int(getattr(_local, "streams", {}).get(devices.current(), 0))


def select_stream(pointer: int, device: int) -> None:
    if not hasattr(_local, "streams"):
        _local.streams = {}
    _local.streams[device] = pointer


def queue_of(pointer: int) -> late.Queue:
    return stream_of(pointer).queue


def is_capturing(stream: int | None = None) -> bool:
    """Whether the stream, or this thread's, captures."""
    return stream_of(current_stream() if stream is None else stream).capture is not None


def record(
    action: Callable[[], object],
    stream: int | None = None,
    blocks: Iterable[Block] = (),
    host: Iterable[late.Range] = (),
) -> late.Work | None:
    """Do it, in this stream or in this thread's, or note it for the graph where the stream captures. Where streams are late it
    is given to the stream, and returned.

    What is noted is done later as often as the graph is launched: it should hold addresses rather than arrays. ``blocks``:
    the memory that it uses, which must be alive then; ``host``: addresses and sizes of the host's.
    """
    pointer = current_stream() if stream is None else stream
    state = stream_of(pointer)
    if state.device != devices.current():
        raise CUDARuntimeError(400, f"a stream of GPU {state.device}, while GPU {devices.current()} is current")
    if state.capture is None:
        _check_legacy(pointer)
        if late.is_on():
            return late.give(state.queue, action, (), blocks, list(host))
        action()
        return None
    if not state.capture.is_valid:
        raise CUDARuntimeError(901)
    state.capture.actions.append((action, [(block, block.generation) for block in blocks]))
    state.capture.host += host
    if pointer != state.capture.origin:
        state.capture.unjoined.add(pointer)
    return None


def wait(work: late.Work | None) -> None:
    """Return when what was recorded has run."""
    if work is not None:
        late.finish(work)


def _check_legacy(pointer: int) -> None:
    """The null stream waits for all blocking streams, which a capturing one does not allow."""
    if pointer in (0, 1):
        for state in list(_streams.values()):
            if state.capture is not None and state.device == devices.current() and not state.flags & NON_BLOCKING:
                state.capture.is_valid = False
                raise CUDARuntimeError(906)


def forbid_in_capture(action: str, stream: int | None = None, error: type[RuntimeError] | None = None) -> None:
    """Raise CUDARuntimeError, or ``error``, where the stream, or this thread's, captures; the capture is void then."""
    capture = stream_of(current_stream() if stream is None else stream).capture
    if capture is not None:
        capture.is_valid = False
        if error is not None:
            raise error(f"{action} is not supported while the stream is capturing")
        raise CUDARuntimeError(900, action)


def create_stream(flags: int) -> int:
    pointer = next(_numbers)
    _streams[pointer] = _Stream(devices.current(), flags)
    return pointer


def destroy_stream(pointer: int) -> None:
    _streams.pop(pointer, None)


def synchronize(pointer: int) -> None:
    forbid_in_capture("cudaStreamSynchronize", pointer)
    _check_legacy(pointer)
    counts["synchronize"] += 1
    if late.is_on():
        late.finish_queue(queue_of(pointer))


def query(pointer: int) -> int:
    """Whether a stream is done, as CUDA's number."""
    forbid_in_capture("cudaStreamQuery", pointer)
    last = late.last_of(queue_of(pointer))
    return 0 if last is None or late.ask(last) else 600


def synchronize_device() -> None:
    for pointer, state in list(_streams.items()):
        if state.device == devices.current():
            forbid_in_capture("cudaDeviceSynchronize", max(pointer, 0))
    counts["synchronize"] += 1
    if late.is_on():
        late.finish_device(devices.current())


def begin_capture(pointer: int) -> None:
    state = stream_of(pointer)
    if pointer in (0, 1) or state.capture is not None:
        raise CUDARuntimeError(900)
    state.capture = Capture(pointer)


def end_capture(pointer: int) -> Graph:
    capture = stream_of(pointer).capture
    if capture is None or capture.origin != pointer:
        raise CUDARuntimeError(1, "the stream does not capture")
    for member in capture.streams:
        if member in _streams:
            _streams[member].capture = None
    if not capture.is_valid:
        raise CUDARuntimeError(901)
    if capture.unjoined:
        raise CUDARuntimeError(904)
    return Graph(capture)


def create_event(flags: int) -> int:
    pointer = next(_numbers)
    _events[pointer] = _Event(flags)
    return pointer


def destroy_event(pointer: int) -> None:
    _events.pop(pointer, None)


def _event(pointer: int) -> _Event:
    if pointer not in _events:
        raise CUDARuntimeError(400, "no such event")
    return _events[pointer]


def record_event(event: int, stream: int) -> None:
    state, noted = stream_of(stream), _event(event)
    noted.capture, noted.stream, noted.time_s = state.capture, stream, time.perf_counter()
    noted.work = None
    if state.capture is None and late.is_on():
        noted.work = late.give(state.queue, lambda: setattr(noted, "time_s", time.perf_counter()))
        if noted.flags & _INTERPROCESS:  # other processes have their own queues, and cannot ask
            late.finish(noted.work)


def query_event(event: int) -> int:
    noted = _event(event)
    if noted.capture is not None:
        raise CUDARuntimeError(907)
    return 0 if noted.work is None or late.ask(noted.work) else 600


def synchronize_event(event: int) -> None:
    noted = _event(event)
    if noted.capture is not None:
        raise CUDARuntimeError(907)
    counts["synchronize"] += 1
    wait(noted.work)


def wait_event(stream: int, event: int) -> None:
    """Later work of the stream comes after the event: a stream that waits for a captured one takes part in the capture."""
    state, noted = stream_of(stream), _event(event)
    if noted.capture is None:
        if state.capture is not None and noted.time_s is not None:
            state.capture.is_valid = False
            raise CUDARuntimeError(
                905, "the capturing stream waits for an event that was recorded outside of the capture"
            )
        if noted.work is not None and not noted.work.is_done:
            late.give(state.queue, lambda: None, [noted.work])
        return
    if state.capture is None:
        if stream in (0, 1):
            raise CUDARuntimeError(906)
        state.capture = noted.capture
        noted.capture.streams.add(stream)
        noted.capture.unjoined.add(stream)
    noted.capture.unjoined.discard(noted.stream)


def elapsed_ms(start: int, end: int) -> float:
    times = []
    for pointer in (start, end):
        event = _event(pointer)
        if event.time_s is None or event.flags & 2:
            raise CUDARuntimeError(400, "the event was not recorded, or does not note the time")
        if event.work is not None and not event.work.is_done:
            raise CUDARuntimeError(600)
        times.append(event.time_s)
    return (times[1] - times[0]) * 1e3
