"""Exchanges between GPUs whose streams take their time, and what becomes of them where a wait is missing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.comm.cuda import CupyDevice
from paratrain.comm.flags import Flags
from paratrain.data_parallel import DataParallel
from paratrain.net.recorded import RecordedPass
from tests.late_streams import late_streams
from tests.simulated_gpu_path import IS_REAL, simulated_gpu  # noqa: F401
from tests.unit.data_parallel.test_exchanges import SETTINGS, source  # noqa: F401
from tests.unit.data_parallel.test_gpus import short_slices, train  # noqa: F401

WAYS: dict[str, tuple[str, list[int]]] = {
    "tree": ("tree", [0, 0, 0]),
    "sharded": ("sharded", [0, 0, 0]),
    "through the host": ("ring", [0, 0, 0]),
    "two levels": ("sharded", [0, 0, 1]),
}
MISSING: dict[str, Callable[[CupyDevice], Any]] = {
    "follow": lambda _: None,
    "computed": lambda _: lambda: True,
    "done": lambda _: lambda: True,
}


def parameters(source: Path, way: str) -> list[bytes]:  # noqa: F811
    exchange, nodes = WAYS[way]
    return [values.tobytes() for values, _, _ in train(source, 4, SETTINGS["plain"], nodes, exchange=exchange)]


@pytest.mark.parametrize("way", WAYS)
def test_late_streams_change_nothing(source: Path, way: str) -> None:  # noqa: F811
    at_once = parameters(source, way)
    for seed in (0, 1):
        with late_streams(seed):
            assert parameters(source, way) == at_once


@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_wait_is_found(source: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:  # noqa: F811
    if IS_REAL:
        pytest.skip("a real GPU may be quick enough to hide it")
    monkeypatch.setattr(CupyDevice, missing, MISSING[missing])
    at_once = parameters(source, "sharded")
    assert np.isfinite(np.frombuffer(at_once[0], np.float32)).all()
    for seed in range(6):
        try:
            with late_streams(seed):
                found = parameters(source, "sharded")
        except Exception:  # losses and gradients that make no sense may end it
            return
        if found != at_once:
            return
    pytest.fail("nobody has noticed")


def test_slices_leave_while_a_recorded_pass_runs(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """By the time the host waits for the loss, it has told the others of all slices that the GPU has got to."""
    told: Counter[int] = Counter()  # by thread, which is a rank
    seen: list[tuple[int, int]] = []
    begin, announce, read = DataParallel.on_start, Flags.announce, RecordedPass._read_loss
    slice_count = 0

    def on_start(driver: DataParallel) -> None:
        nonlocal slice_count
        told[threading.get_ident()], slice_count = 0, driver.slice_count
        begin(driver)

    def count(flags: Flags, kind: int, index: int) -> int:
        told[threading.get_ident()] += kind == Flags.READY
        return announce(flags, kind, index)

    def look(recorded: RecordedPass) -> float:
        seen.append((told[threading.get_ident()], slice_count))
        return read(recorded)

    monkeypatch.setattr("tests.unit.data_parallel.test_gpus.STEPS", 12)
    monkeypatch.setattr(DataParallel, "on_start", on_start)
    monkeypatch.setattr(Flags, "announce", count)
    monkeypatch.setattr(RecordedPass, "_read_loss", look)
    with late_streams(0):
        train(source, 4, SETTINGS["plain"], [0, 0], exchange="sharded")
    assert len(seen) >= 2
    assert slice_count > 1
    assert set(seen) == {(slice_count, slice_count)}
