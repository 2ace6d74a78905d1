"""The simulated GPU has no name, and its functions no parameter, that CuPy has not: code that runs here finds them there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.simulated_gpu.real_cupy import UNAVAILABLE, parameters


def public(thing: Any) -> list[str]:
    return [name for name in getattr(thing, "__all__", dir(thing)) if not name.startswith("_")]


def test_names_and_parameters_are_those_of_cupy(simulated_gpu: Any) -> None:
    import cupyx
    from cupy._names import FUNCTIONS, UFUNCS

    cupy = simulated_gpu
    cuda, runtime = cupy.cuda, cupy.cuda.runtime
    own = [
        name
        for name in vars(runtime)
        if not name.startswith("_") and getattr(vars(runtime)[name], "__name__", "") != "module"
    ]
    modules = {
        "os",
        "np",
        "annotations",
        "Any",
        "copies",
        "counts",
        "devices",
        "forbid_in_capture",
        "ipc",
        "late",
        "memory",
        "pinned",
        "streams",
    }
    of_runtime = [name for name in own if name not in modules | {"block_at", "memory_at"}]
    made = {
        name: parameters(getattr(cupy, name)) for name in public(cupy) if name.islower() and _is_function(cupy, name)
    }
    asked = {
        "names": {
            "cupy": [*public(cupy), *FUNCTIONS, *UFUNCS, "bool_", "float32", "uint8", "dtype", "nan", "newaxis"],
            "cupyx": public(cupyx),
            "ndarray": public(cupy.ndarray),
            "cuda": public(cuda),
            "runtime": of_runtime,
            "stream": public(cuda.Stream),
            "event": public(cuda.Event),
            "device": public(cuda.Device),
            "graph": public(cuda.Graph),
            "pool": [name for name in public(cuda.MemoryPool) if name != "give_back"],
            "pointer": public(cuda.MemoryPointer),
            "memory": [name for name in public(cuda.Memory) if name != "view"],
            "unowned": [name for name in public(cuda.UnownedMemory) if name != "view"],
            "ufunc": public(cupy.ufunc),
            "pinned": public(cuda.pinned_memory),
            "memory module": public(cuda.memory),
            "stream module": public(cuda.stream),
            "device module": public(cuda.device),
        },
        "ufuncs": sorted(UFUNCS),
        "constants": [name for name in of_runtime if isinstance(getattr(runtime, name), int)],
        "functions": [*FUNCTIONS, *made],
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("real_cupy.py"))],
        input=json.dumps(asked),
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == UNAVAILABLE:
        pytest.skip(f"needs cupy-cuda13x: {done.stdout.strip()}")
    assert done.returncode == 0, done.stderr
    real = json.loads(done.stdout)
    assert (real["missing"], real["ufuncs"]) == ([], [])
    assert real["constants"] == {name: getattr(runtime, name) for name in asked["constants"]}
    assert {name: real["parameters"][name] for name in FUNCTIONS} == {
        name: list(names) for name, names in FUNCTIONS.items()
    }
    assert {name: real["parameters"][name] for name in made} == made


def _is_function(module: Any, name: str) -> bool:
    return type(getattr(module, name)).__name__ == "function"
