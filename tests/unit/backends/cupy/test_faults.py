"""Faults that kernels note for the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.device import CudaDevice
from paratrain.backends.cupy.faults import Faults


class Owner:
    def __init__(self, name: str) -> None:
        self.name = name

    def describe(self, position: int, value: float) -> Exception:
        return ValueError(f"{self.name}: {value:g} at {position}")


def note(place: Any, position: int, value: float) -> None:
    """What a kernel does."""
    bits = int(np.array([value], np.float32).view(np.uint32)[0])
    place[...] = np.uint64((0xFFFFFFFF - position) << 32 | bits)


def test_nothing_is_wrong(simulated_gpu: Any) -> None:
    faults, owner = Faults(CudaDevice()), Owner("a")
    faults.check()
    place = faults.place(owner.describe)
    assert place.size == 1
    faults.check()


def test_a_fault_is_told_once(simulated_gpu: Any) -> None:
    faults = Faults(CudaDevice())
    owners = [Owner(str(number)) for number in range(150)]
    places = [faults.place(owner.describe) for owner in owners]
    assert len({place.data.ptr for place in places}) == 150
    for number in (0, 63, 64, 149):
        note(places[number], number * 1000, -1.5)
        with pytest.raises(ValueError, match=f"^{number}: -1.5 at {number * 1000}$"):
            faults.check()
        faults.check()
    note(places[140], 3, 2.0)
    note(places[2], 5, 7.0)
    with pytest.raises(ValueError, match="^2: 7 at 5$"):
        faults.check()
    faults.check()


def test_places_of_those_that_are_gone_are_used_again(simulated_gpu: Any) -> None:
    faults, stays = Faults(CudaDevice()), Owner("stays")
    faults.place(stays.describe)
    gone = Owner("gone")
    place = faults.place(gone.describe)
    del gone
    note(place, 1, 1.0)
    new = Owner("new")
    again = faults.place(new.describe)
    assert again.data.ptr == place.data.ptr
    faults.check()
    note(again, 2, 3.0)
    with pytest.raises(ValueError, match="new: 3 at 2"):
        faults.check()
