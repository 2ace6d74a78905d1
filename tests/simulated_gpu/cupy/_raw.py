"""cupy.RawModule and cupy.RawKernel."""

from __future__ import annotations

import copy
import functools
from typing import Any

from simulated import forbid_in_capture, kernels
from simulated.compiler import CompileError

from cupy.cuda.compiler import CompileException

__all__ = ["RawKernel", "RawModule"]


class _Function:
    """A kernel: called with a grid, a block and arguments."""

    def __init__(self, kernel: kernels.Kernel) -> None:
        self._kernel = kernel
        self.name = kernel.name

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError("Argument 'grid' has incorrect type (expected tuple)")
        self._kernel.launch((*grid, 1, 1)[:3], (*block, 1, 1)[:3], tuple(args), shared_mem, None)

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._kernel.most_shared_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if size > 232448:
            raise ValueError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._kernel.most_shared_bytes = size

    max_threads_per_block = 1024


class RawModule:
    """A source, compiled for the host when first used."""

    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Any = None,
        jitify: Any = None,
    ) -> None:
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if code is None:
            raise NotImplementedError("the simulation compiles code")
        if not isinstance(options, tuple):
            raise TypeError(f"Argument 'options' has incorrect type (expected tuple, got {type(options).__name__})")
        if not isinstance(code, str):
            raise TypeError("Argument 'code' has incorrect type (expected str)")
        self.code, self.options, self.backend = code, options, backend
        self.name_expressions = None if name_expressions is None else tuple(name_expressions)

    @functools.cached_property
    def _kernels(self) -> dict[str, kernels.Kernel]:
        forbid_in_capture("loading a module")
        try:
            loaded = kernels.load(self.code, self.options, self.name_expressions or ())
            # Those of each module are loaded anew when they first run.
            return {name: copy.copy(kernel) for name, kernel in loaded.items()}
        except CompileError as error:
            raise CompileException(str(error), self.code, "kernel.cu", self.options, self.backend) from None

    def compile(self, log_stream: Any = None) -> None:
        _ = self._kernels

    def get_function(self, name: str) -> _Function:
        if name not in self._kernels:
            raise RuntimeError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        return _Function(self._kernels[name])


class RawKernel(_Function):
    """A module of one kernel."""

    def __init__(
        self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", **others: Any
    ) -> None:
        self._module = RawModule(code, options=options, backend=backend)
        self.code, self.name, self.options = code, name, options

    @functools.cached_property
    def _kernel(self) -> kernels.Kernel:  # type: ignore[override]
        return self._module.get_function(self.name)._kernel
