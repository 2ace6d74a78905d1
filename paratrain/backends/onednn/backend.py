"""The oneDNN backend: the numpy backend, and what layers of their own compute by primitives of oneDNN."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import BACKENDS, AdamRule, MomentumRule, UpdateRule, warn_once
from paratrain.backends.numpy.backend import NumpyBackend
from paratrain.backends.onednn import library
from paratrain.backends.onednn.arranged import Arranger
from paratrain.backends.onednn.names import DataType
from paratrain.backends.onednn.primitive import Engine
from paratrain.backends.onednn.updates import OneDnnUpdate
from paratrain.threads import wanted_thread_count

__all__ = ["OneDnnBackend"]


@BACKENDS.register("onednn")
class OneDnnBackend(NumpyBackend):
    """Computes on the host, in float32 by oneDNN where a layer has a class for it (``paratrain.layers.onednn``).

    All other layers, those of float64 nets, and geometries for which oneDNN has only plain loops are the numpy backend's.
    Gives the same bits in each run with the same number of threads. One thread at a time may use a backend; several
    backends may work side by side.

    With the precision "bfloat16" the factors of products are rounded to bfloat16, and so are the blobs that lie between layers
    on oneDNN; sums, parameters, their gradients, statistics, losses and updates are float32. Where the processor does not
    multiply such numbers the precision is "float32" after all, with a warning. Raises BackendError where oneDNN cannot be loaded.
    """

    name = "onednn"
    precisions = ("float32", "bfloat16")

    def __init__(self, precision: str = "float32") -> None:
        super().__init__(precision)
        self.library = library.load()
        if precision == "bfloat16":
            self.precision = self._check_bfloat16()
        thread_count = wanted_thread_count()
        if thread_count is not None:
            self.library.thread_count = thread_count
        self.engine = Engine(self.library)
        self.arranger = Arranger(self.engine, DataType.BF16 if self.precision == "bfloat16" else DataType.F32)

    @classmethod
    def problem(cls) -> str | None:
        return library.problem()

    def fused_update(self, rule: UpdateRule, dtype: npt.DTypeLike) -> OneDnnUpdate | None:
        is_known = isinstance(rule, MomentumRule | AdamRule)
        return OneDnnUpdate(self.engine) if dtype == np.float32 and is_known else None

    @property
    def description(self) -> str:
        version, threads = ".".join(map(str, self.library.version[:2])), self.library.thread_count
        precision = "" if self.precision == "float32" else f", {self.precision}"
        return f"oneDNN {version} ({self.library.instruction_set}), {threads} thread{'s' * (threads != 1)}{precision}"

    def _check_bfloat16(self) -> str:
        """Return the precision that is to be used, and warn where it is not the wanted one, or slow."""
        found = self.library.instruction_set
        if not self.library.has_bfloat16:
            warn_once(f"float32 computes: the processor has no products of bfloat16 ({found}, not AVX512_BF16 or AMX)")
            return "float32"
        if self.library.has_slow_bfloat16:
            warn_once(
                f"bfloat16 will be slower than --precision float32: this processor offers no AMX ({found}), and without it "
                "multiplies bfloat16 numbers at half the speed of float32"
            )
        return "bfloat16"
