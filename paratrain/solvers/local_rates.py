"""Layer-wise rates for large batches: each parameter blob's own rate follows from the norms of its values and gradient.

LARS: You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks" (2017), as intel/caffe (``local_lr_auto``) and
NVCaffe (``larc``) have it. A blob's lr_mult then only says whether it learns at all (0: it does not). The norms need all of
a blob's gradient, so that an update begins when every gradient is there; applying it in slices is as free as ever.
"""

from __future__ import annotations

from collections.abc import Iterator

from paratrain.errors import SolverError
from paratrain.proto import SolverParameter

__all__ = ["LocalRates", "find_local_rate_problems", "wants_local_rates"]

LARC_POLICIES = ("scale", "clip")
CORRELATION_DECAY = 0.95


def wants_local_rates(parameter: SolverParameter) -> bool:
    """Whether the settings ask for a rate of its own for each blob."""
    return parameter.larc or parameter.local_lr_auto


def find_local_rate_problems(parameter: SolverParameter) -> Iterator[SolverError]:
    """Yield an error for every setting of layer-wise rates that cannot be followed."""
    if parameter.larc and parameter.local_lr_auto:
        yield SolverError("the solver gives larc (NVIDIA/caffe) and local_lr_auto (intel/caffe); choose one")
    if parameter.larc and parameter.larc_policy not in LARC_POLICIES:
        yield SolverError(f"unknown larc_policy '{parameter.larc_policy}'; known: {', '.join(LARC_POLICIES)}")
    if parameter.larc_turbo and not parameter.larc:
        yield SolverError("larc_turbo needs larc: true")
    for switch, name in (("larc", "larc_eta"), ("local_lr_auto", "local_gw_ratio")):
        if getattr(parameter, switch) and getattr(parameter, name) <= 0:
            yield SolverError(f"{name} is {getattr(parameter, name):g}; it must be above 0")


class LocalRates:
    """The rates of ``blob_count`` blobs. ``correlations`` is what larc_turbo remembers of each."""

    def __init__(self, parameter: SolverParameter, blob_count: int) -> None:
        self._parameter = parameter
        self.correlations = [0.0] * blob_count
        self.iteration = 0

    @property
    def is_turbo(self) -> bool:
        return self._parameter.larc_turbo

    def rate(
        self, index: int, rate: float, lr_mult: float, data_norm: float, diff_norm: float, cosine: float | None
    ) -> float:
        """Return the rate of blob ``index`` whose values and gradient (before decay) have these L2 norms.

        intel/caffe:     rate * local_gw_ratio * |data| / (|diff| + weight_decay * |data|)
        NVCaffe, scale:  rate * larc_eta * |data| / |diff|
        NVCaffe, clip:   min(rate, larc_eta * |data| / |diff|)

        Where a norm is 0, the ratio is taken as 1. ``cosine``, between gradient and history, is for larc_turbo: from the third
        iteration on the ratio is multiplied by 1 - 0.9 c, where c = 0.95 c + 0.05 cosine (as in NVCaffe's SAG solver).
        """
        parameter = self._parameter
        if lr_mult <= 0:
            return rate * lr_mult
        known = data_norm > 0 and diff_norm > 0
        if parameter.local_lr_auto:
            decayed = diff_norm + parameter.weight_decay * data_norm
            return rate * (parameter.local_gw_ratio * data_norm / decayed if known else 1.0)
        ratio = parameter.larc_eta * data_norm / diff_norm if known else 1.0
        if cosine is not None and self.iteration > 1:
            kept = CORRELATION_DECAY * self.correlations[index]
            self.correlations[index] = kept + (1.0 - CORRELATION_DECAY) * cosine
            ratio *= 1.0 - 0.9 * self.correlations[index]
        return rate * ratio if parameter.larc_policy == "scale" else min(rate, ratio)
