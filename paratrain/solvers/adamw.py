"""AdamW: Adam with weight decay beside the gradient."""

from __future__ import annotations

from paratrain.solvers.adam import AdamSolver
from paratrain.solvers.factory import register_solver

__all__ = ["AdamWSolver"]


@register_solver("AdamW")
class AdamWSolver(AdamSolver):
    """w = w - rate * (M / (1 - momentum^t) / (sqrt(V / (1 - momentum2^t)) + delta) + weight_decay * decay_mult * w)

    Loshchilov, Hutter, "Decoupled Weight Decay Regularization" (2019). M, V and t are Adam's, of gradients without the decay, and
    ``delta`` is added after the correction, as in the paper. Caffe has no AdamW; the state is laid out like Adam's.
    """

    decoupled_decay = True

    def delta_of_step(self) -> float:
        """What to add to sqrt(V) so that ``delta`` is added to sqrt(V / (1 - momentum2^t))."""
        return self.parameter.delta * self._root
