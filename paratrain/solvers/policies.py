"""The policies of a solver together: learning rate, momentum and weight decay of each iteration, and what they remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paratrain.errors import SnapshotError
from paratrain.proto import SolverParameter
from paratrain.solvers.local_rates import LocalRates
from paratrain.solvers.lr_policy import current_step, learning_rate
from paratrain.solvers.momentum_policy import momentum_at, weight_decay_at
from paratrain.solvers.plateau import Plateau

__all__ = ["Policies"]


class Policies:
    """Pure functions of the iteration, but for ``plateau``, which must be shown every loss, and larc_turbo."""

    def __init__(self, parameter: SolverParameter, local_rates: LocalRates | None) -> None:
        self._parameter = parameter
        self._plateau = Plateau(parameter) if parameter.lr_policy == "plateau" else None
        self._turbo = local_rates if local_rates is not None and local_rates.is_turbo else None

    @property
    def watches_loss(self) -> bool:
        """Whether :meth:`observe` must be called in every iteration."""
        return self._plateau is not None

    def observe(self, iteration: int, loss: float) -> bool:
        """Take in the loss of ``iteration`` before its rate is asked for; return whether the rate falls now."""
        return self._plateau is not None and self._plateau.observe(iteration, loss)

    def rate(self, iteration: int) -> float:
        """The learning rate of ``iteration``."""
        return learning_rate(self._parameter, iteration, 0 if self._plateau is None else self._plateau.current_step)

    def momentum(self, iteration: int, rate: float) -> float:
        """The momentum of ``iteration``, whose learning rate is ``rate``."""
        return momentum_at(self._parameter, iteration, rate)

    def weight_decay(self, iteration: int) -> float:
        """The weight decay of ``iteration``."""
        return weight_decay_at(self._parameter, iteration)

    def current_step(self, iteration: int) -> int:
        """How many steps the policy has taken at ``iteration``: ``current_step`` in Caffe's solverstate."""
        return current_step(self._parameter, iteration) if self._plateau is None else self._plateau.current_step

    def state(self) -> dict[str, Any]:
        """What must be kept beside iteration and history: plain numbers and lists of them.

        For ``plateau`` the fields current_step, minimum_loss and iter_last_event of SolverState, and ``losses``; for larc_turbo
        ``larc_correlations``. Empty for all other settings.
        """
        state: dict[str, Any] = {} if self._plateau is None else self._plateau.state()
        if self._turbo is not None:
            state["larc_correlations"] = list(self._turbo.correlations)
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned; what these settings do not need, or ``state`` lacks, is passed over.

        Raises SnapshotError for a state of another net.
        """
        if self._plateau is not None and "current_step" in state:
            self._plateau.restore(state)
        if self._turbo is not None and "larc_correlations" in state:
            correlations = [float(value) for value in state["larc_correlations"]]
            if len(correlations) != len(self._turbo.correlations):
                raise SnapshotError(
                    f"the state holds larc_turbo's correlations of {len(correlations)} parameters; this net has "
                    f"{len(self._turbo.correlations)}: the state is of another net"
                )
            self._turbo.correlations[:] = correlations
