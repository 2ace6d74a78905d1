"""Two processes that share a simulated GPU, or its neighbour, through CUDA's handles, as ranks do; and forks."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.simulated_gpu_path import environment

OTHER = """
import cupy
import numpy as np

runtime = cupy.cuda.runtime
handle = bytes.fromhex(input())
address = runtime.ipcOpenMemHandle(handle)
assert runtime.ipcOpenMemHandle(handle) == address
memory = cupy.cuda.UnownedMemory(address, 4000, None, 0)
array = cupy.ndarray((1000,), np.float32, memptr=cupy.cuda.MemoryPointer(memory, 0))
print(float(array.sum()), flush=True)
input()
array += 1
runtime.ipcCloseMemHandle(address)
runtime.ipcCloseMemHandle(address)
try:
    runtime.ipcCloseMemHandle(address)
except runtime.CUDARuntimeError:
    print("closed", flush=True)
"""


def test_memory_of_another_process(simulated_gpu: Any) -> None:
    runtime = simulated_gpu.cuda.runtime
    files = len(os.listdir("/proc/self/fd"))
    memory = simulated_gpu.cuda.Memory(4000)
    array = simulated_gpu.ndarray((1000,), np.float32, memptr=simulated_gpu.cuda.MemoryPointer(memory, 0))
    array[...] = simulated_gpu.arange(1000)
    simulated_gpu.cuda.Device().synchronize()  # before another process reads it
    handle = bytes(runtime.ipcGetMemHandle(array.data.ptr))
    assert len(handle) == 64
    with pytest.raises(runtime.CUDARuntimeError, match="by the process that made it"):
        runtime.ipcOpenMemHandle(handle)
    pooled = simulated_gpu.zeros(3)
    with pytest.raises(runtime.CUDARuntimeError, match="memory of a pool"):
        runtime.ipcGetMemHandle(pooled.data.ptr)
    command = [sys.executable, "-c", OTHER]
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        print(handle.hex(), file=other.stdin)
        assert float(other.stdout.readline()) == 499500
        array[0] = 10
        simulated_gpu.cuda.Device().synchronize()
        print(file=other.stdin)
        assert other.stdout.readline() == "closed\n"
    assert other.returncode == 0
    assert float(array.sum()) == 499500 + 10 + 1000
    del array, memory
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == files  # memory without a name, which goes with the last process
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as other:
        assert "cudaErrorInvalidValue" in other.communicate(handle.hex() + "\n\n")[1]  # it is freed


def test_memory_that_is_freed_while_another_process_has_it(
    simulated_gpu: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    memory = simulated_gpu.cuda.Memory(4000)
    handle = bytes(simulated_gpu.cuda.runtime.ipcGetMemHandle(memory.ptr))
    with subprocess.Popen(
        [sys.executable, "-c", OTHER],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        print(handle.hex(), file=other.stdin)
        other.stdout.readline()
        del memory
        gc.collect()
        assert "memory was freed that another process has open" in capfd.readouterr().err
        print(file=other.stdin)


FORKING = """
import os, sys
from paratrain import gpu
import paratrain.pycaffe as caffe

def forked(name):
    if os.fork() == 0:
        print(name, gpu.problem(), sep=": ", flush=True)
        try:
            caffe.modes.new_backend()
        except Exception as error:
            print(type(error).__name__, flush=True)
        os._exit(0)
    os.wait()

forked("early")
caffe.set_mode_gpu()
forked("late")
print(caffe.modes.new_backend().name, flush=True)
"""


def test_processes_forked_after_a_gpu_was_used_say_so() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING], env=environment(), capture_output=True, text=True, check=True
    )
    early, late, error, own = done.stdout.splitlines()
    assert early == "early: None"
    assert late.startswith("late: the process that forked this one had used CUDA before")
    assert (error, own) == ("DeviceError", "cupy")
