"""cupy.cuda.stream: streams and events as objects."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from simulated import devices, streams

__all__ = ["Event", "ExternalStream", "Stream", "get_current_stream", "get_elapsed_time"]

_local = threading.local()


def _current() -> dict[int, Any]:
    """This thread's streams, by device."""
    found: dict[int, Any] = _local.__dict__.setdefault("current", {})
    return found


def _entered(device: int) -> list[Any]:
    """The streams that this thread has entered and not left, innermost last. As in CuPy one that ``use`` made current is not
    among them: it is not current any more when the next ``with`` of another one ends.
    """
    stacks: dict[int, list[Any]] = _local.__dict__.setdefault("entered", {})
    return stacks.setdefault(device, [Stream.null])


def get_current_stream(device_id: int = -1) -> Any:
    return _current().get(devices.current() if device_id < 0 else device_id, Stream.null)


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    return streams.elapsed_ms(start_event.ptr, end_event.ptr)


class Event:
    """An event; its work is always done, unless streams are late or it was recorded in one that captured."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.ptr = 0
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        devices.current()
        self.ptr = streams.create_event(1 * block | 2 * disable_timing | 4 * interprocess)

    def __del__(self) -> None:
        if self.ptr and streams is not None:
            streams.destroy_event(self.ptr)

    @property
    def done(self) -> bool:
        return streams.query_event(self.ptr) == 0

    def record(self, stream: Any = None) -> None:
        streams.record_event(self.ptr, streams.current_stream() if stream is None else stream.ptr)

    def synchronize(self) -> None:
        streams.synchronize_event(self.ptr)


class _Stream:
    def __init__(self, ptr: int, device_id: int) -> None:
        self.ptr, self.device_id = ptr, device_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.ptr} (device {self.device_id})>"

    def _device(self) -> int:
        """Its device, which must be the current one."""
        current = devices.current()
        if self.device_id not in (-1, current):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with the current device ({current})"
            )
        return current

    def _select(self, device: int) -> None:
        _current()[device] = self
        streams.select_stream(self.ptr, device)

    def __enter__(self) -> Any:
        device = self._device()
        _entered(device).append(self)
        _local.__dict__.setdefault("devices", []).append(device)
        self._select(device)
        return self

    def __exit__(self, *_: object) -> None:
        device = _local.devices.pop()
        _entered(device).pop()
        _entered(device)[-1]._select(device)

    def use(self) -> Any:
        self._select(self._device())
        return self

    @property
    def done(self) -> bool:
        return streams.query(self.ptr) == 0

    def synchronize(self) -> None:
        streams.synchronize(self.ptr)

    def add_callback(self, callback: Callable[[Any, int, Any], None], arg: Any) -> None:
        streams.forbid_in_capture("cudaStreamAddCallback", self.ptr)
        streams.record(lambda: callback(self, 0, arg), self.ptr)

    def launch_host_func(self, callback: Callable[[Any], None], arg: Any) -> None:
        streams.record(lambda: callback(arg), self.ptr)

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        streams.record_event(event.ptr, self.ptr)
        return event

    def wait_event(self, event: Event) -> None:
        streams.wait_event(self.ptr, event.ptr)

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        streams.begin_capture(self.ptr)

    def end_capture(self) -> streams.Graph:
        return streams.end_capture(self.ptr)

    def is_capturing(self) -> bool:
        return streams.is_capturing(self.ptr)

    @property
    def is_non_blocking(self) -> bool:
        return bool(streams.stream_of(self.ptr).flags & streams.NON_BLOCKING)

    @property
    def priority(self) -> int:
        return 0


class Stream(_Stream):
    """A stream of the current device, or one of the default ones."""

    null: Stream
    ptds: Stream

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self._is_owned = False
        if null or ptds:
            super().__init__(0 if null else 2, -1)
        else:
            device = devices.current()
            super().__init__(streams.create_stream(streams.NON_BLOCKING if non_blocking else 0), device)
            self._is_owned = True

    def __del__(self) -> None:
        if self._is_owned and streams is not None:
            streams.destroy_stream(self.ptr)


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)


class ExternalStream(_Stream):
    """A stream that somebody else made."""

    def __init__(self, ptr: int, device_id: int = -1) -> None:
        super().__init__(ptr, device_id)
