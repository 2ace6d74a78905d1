"""Working memory of layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

__all__ = ["Buffer"]


class Buffer:
    """An array that a layer keeps between calls; it is allocated when first asked for, and again only to grow.

    Values are undefined until written and survive as long as shape and dtype stay the same.
    """

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._flat: Any = None

    def get(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        """Return the array of ``xp`` of this shape and dtype."""
        count = math.prod(shape)
        if self._flat is None or self._flat.size < count or self._flat.dtype != dtype:
            self._flat = self._xp.empty(count, dtype)
        return self._flat[:count].reshape(shape)
