"""Random numbers that depend on what they are for, not on who asks first.

Every draw is named by a key (seed, layer, iteration ...) and the number of the element, so that it is the same on any
number of ranks, in any order, and after resuming. A key is hashed to 64 bits; element ``i`` of its stream is the
finalizer of SplitMix64 applied to ``key + (i + 1) * golden`` (Steele, Lea, Flood: Fast splittable pseudorandom number
generators, OOPSLA 2014), which needs a handful of integer operations per number, on any array library.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["entropy", "generator", "hash_key", "uniform_at"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def entropy() -> int:
    """Return a seed that nobody chose: 31 bits from the operating system."""
    return secrets.randbits(31)


def hash_key(*parts: int | str) -> int:
    """Return 64 bits that depend on every part of the key and on their order, the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def generator(*parts: int | str) -> np.random.Generator:
    """Return numpy's generator (Philox) for a key; for draws that are made once, such as a filler's."""
    return np.random.Generator(np.random.Philox(key=hash_key(*parts)))


def uniform_at(key: int, index: npt.NDArray[np.uint64], xp: Any = np) -> Any:
    """Return uniform numbers in [0, 1), float32 on a grid of 2^-24: one for each element number in ``index``.

    ``key`` comes from :func:`hash_key`; ``index`` is an array of ``xp`` of any shape.
    """
    z = (index + xp.uint64(1)) * _GOLDEN
    z += xp.uint64(key)
    z ^= z >> xp.uint64(30)
    z *= _MIX_1
    z ^= z >> xp.uint64(27)
    z *= _MIX_2
    z ^= z >> xp.uint64(31)
    return (z >> xp.uint64(40)).astype(xp.float32) * xp.float32(2.0**-24)
