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

from simulated import watching

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
    "-fno-threadsafe-statics",
    "-fvisibility=hidden",
    "-w",
)
_ROUNDING = ("-DSIMULATED_ROUNDING", "-O2", "-mfma", "-ffp-contract=fast")
"""For SIMULATED_GPU_ROUNDING=1: what the last bits of numbers are on a GPU is not known here, but that they are others is."""
_CHECKS = (
    "-DSIMULATED_CHECKS",
    "-g1",
    "-fsanitize=thread,signed-integer-overflow,integer-divide-by-zero,shift,bounds,float-cast-overflow",
)
"""For SIMULATED_GPU_CHECKS=1: see shim/watch.h."""
_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+((?:__attribute__\s*\(\(aligned\(\d+\)\)\)\s*)?)([\w:\s]+?)\s*\b(\w+)\s*\[\s*\]\s*;"
)
_SHARED = re.compile(
    r"__shared__\s+((?:__attribute__\s*\(\(aligned\(\d+\)\)\)\s*)?)([\w:<>\s]+?)\s*\b(\w+)\s*((?:\[[^;\]]*\]\s*)*);"
)
_SHARED_PLACE = (
    r"using type_of_\3 \1= \2 \4; static const unsigned place_of_\3 = simulated::take_shared<type_of_\3>();"
    r" type_of_\3& \3 = *reinterpret_cast<type_of_\3*>(simulated::fixed_shared + place_of_\3);"
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
    if watching.is_on():
        kept += _CHECKS
    key = hashlib.sha256(repr((source, kept, expressions, _FLAGS)).encode() + _identity()).hexdigest()[:32]
    library = _folder() / f"{key}.so"
    if not library.exists():
        _build(source, kept, expressions, library)
    loaded = ctypes.PyDLL(str(library))
    watching.set_order(loaded)
    return loaded


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
    text = _SHARED.sub(_SHARED_PLACE, text).replace("__global__", "")
    if "__shared__" in text:
        raise CompileError("the simulation takes one array in each declaration of __shared__ memory")
    table = "".join(f'simulated::describe("{name}", &{name}), ' for name in names)
    text += f"""
extern "C" __attribute__((visibility("default"))) const simulated::Kernel simulated_kernels[] = {{{table}{{}}}};
"""
    with tempfile.NamedTemporaryFile(dir=library.parent, suffix=".so", delete=False) as file:
        temporary = Path(file.name)
    try:
        # Without the library of the sanitizer: what it would say is said in threads.h.
        libraries = ["-nodefaultlibs", "-lm", "-lc", "-lgcc"]
        chosen = [option for option in options if option in (*_ROUNDING, *_CHECKS)]
        _run(["-x", "c++-cpp-output", *_FLAGS, *chosen, "-shared", "-o", str(temporary), "-", *libraries], text)
        temporary.replace(library)
    finally:
        temporary.unlink(missing_ok=True)
