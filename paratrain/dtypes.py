"""Types of numbers by name, those that numpy itself lacks among them."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["dtype_named"]


def dtype_named(name: str) -> np.dtype[Any]:
    """Return the dtype of this name: ``bfloat16``, or one of numpy's."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes  # only now: most runs do without it

    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found
