"""In which numbers a GPU computes."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from paratrain.dtypes import dtype_named

__all__ = ["Precision"]


class Precision(str, enum.Enum):
    """The type of activations and the kind of products; parameters, their gradients, updates and sums are always float32."""

    FLOAT32 = "float32"
    """float32 throughout, as Caffe."""
    TF32 = "tf32"
    """float32 values, whose products are made of 10 bits of each factor (NVIDIA's TF32)."""
    BFLOAT16 = "bfloat16"
    """Activations and factors in bfloat16."""
    FLOAT16 = "float16"
    """Activations and factors in half precision, the loss scaled up so that small gradients survive."""

    @property
    def storage(self) -> np.dtype[Any]:
        """The type in which activations, and copies of weights for products, are stored."""
        return dtype_named("float32" if self is Precision.TF32 else self.value)

    @property
    def is_narrow(self) -> bool:
        """Whether activations take two bytes."""
        return self.storage.itemsize < 4

    def problem(self, compute_capability: tuple[int, int]) -> str | None:
        """Why a GPU of this compute capability cannot compute so; None where it can."""
        if self in (Precision.TF32, Precision.BFLOAT16) and compute_capability < (8, 0):
            found = ".".join(map(str, compute_capability))
            return (
                f"{self.value} needs a GPU of compute capability 8.0 or higher, and this one's is {found}: "
                f"{Precision.FLOAT32.value} and {Precision.FLOAT16.value} work on it"
            )
        return None
