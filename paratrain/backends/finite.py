"""Is all of an array finite?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["is_finite", "without_warnings"]


def is_finite(flat: Any, xp: Any) -> bool:
    """Whether every value of a flat array is, at the cost of one sum of squares in nearly all cases.

    The sum is finite only if they all are. It may overflow though they are, for values above 1e17 or so in float32: then
    each is looked at. Call it :func:`without_warnings`.
    """
    return math.isfinite(xp.dot(flat, flat)) or bool(xp.isfinite(flat).all())


def without_warnings() -> np.errstate:
    """Return a context in which NumPy says nothing of overflow and the like: somebody looks at the results."""
    return np.errstate(over="ignore", invalid="ignore")
