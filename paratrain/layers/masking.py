"""Keeping some values and clearing the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from paratrain.layers.buffers import Buffer

__all__ = ["keep_where"]


def keep_where(xp: Any, mask: Any, values: Any, out: Any, bits: Buffer) -> None:
    """out = values where ``mask`` (booleans) holds, else 0; ``out`` may be ``values``, ``bits`` is overwritten.

    All bits of a value are kept or cleared at once: numpy multiplies by booleans several times more slowly.
    """
    integer = np.dtype(f"i{values.dtype.itemsize}")
    kept = bits.get(values.shape, integer)
    xp.negative(mask.view(np.int8), out=kept, dtype=integer)  # -1 has all bits set
    xp.bitwise_and(values.view(integer), kept, out=out.view(integer))
