"""What a solver says of its settings, of a step and of a test, in Caffe's words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from paratrain.solvers import feeding
from paratrain.solvers.checks import left_out_fields
from paratrain.solvers.display import format_outputs, iteration_line, name_values, net_outputs
from paratrain.solvers.ranks import gather
from paratrain.solvers.timing import PARTS

if TYPE_CHECKING:
    from paratrain.solvers.parts import SolverParts
    from paratrain.solvers.solver import Solver

__all__ = ["begin", "display", "test"]

logger = logging.getLogger(__name__)


def display(solver: Solver) -> float:
    """Print the loss and the outputs, averaged over ranks; return the loss. Every rank calls it."""
    outputs, own_loss = net_outputs(solver.net), solver.smoothed.value
    loss, *values = solver.mean_over_ranks([own_loss, *(output.value for output in outputs)])
    own = [own_loss, solver.times.data_share, feeding.bad_record_count([solver.net]), *solver.times.take_parts()]
    losses, data_shares, bad_counts, *parts = gather(solver.ranks, own).T
    solver.spread = {"loss_min": float(losses.min()), "loss_max": float(losses.max())} if solver.ranks.size > 1 else {}
    lapse_s = solver.times.since_display.elapsed_s
    per_s = (solver.iter - solver.displayed_iter) / lapse_s if lapse_s > 0 else 0.0
    solver.times.since_display.reset()
    solver.displayed_iter = solver.iter
    solver.info("%s", iteration_line(solver.iter, per_s, lapse_s, solver.parameter.display, loss))
    averaged = [replace(output, value=value) for output, value in zip(outputs, values, strict=True)]
    solver.displayed = {"train_outputs": name_values(averaged)}
    if solver.spread:
        solver.displayed["ranks"] = {
            name: [round(float(seconds), 6) for seconds in each] for name, each in zip(PARTS, parts, strict=True)
        }
    for line in format_outputs(averaged, "    Train net output "):
        solver.info("%s", line)
    if solver.spread:
        solver.info("    Ranks differ in their losses from %g to %g", *solver.spread.values())
    solver.bad_record_count = int(bad_counts.sum())
    feeding.hint(solver, float(data_shares.max()))
    return loss


def test(solver: Solver, index: int, obey: Callable[[int], None]) -> dict[str, float | list[float]]:
    """Run test net ``index`` with the parameters in training, print and return its outputs; on the root, {} elsewhere.

    Every rank calls it: each runs its share of the batches. What a rank is asked to do meanwhile goes to ``obey``, on all.
    """
    tester = solver.testers[index]
    solver.info("Iteration %d, Testing net (#%d)", solver.iter, index)
    if tester.net is not None:
        tester.net.share_trained_layers_with(solver.net)
    loss, outputs = tester.run(asked=lambda: int(solver.action_function()), obey=obey)
    if not solver.root_solver:
        return {}
    if solver.parameter.test_compute_loss:
        solver.info("Test loss: %g", loss)
    for line in format_outputs(outputs, "    Test net output "):
        solver.info("%s", line)
    if solver.metrics is not None:
        solver.metrics.write(iteration=solver.iter, test_net=index, outputs=name_values(outputs))
    return name_values(outputs)


def begin(solver: SolverParts) -> None:
    """Say what the settings leave out, and where they come to nothing."""
    if not solver.root_solver:
        return
    parameter = solver.parameter
    for name in left_out_fields(parameter):
        logger.warning("The solver's %s is left out: it does not change what is learned", name)
    if parameter.test_interval > 0 and not solver.testers:
        logger.warning(
            "Nothing will be tested: test_interval is %d, and no test_iter says how many batches to test",
            parameter.test_interval,
        )
    if not any(solver.net.layers_needing_backward):
        logger.warning("Nothing will be learned: no layer with parameters leads to a loss")
