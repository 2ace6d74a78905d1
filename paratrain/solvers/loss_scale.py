"""The scale of the loss: gradients in half precision are kept from vanishing by a larger loss, and divided again in the update.

Micikevicius et al., "Mixed Precision Training" (2018). Gradients below 6e-8 are 0 in float16; those of a loss that is multiplied
by some power of two are as many times larger, and no bit of them changes. Between backward and the update every gradient, also
in ``net.params[...].diff``, is that of the scaled loss; losses that are displayed, norms, and what is subtracted are not scaled.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from paratrain.backends import Backend
from paratrain.errors import SolverError
from paratrain.net import Net

__all__ = ["DYNAMIC", "LossScale", "scale_loss"]

logger = logging.getLogger(__name__)

DYNAMIC = "dynamic"
"""The word for a scale that follows the gradients."""
FIRST_SCALE = 65536.0
LEAST_SCALE = 1.0
LARGEST_SCALE = 2.0**24
GOOD_STEPS = 2000
"""After so many steps without an overflow the scale is doubled."""


class LossScale:
    """A fixed scale; or, where ``is_dynamic``, one that begins at FIRST_SCALE, is halved by every step whose gradient is not
    finite (which is left out), and doubled by GOOD_STEPS others in a row.

    All ranks that train together are shown the same steps, and so have the same scale.
    """

    def __init__(self, value: float = 1.0, *, is_dynamic: bool = False) -> None:
        if not (math.isfinite(value) and value > 0):
            raise SolverError(f"the loss scale is {value:g}; it must be a number above 0, or '{DYNAMIC}'")
        self.value = value
        """What the loss is multiplied by now."""
        self.is_dynamic = is_dynamic
        self._good_steps = 0

    @classmethod
    def of(cls, text: str) -> LossScale:
        """Return what ``dynamic``, or a number, stands for. Raises SolverError for anything else."""
        if text == DYNAMIC:
            return cls(FIRST_SCALE, is_dynamic=True)
        try:
            return cls(float(text))
        except ValueError:
            raise SolverError(f"the loss scale '{text}' is neither a number nor '{DYNAMIC}'") from None

    @classmethod
    def default_of(cls, backend: Backend) -> LossScale:
        """Return the scale for what a backend computes in: dynamic for float16, else 1."""
        return cls.of(DYNAMIC) if backend.precision == "float16" else cls()

    def follow(self, is_finite: bool) -> bool:
        """Take in whether the gradient of a step was finite; return whether it was not, and the scale is smaller for it.

        Where it is the least already, something else is wrong.
        """
        if not self.is_dynamic or (not is_finite and self.value <= LEAST_SCALE):
            return False
        if not is_finite:
            self.value, self._good_steps = max(self.value / 2.0, LEAST_SCALE), 0
            return True
        self._good_steps += 1
        if self._good_steps >= GOOD_STEPS:
            self.value, self._good_steps = min(self.value * 2.0, LARGEST_SCALE), 0
        return False

    def state(self) -> dict[str, Any]:
        """What a snapshot keeps of it: plain numbers; nothing of a fixed scale."""
        return {"loss_scale": self.value, "loss_scale_good_steps": self._good_steps} if self.is_dynamic else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned, as far as it is there; a fixed scale stays."""
        if self.is_dynamic and "loss_scale" in state:
            self.value = min(max(float(state["loss_scale"]), LEAST_SCALE), LARGEST_SCALE)
            self._good_steps = int(state.get("loss_scale_good_steps", 0))


def scale_loss(net: Net, scale: float) -> None:
    """Multiply the loss of ``net`` by ``scale`` where its gradient begins, from the next pass on; what is shown of it stays."""
    before, net.context.loss_scale = net.context.loss_scale, scale
    if scale == before:
        return
    for layer, tops in zip(net.layers, net.tops, strict=True):
        layer.fill_loss_diffs(tops)
        if layer.type == "Python" and any(layer.loss_weights) and before == 1.0 and net.context.rank == 0:
            logger.warning(
                "Layer '%s' is a loss in Python, and the loss is scaled: its backward must multiply by top[0].diff, or it hardly "
                "counts; --loss-scale 1 leaves the loss as it is",
                layer.name,
            )
