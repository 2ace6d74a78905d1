"""The oneDNN backend: the numpy backend, and what layers of their own compute by primitives of oneDNN."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import BACKENDS, UpdateRule
from paratrain.backends.numpy.backend import NumpyBackend
from paratrain.backends.onednn import library
from paratrain.backends.onednn.arranged import Arranger
from paratrain.backends.onednn.primitive import Engine
from paratrain.backends.onednn.updates import OneDnnUpdate
from paratrain.threads import wanted_thread_count

__all__ = ["OneDnnBackend"]


@BACKENDS.register("onednn")
class OneDnnBackend(NumpyBackend):
    """Computes on the host, in float32 by oneDNN where a layer has a class for it (``paratrain.layers.onednn``).

    All other layers, those of float64 nets, and geometries for which oneDNN has only plain loops are the numpy backend's.
    Gives the same bits in each run with the same number of threads. One thread at a time may use a backend; several
    backends may work side by side. Raises BackendError where oneDNN cannot be loaded.
    """

    name = "onednn"

    def __init__(self) -> None:
        super().__init__()
        self.library = library.load()
        thread_count = wanted_thread_count()
        if thread_count is not None:
            self.library.thread_count = thread_count
        self.engine = Engine(self.library)
        self.arranger = Arranger(self.engine)

    @classmethod
    def problem(cls) -> str | None:
        return library.problem()

    def fused_update(self, rule: UpdateRule, dtype: npt.DTypeLike) -> OneDnnUpdate | None:
        return OneDnnUpdate(self.engine) if dtype == np.float32 else None

    @property
    def description(self) -> str:
        version, threads = ".".join(map(str, self.library.version[:2])), self.library.thread_count
        return f"oneDNN {version} ({self.library.instruction_set}), {threads} thread{'s' * (threads != 1)}"
