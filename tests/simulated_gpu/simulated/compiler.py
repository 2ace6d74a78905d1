"""CUDA C++ compiled for the host by g++, once for each source on a machine."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CompileError", "compiled"]

_SHIM = Path(__file__).parent / "shim"
_FLAGS = (
    "-std=c++20",
    "-O1",
    "-fPIC",
    "-ffp-contract=off",
    "-fsanitize=alignment",
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=hidden",
    "-w",
)
_ROUNDING = ("-DSIMULATED_ROUNDING", "-O2", "-mfma", "-ffp-contract=fast")
"""For SIMULATED_GPU_ROUNDING=1: what the last bits of numbers are on a GPU is not known here, but that they are others is."""
_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+((?:__attribute__\s*\(\(aligned\(\d+\)\)\)\s*)?)([\w:\s]+?)\s*\b(\w+)\s*\[\s*\]\s*;"
)
_NAMED = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(\w+)\s*\(')


class CompileError(Exception):
    """What the compiler said."""


@functools.cache
def _compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        raise CompileError("the simulated GPU needs g++ for kernels: apt install g++")
    return found


@functools.cache
def _identity() -> bytes:
    """Of the compiler and the shim."""
    version = subprocess.run([_compiler(), "-dumpfullversion", "-dumpmachine"], capture_output=True, check=True).stdout
    return version + b"".join(path.read_bytes() for path in sorted(_SHIM.iterdir())) + Path(__file__).read_bytes()


@functools.cache
def _folder() -> Path:
    """This user's folder of compiled modules."""
    folder = Path(tempfile.gettempdir()) / f"simulated-gpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise CompileError(f"{folder} belongs to somebody else")
    return folder


def _run(arguments: Sequence[str], text: str) -> str:
    done = subprocess.run([_compiler(), *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stderr)
    return done.stdout


@functools.cache
def compiled(source: str, options: tuple[str, ...], expressions: tuple[str, ...] = ()) -> ctypes.PyDLL:
    """The library with a table of kernels: those that are extern "C", and ``expressions`` (instances of templates)."""
    kept = [option for option in options if option.startswith(("-D", "-U", "-I", "--define-macro"))]
    if os.environ.get("SIMULATED_GPU_ROUNDING") == "1":
        kept += _ROUNDING
    key = hashlib.sha256(repr((source, kept, expressions, _FLAGS)).encode() + _identity()).hexdigest()[:32]
    library = _folder() / f"{key}.so"
    if not library.exists():
        _build(source, kept, expressions, library)
    return ctypes.PyDLL(str(library))


def _build(source: str, options: Sequence[str], expressions: Sequence[str], library: Path) -> None:
    preprocessor = [
        "-E",
        "-x",
        "c++",
        *_FLAGS,
        *options,
        f"-I{_SHIM}",
        "-include",
        str(_SHIM / "simulated_cuda.h"),
        "-",
    ]
    text = _run(preprocessor, source)
    names = [*dict.fromkeys(_NAMED.findall(text)), *expressions]
    text = _DYNAMIC.sub(r"\2* const \3 = reinterpret_cast<\2*>(simulated::dynamic_shared);", text)
    text = text.replace("__shared__", '__attribute__((section("simulated_shared"))) static').replace("__global__", "")
    table = "".join(f'simulated::describe("{name}", &{name}), ' for name in names)
    text += f"""
extern "C" __attribute__((visibility("default"))) const simulated::Kernel simulated_kernels[] = {{{table}{{}}}};
"""
    with tempfile.NamedTemporaryFile(dir=library.parent, suffix=".so", delete=False) as file:
        temporary = Path(file.name)
    try:
        # Without the library of the sanitizer: what it would say is said in threads.h.
        libraries = ["-nodefaultlibs", "-lm", "-lc", "-lgcc"]
        rounding = [option for option in options if option in _ROUNDING]
        _run(["-x", "c++-cpp-output", *_FLAGS, *rounding, "-shared", "-o", str(temporary), "-", *libraries], text)
        temporary.replace(library)
    finally:
        temporary.unlink(missing_ok=True)
