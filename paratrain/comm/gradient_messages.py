"""Messages that carry gradients: as they are, or in 16 bits, to be added in float32 by whoever receives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paratrain.comm.buffers import Buffers
from paratrain.comm.communicator import Array, Communicator, Request
from paratrain.comm.exchange import Part
from paratrain.dtypes import dtype_named

__all__ = ["GRADIENT_DTYPES", "GradientMessage", "GradientMessages"]

GRADIENT_DTYPES = ("float32", "float16", "bfloat16")
"""The forms in which gradients are sent."""

# The elements that are converted and added at a time, 64 KB of float32: they stay in the core's cache in between.
_PIECE_COUNT = 16 * 1024


class GradientMessage:
    """A message on its way, and the buffer that it comes or goes in; None where that is the gradient itself."""

    def __init__(self, request: Request, buffer: Array | None, count: int) -> None:
        self.test = request.test
        self.buffer = buffer
        self.count = count


class GradientMessages:
    """Sends and receives pieces of an array of `own_dtype`, each at most as long as the longest of `parts`.

    With another `dtype` than float32 each number is rounded to the nearest one of that dtype (the even one of two) when it
    is sent. What is too large for it becomes infinite, and the smallest become 0: float16 ends at 65,504, and begins at
    6e-8; bfloat16 has the range of float32. The receiver adds in `own_dtype`, which must be float32 then.
    """

    def __init__(
        self, communicator: Communicator, parts: Sequence[Part], own_dtype: np.dtype[np.generic], dtype: str = "float32"
    ) -> None:
        self._communicator = communicator
        longest = max((stop - start for start, stop in parts), default=0)
        self._is_whole = dtype == "float32"
        assert self._is_whole or own_dtype == np.float32, "gradients that are sent in 16 bits are summed in float32"
        self._sums = Buffers(longest, own_dtype)
        self._buffers = self._sums if self._is_whole else Buffers(longest, dtype_named(dtype))
        self._scratch: Array = np.empty(0 if self._is_whole else min(longest, _PIECE_COUNT), own_dtype)

    def isend(self, values: Array, destination: int, tag: int) -> GradientMessage:
        """Start sending; `finish` the message when it is complete. Until then `values` belong to it."""
        if self._is_whole:
            return GradientMessage(self._communicator.isend(values, destination, tag), None, len(values))
        buffer = self._buffers.take()
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            np.copyto(buffer[: len(values)], values, casting="unsafe")
        return GradientMessage(self._communicator.isend(buffer[: len(values)], destination, tag), buffer, len(values))

    def ireceive(self, count: int, source: int, tag: int) -> GradientMessage:
        """Start receiving `count` elements: `add` or `open` the message when it is complete."""
        buffer = self._buffers.take()
        return GradientMessage(self._communicator.ireceive(buffer[:count], source, tag), buffer, count)

    def finish(self, message: GradientMessage) -> None:
        """Take back the buffer of a message that is complete, if it has one."""
        if message.buffer is not None:
            self._buffers.give_back(message.buffer)
            message.buffer = None

    def add(self, message: GradientMessage, total: Array) -> None:
        """Add a message that has come to `total`, in the dtype of that, and finish it."""
        assert message.buffer is not None
        if self._is_whole:
            np.add(total, message.buffer[: message.count], out=total)
        else:
            self._add_narrow(message.buffer, total[: message.count])
        self.finish(message)

    def _add_narrow(self, values: Array, total: Array) -> None:
        with np.errstate(invalid="ignore"):  # infinite ones of both signs: whoever uses the sum looks at it
            for start in range(0, len(total), _PIECE_COUNT):
                stop = min(start + _PIECE_COUNT, len(total))
                piece = self._scratch[: stop - start]
                np.copyto(piece, values[start:stop])
                np.add(total[start:stop], piece, out=total[start:stop])

    def open(self, message: GradientMessage) -> Array:
        """The numbers of a message that has come, to be added to in `own_dtype`; `close` the array afterwards.

        It is longer than the message, whose place is its beginning.
        """
        assert message.buffer is not None
        if self._is_whole:
            total, message.buffer = message.buffer, None
        else:
            total = self._sums.take()
            np.copyto(total[: message.count], message.buffer[: message.count])
            self.finish(message)
        return total

    def close(self, total: Array) -> None:
        """Take back what `open` gave."""
        self._sums.give_back(total)
