"""What a solver says of a step and of a test, in Caffe's words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from paratrain.solvers.display import format_outputs, iteration_line, name_values, net_outputs
from paratrain.solvers.ranks import gather

if TYPE_CHECKING:
    from paratrain.solvers.solver import Solver

__all__ = ["display", "test"]


def display(solver: Solver) -> float:
    """Print the loss and the outputs, averaged over ranks; return the loss. Every rank calls it."""
    outputs, own_loss = net_outputs(solver.net), solver.smoothed.value
    loss, *values = solver.mean_over_ranks([own_loss, *(output.value for output in outputs)])
    losses = gather(solver.ranks, [own_loss])[:, 0]
    solver.spread = {"loss_min": float(losses.min()), "loss_max": float(losses.max())} if solver.ranks.size > 1 else {}
    lapse_s = solver.times.since_display.elapsed_s
    per_s = (solver.iter - solver.displayed_iter) / lapse_s if lapse_s > 0 else 0.0
    solver.times.since_display.reset()
    solver.displayed_iter = solver.iter
    solver.info("%s", iteration_line(solver.iter, per_s, lapse_s, solver.parameter.display, loss))
    averaged = [replace(output, value=value) for output, value in zip(outputs, values, strict=True)]
    for line in format_outputs(averaged, "    Train net output "):
        solver.info("%s", line)
    if solver.spread:
        solver.info("    Ranks differ in their losses from %g to %g", *solver.spread.values())
    return loss


def test(solver: Solver, index: int) -> dict[str, float | list[float]]:
    """Run test net ``index`` with the parameters in training, print and return its outputs; on the root, {} elsewhere.

    Every rank calls it: each runs its share of the batches.
    """
    tester = solver.testers[index]
    solver.info("Iteration %d, Testing net (#%d)", solver.iter, index)
    if tester.net is None:
        return {}
    tester.net.share_trained_layers_with(solver.net)
    loss, outputs = tester.run()
    if not solver.root_solver:
        return {}
    if solver.parameter.test_compute_loss:
        solver.info("Test loss: %g", loss)
    for line in format_outputs(outputs, "    Test net output "):
        solver.info("%s", line)
    if solver.metrics is not None:
        solver.metrics.write(iteration=solver.iter, test_net=index, outputs=name_values(outputs))
    return name_values(outputs)
