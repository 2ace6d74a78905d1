"""Compile the kernels for real GPUs, by NVRTC, which needs none. Run as a program, where the installed CuPy is found::

    compile_kernels.py float16 90

Writes a JSON list of what failed. What NVRTC has accepted once is remembered in a folder of the user's temporary files.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paratrain.backends.cupy.modules import FAMILIES, options, source
from paratrain.comm.cuda import ADD_SOURCE, add_name

UNAVAILABLE = 77
"""The status that tells that the libraries are not there."""


def sources(dtype: str) -> Iterator[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    """What is compiled for a type: name, source, options, instances of templates."""
    for family in FAMILIES:
        yield family, source(family), options(dtype), ()
    if dtype in ("float32", "float64"):
        names = tuple(add_name(dtype, count) for count in (1, 2, 16))
        yield "comm/cuda.py", ADD_SOURCE, ("-std=c++17",), names


def libraries() -> tuple[Any, Any, str]:
    """CuPy's module of compilers, its function that finds headers, and the versions. Ends the program where they are absent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import cupy
            from cupy._core import core
            from cupy.cuda import compiler, nvrtc

            return compiler, core.assemble_cupy_compiler_options, f"{cupy.__version__} {nvrtc.getVersion()}"
        except (ImportError, RuntimeError) as error:
            print(error)
            sys.exit(UNAVAILABLE)


def main(dtype: str, architectures: list[str]) -> None:
    compiler, with_headers, versions = libraries()
    accepted = Path(tempfile.gettempdir()) / f"paratrain-nvrtc-{os.getuid()}"
    accepted.mkdir(mode=0o700, exist_ok=True)
    failures = []
    for name, text, chosen, instances in sources(dtype):
        for architecture in architectures:
            # As RawModule does, which asks the GPU of the machine for its architecture.
            flags = (*chosen, "-ftz=true", f"-arch=sm_{architecture}", "--device-as-default-execution-space")
            key = hashlib.sha256(repr((versions, text, flags, instances)).encode()).hexdigest()
            if (accepted / key).exists():
                continue
            program = compiler._NVRTCProgram(text, name, name_expressions=instances or None, method="cubin")
            try:
                program.compile(with_headers(flags))
                said = compiler.nvrtc.getProgramLog(program.ptr).strip("\0 \n")
            except compiler.CompileException as error:
                said = str(error)
            if said:
                failures.append(f"{name} in {dtype} for sm_{architecture}: {said}")
            else:
                (accepted / key).touch()
    print(json.dumps(failures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
