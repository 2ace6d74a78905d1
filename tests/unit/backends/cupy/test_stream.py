"""A backend's stream is the current one of its thread, and stays it; copies in it."""

from __future__ import annotations

import gc
import logging
from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.device import CudaDevice


def test_the_stream_stays_current_after_others_were_entered(simulated_gpu: Any) -> None:
    cuda, backend = simulated_gpu.cuda, CupyBackend()
    with cuda.Stream(non_blocking=True) as other:
        assert cuda.get_current_stream() == other
    assert cuda.get_current_stream() == backend.stream
    array = simulated_gpu.zeros((2, 3), np.float32)
    array.T.get()  # for which CuPy enters a stream
    assert cuda.get_current_stream() == backend.stream == CupyBackend().stream
    recording = backend.record(lambda: array.fill(1))  # in the null stream it would void the capture
    assert recording is not None
    recording.replay()
    assert float(array.sum()) == 6


def test_a_graph_for_which_there_is_no_room_is_none(
    simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import simulated

    def refuse(*_: object) -> None:
        raise simulated_gpu.cuda.runtime.CUDARuntimeError(2)

    backend, array = CupyBackend(), simulated_gpu.zeros(3, np.float32)
    monkeypatch.setattr(simulated.streams.Graph, "upload", refuse)
    with caplog.at_level(logging.INFO):
        assert backend.record(lambda: array.fill(1)) is None
    assert "could not be recorded for the GPU: cudaErrorMemoryAllocation" in caplog.text
    array.fill(2)
    assert float(array.sum()) == 6


def test_nothing_is_collected_from_before_a_capture_until_it_has_ended(
    simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CuPy makes a list when a capture has begun: what that lets the collector find must not be a handle of cuDNN's."""
    backend, array, collects = CupyBackend(), simulated_gpu.zeros(3, np.float32), list[bool]()
    kind = type(backend.stream)

    def watch(name: str) -> None:
        function = getattr(kind, name)

        def watched(stream: Any) -> Any:
            collects.append(gc.isenabled())
            return function(stream)

        monkeypatch.setattr(kind, name, watched)

    watch("begin_capture")
    watch("end_capture")
    assert backend.record(lambda: array.fill(1)) is not None
    with pytest.raises(ZeroDivisionError):
        backend.record(lambda: array.fill(1 // 0))
    assert collects == [False] * 4 and gc.isenabled()

    def refuse(stream: Any) -> None:
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(kind, "begin_capture", refuse)
    with pytest.raises(RuntimeError, match="not permitted"):
        backend.record(lambda: array.fill(1))
    assert gc.isenabled()


def test_what_was_uploaded_may_be_changed_at_once(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import simulated

    array = simulated_gpu.zeros(3, np.float32)
    runtime = simulated_gpu.cuda.runtime
    properties = runtime.getDeviceProperties(0)
    for shares_tables in (0, 1):
        more = {"pageableMemoryAccessUsesHostPageTables": shares_tables}
        monkeypatch.setattr(runtime, "getDeviceProperties", lambda device, more=more: {**properties, **more})
        device = CudaDevice()
        before = simulated.counts["synchronize"]
        device.upload(np.ones(3, np.float32), array)
        assert simulated.counts["synchronize"] == before + shares_tables
