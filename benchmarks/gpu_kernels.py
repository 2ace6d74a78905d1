"""Compile every kernel for the GPU that is here, load it, and say what it takes of a multiprocessor.

    python benchmarks/gpu_kernels.py [--types float32,...] [--families pooling,...] [--jobs 8] [--out FILE]

CuPy keeps what is compiled, so that the sections after this one find it. Noted are registers, shared memory, and local memory: a
kernel that has any keeps variables outside of registers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from gpu_findings import Findings

_KERNEL = re.compile(r"__global__\s+(?:__launch_bounds__\(\w+\)\s+)?void\s+([\w#]+)")
_MACRO = re.compile(r"^#define (\w+)\((\w+)[^)]*\)((?:.*\\\n)*.*\n)", re.MULTILINE)
_CONDITION = re.compile(r"#\s*if\s+(!?)defined\((STORAGE_IS_\w+)\)\s*$")
_STORAGE = {"float64": "DOUBLE", "float16": "HALF", "bfloat16": "BFLOAT16"}
_ATTRIBUTES = ("num_regs", "shared_size_bytes", "local_size_bytes", "max_threads_per_block")


def for_type(text: str, dtype: str) -> str:
    """The text without what the preprocessor leaves out for a type: ``#if defined(STORAGE_IS_DOUBLE)``, with ``!`` or #else."""
    defined = f"STORAGE_IS_{_STORAGE.get(dtype, 'FLOAT')}"
    lines, stack = (
        list[str](),
        list[bool | None](),
    )  # of each #if around: whether this branch counts; None of other conditions
    for line in text.splitlines():
        condition = _CONDITION.match(line)
        if condition:
            stack.append((condition[2] == defined) != bool(condition[1]))
        elif re.match(r"#\s*if", line):
            stack.append(None)
        elif re.match(r"#\s*elif", line) and stack:
            stack[-1] = None
        elif re.match(r"#\s*endif", line) and stack:
            stack.pop()
        elif re.match(r"#\s*else", line) and stack:
            stack[-1] = None if stack[-1] is None else not stack[-1]
        if False not in stack:
            lines.append(line)
    return "\n".join(lines) + "\n"


def kernel_names(text: str, dtype: str) -> list[str]:
    """The kernels that a family defines for a type, also by macros that take a name, or a part of one, first."""
    text = for_type(text, dtype)
    names = _KERNEL.findall(_MACRO.sub("", text))
    for macro, parameter, body in _MACRO.findall(text):
        for argument in re.findall(rf"^{macro}\((\w*)", text, re.MULTILINE):
            for pattern in _KERNEL.findall(body):
                names.append("".join(argument if part == parameter else part for part in pattern.split("##")))
    return list(dict.fromkeys(names))


def build(family: str, dtype: str) -> tuple[str, str, str, dict[str, Any]]:
    """Compile a family for a type; return both, what was wrong, and the attributes of its kernels."""
    from paratrain import gpu
    from paratrain.backends.cupy.modules import options, source
    from paratrain.dtypes import dtype_named

    try:
        text = source(family)
        module = gpu.library().RawModule(code=text, options=options(dtype_named(dtype)), backend="nvrtc")
        found = {}
        for name in kernel_names(text, dtype):
            function = module.get_function(name)
            found[name] = {key: getattr(function, key) for key in _ATTRIBUTES if hasattr(function, key)}
    except Exception as error:  # whatever a compiler or a driver finds
        return family, dtype, f"{type(error).__name__}: {str(error)[-500:]}", {}
    return family, dtype, "" if found else "no kernel was found in it", found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="float32,float64,float16,bfloat16")
    parser.add_argument("--families", help="only these, divided by commas")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    findings = Findings(arguments.out)
    from paratrain.backends.cupy.modules import FAMILIES

    families = arguments.families.split(",") if arguments.families else FAMILIES
    attributes: dict[str, Any] = {}
    spilling = []
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(build, family, dtype) for family in families for dtype in arguments.types.split(",")]
        for one in waiting:
            with findings.trying("compiling"):  # a process of the pool may crash
                family, dtype, problem, found = one.result()
                findings.check(
                    f"{family}, {dtype}", not problem, asked="compiles", found=problem or f"{len(found)} kernels"
                )
                attributes[f"{family}, {dtype}"] = found
                spilling += [f"{name} ({dtype})" for name, of in found.items() if of.get("local_size_bytes", 0) > 0]
    findings.note("kernels", attributes)
    findings.goal("kernels with variables in local memory", None, found=", ".join(spilling) or "none")
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())
