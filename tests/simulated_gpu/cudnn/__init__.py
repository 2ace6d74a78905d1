"""Stands in for nvidia-cudnn-frontend 1.23 to 1.26: convolutions as graphs, computed by numpy.

It has what paratrain calls and nothing else, with the same names of arguments, and refuses what the real one refuses: outputs
without sizes, types and orders for which there is no engine, arrays off their boundaries, plans that were deselected or never
built. A plan's notes are true: one that has TENSOR_CORE rounds float32 factors to TF32, one that is NONDETERMINISTIC gives
other last bits each time. Heuristics name plans without tensor cores where those of 9.28 do, see ``_graph``. Work goes to the
handle's stream, and into the graph that this captures; the end of a handle waits for the device, which no capture allows.

``delays_s`` makes plans slow by name, for tests that measure them; ``refusals`` is a list of functions that tell, from the
operations of a graph, why there is no engine for it, or None.
"""

from __future__ import annotations

import itertools
from typing import Any

import simulated
from simulated import devices

from cudnn._graph import cudnnGraphNotSupportedError, delays_s, pygraph, refusals, streams, tensor
from cudnn._names import behavior_note, build_plan_policy, data_type, heur_mode, numerical_note

__version__ = "1.26.0"
__all__ = [
    "backend_version",
    "backend_version_string",
    "behavior_note",
    "build_plan_policy",
    "create_handle",
    "cudnnGraphNotSupportedError",
    "data_type",
    "delays_s",
    "destroy_handle",
    "get_stream",
    "heur_mode",
    "numerical_note",
    "pygraph",
    "refusals",
    "set_stream",
    "tensor",
]

_numbers = itertools.count(0x7000, 8)


def backend_version() -> int:
    return 92800


def backend_version_string() -> str:
    return "9.28.0"


def create_handle() -> int:
    try:
        devices.device_count()
    except RuntimeError:
        raise RuntimeError("cudnnHandle Create failed cudaGetDeviceCount(&count) != cudaSuccess") from None
    handle = next(_numbers)
    streams[handle] = 0
    return handle


def destroy_handle(handle: int) -> None:
    simulated.forbid_in_capture("cudnnDestroy, which waits for the device")
    del streams[handle]


def set_stream(handle: int, stream: int) -> None:
    if handle not in streams or type(stream) is not int:
        raise TypeError("set_stream(): incompatible function arguments")
    streams[handle] = stream


def get_stream(handle: int) -> int:
    return streams[handle]


def __getattr__(name: str) -> Any:
    raise AttributeError(f"the stand-in for cudnn has no {name}")
