"""Run as a program, where the installed CuPy is found: write as JSON what it has of the names that the simulation has."""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from typing import Any

UNAVAILABLE = 77


def parameters(function: Any) -> list[str]:
    kinds = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [kinds.get(found.kind, "") + found.name for found in inspect.signature(function).parameters.values()]


def main() -> None:
    asked = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    try:
        import cupy
        import cupyx
    except ImportError as error:
        print(error)
        sys.exit(UNAVAILABLE)
    homes = {"cupy": cupy, "ndarray": cupy.ndarray, "cuda": cupy.cuda, "runtime": cupy.cuda.runtime, "cupyx": cupyx}
    homes |= {
        "stream": cupy.cuda.Stream,
        "event": cupy.cuda.Event,
        "device": cupy.cuda.Device,
        "graph": cupy.cuda.Graph,
    }
    homes |= {"pool": cupy.cuda.MemoryPool, "pointer": cupy.cuda.MemoryPointer, "memory": cupy.cuda.Memory}
    homes |= {"unowned": cupy.cuda.UnownedMemory, "ufunc": cupy.ufunc, "pinned": cupy.cuda.pinned_memory}
    homes |= {"memory module": cupy.cuda.memory, "stream module": cupy.cuda.stream, "device module": cupy.cuda.device}
    answer: dict[str, Any] = {
        "version": cupy.__version__,
        "missing": [
            f"{home}.{name}"
            for home, names in asked["names"].items()
            for name in names
            if not hasattr(homes[home], name)
        ],
        "ufuncs": [name for name in asked["ufuncs"] if not isinstance(getattr(cupy, name, None), cupy.ufunc)],
        "constants": {name: getattr(cupy.cuda.runtime, name) for name in asked["constants"]},
        "parameters": {name: parameters(getattr(cupy, name)) for name in asked["functions"]},
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
