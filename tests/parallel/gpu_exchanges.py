"""Run under mpirun: exchange noise between simulated GPUs in the ways of scripts/gpu/check_exchange; rank 0 prints JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from importlib.machinery import SourceFileLoader
from typing import Any

from paratrain.comm import create_communicator
from paratrain.comm.device import open_device
from tests.paths import REPOSITORY


def script() -> Any:
    """The script as a module."""
    sys.dont_write_bytecode = True
    loader = SourceFileLoader("check_exchange_script", str(REPOSITORY / "scripts/gpu/check_exchange"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module: Any = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.COUNTS, module.STEPS = (0, 1, 1003), 2
    return module


def main(gpu_count: int) -> None:
    """Each rank sees its own GPU alone, as GPU 0."""
    communicator = create_communicator()
    os.environ["CUDA_VISIBLE_DEVICES"] = str(communicator.rank % gpu_count)
    found = script().check(communicator, open_device(), 20_000)
    if communicator.rank == 0:
        print(json.dumps(found))
    communicator.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
