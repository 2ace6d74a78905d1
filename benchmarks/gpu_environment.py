"""What machine this is: GPUs, driver, versions, the memory that is free. The first section of scripts/gpu-check.

    python benchmarks/gpu_environment.py [--record FOLDER] [--out FILE]

Nothing is changed, only asked. ``--record`` keeps the record that cuDNN makes of the GPU, and what ``nvidia-smi topo -m``
prints, in ``FOLDER/NAME/`` as cudnn.json and topology.txt: data for tests that run without a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import shutil
import socket
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu_findings import Findings
from gpu_report import file_name

_PACKAGES = ("numpy", "protobuf", "mpi4py", "mpich", "lmdb", "ml_dtypes", "torch", "pytest", "nvidia-cudnn-frontend")
_QUERY = "name,driver_version,pci.bus_id,memory.total,memory.free,utilization.gpu"
_QUERY += ",clocks.sm,clocks.max.sm,power.limit,mig.mode.current"


def ask(findings: Findings, record: Path | None) -> None:
    """Find out everything, part by part: what is missing is noted, and only a GPU that cannot be used is wrong."""
    from paratrain import gpu

    findings.note("nvidia-smi", "".join(_printed("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv")))
    topology, no_topology = _printed("nvidia-smi", "topo", "-m")
    findings.note("topology", topology or no_topology)
    _ask_own_name(findings)
    problem = gpu.problem()
    if problem is not None:
        findings.check("the GPU", False, found=problem)
        return
    cupy = gpu.library()
    runtime = cupy.cuda.runtime
    asked = runtime.getDeviceProperties(cupy.cuda.Device().id)
    properties = {key: _plain(value) for key, value in asked.items() if key not in ("uuid", "luid")}
    findings.note("properties", properties)
    free, total = runtime.memGetInfo()
    findings.note("memory", {"free": free, "total": total})
    findings.note("versions", _versions(cupy))
    name = str(properties["name"])
    capability = f"{properties['major']}.{properties['minor']}"
    processors = properties["multiProcessorCount"]
    memory = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    found = f"{name}, compute capability {capability}, {processors} multiprocessors, {memory}"
    findings.check("the GPU", free > 1 << 30, asked="1 GB free at least", found=found)
    number = runtime.getDeviceCount()
    reach = [[int(a == b or runtime.deviceCanAccessPeer(a, b)) for b in range(number)] for a in range(number)]
    findings.note("peers", reach)
    device_record = _cudnn_record(findings)
    if record is not None:
        folder = record / file_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        kept = {folder / "topology.txt": topology, folder / "cudnn.json": device_record}
        written = [path.write_text(text.rstrip() + "\n", "utf-8") and str(path) for path, text in kept.items() if text]
        reasons = [] if topology else [no_topology]
        reasons += [] if device_record else [str(findings.notes.get("cudnn_problem", "cuDNN gave an empty record"))]
        findings.check("recorded", not reasons, asked="both records", found="; ".join([*written, *reasons]))


def _ask_own_name(findings: Findings) -> None:
    """How long the machine's own name takes to be found: mpirun asks for it, and waits for servers that do not answer."""
    name, begin = socket.gethostname(), time.monotonic()
    try:
        socket.getaddrinfo(name, None)
        found = f"{name} is known"
    except OSError as error:
        found = f"{name}: {error}"
    seconds = time.monotonic() - begin
    asked = "less than a second, or each mpirun takes long; a line of /etc/hosts may name it"
    findings.goal("the machine's own name", seconds < 1, asked=asked, found=f"{found}, {seconds:.1f} s")


def _cudnn_record(findings: Findings) -> str:
    """The record of the GPU's properties, as cuDNN builds plans by it elsewhere; empty without cuDNN."""
    from paratrain.backends.cupy.cudnn import library

    problem = library.problem()
    if problem is not None:
        findings.note("cudnn_problem", problem)
        return ""
    try:
        made = library.library().create_device_properties(0).serialize()
    except (AttributeError, RuntimeError, TypeError) as error:
        findings.note("cudnn_problem", f"the properties cannot be had: {error}")
        return ""
    text = made if isinstance(made, str) else bytes(made).decode("utf-8", "replace")
    findings.note("cudnn_device_properties", text)
    return text


def _versions(cupy: Any) -> dict[str, str]:
    """Versions of what computes, as the libraries say them; "none" of what is absent."""
    from paratrain.backends.cupy.cudnn import library
    from paratrain.errors import ParatrainError

    found = {"CuPy": cupy.__version__, "CUDA driver": _number(cupy.cuda.runtime.driverGetVersion())}
    found["CUDA runtime"] = _number(cupy.cuda.runtime.runtimeGetVersion())
    found["cuDNN"] = "none" if library.problem() else library.version()
    for name, ask_version in (("cuBLAS", _cublas_version), ("NCCL", _nccl_version)):
        try:
            found[name] = ask_version()
        except (AttributeError, ImportError, RuntimeError, ParatrainError) as error:
            found[name] = f"unknown ({type(error).__name__})"
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return {"Python": sys.version.split()[0], **found}


def _cublas_version() -> str:
    """Of the library that makes the products."""
    from paratrain.backends.cupy.cublas import library

    loaded, parts = ctypes.CDLL(library().name), []
    for kind in range(3):  # major, minor, patch
        part = ctypes.c_int()
        loaded.cublasGetProperty(kind, ctypes.byref(part))
        parts.append(str(part.value))
    return ".".join(parts)


def _nccl_version() -> str:
    nccl = importlib.import_module("cupy.cuda.nccl")
    return str(nccl.get_version()) if nccl.available else "none"


def _number(value: int) -> str:
    return f"{value // 1000}.{value % 1000 // 10}"


def _printed(*command: str) -> tuple[str, str]:
    """What a program prints; or nothing, and why."""
    what = " ".join(command[:2])
    if shutil.which(command[0]) is None:
        return "", f"{command[0]} is not on the path"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "", f"{what} did not end within 20 s"
    if done.returncode:
        return "", f"{what}: exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}"
    return done.stdout, "" if done.stdout.strip() else f"{what} printed nothing"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        text = value.split(b"\0")[0]
        return text.decode() if text.isascii() and text.decode().isprintable() and text else value.hex()
    try:
        json.dumps(value)
    except TypeError:
        return str(value)
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    findings = Findings(arguments.out)
    with findings.trying("the environment"):
        ask(findings, arguments.record)
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())
