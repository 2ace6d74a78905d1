from __future__ import annotations

import ctypes
from typing import Any

import pytest

from paratrain.topology.sources import cuda


class FakeCuda:
    """The functions of libcuda that are asked, with these bus ids in CUDA's order; None for a GPU that does not answer."""

    def __init__(self, bus_ids: list[str | None], status: int = 0) -> None:
        self.bus_ids = bus_ids
        self.status = status

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.bus_ids)
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = 100 + ordinal
        return 0

    def cuDeviceGetPCIBusId(self, text: Any, size: int, device: ctypes.c_int) -> int:
        bus_id = self.bus_ids[device.value - 100]
        if bus_id is None:
            return 101
        assert len(bus_id) < size
        text.value = bus_id.encode()
        return 0


def ask(monkeypatch: pytest.MonkeyPatch, library: object) -> list[str] | None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return cuda.visible_bus_ids()


def test_the_order_is_cudas(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(monkeypatch, FakeCuda(["0000:AF:00.0", "00000001:3B:00.0", None]))
    assert found == ["00000000:af:00.0", "00000001:3b:00.0", ""]


@pytest.mark.parametrize(("status", "found"), [(100, []), (3, None), (999, None)])
def test_cuda_that_shows_nothing_or_fails(
    status: int, found: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(monkeypatch, FakeCuda(["0000:AF:00.0"], status)) == found


def test_a_library_that_lacks_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, object()) is None


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert cuda.visible_bus_ids() is None
