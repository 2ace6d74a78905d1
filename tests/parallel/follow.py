"""Run under mpirun: train as a script for pycaffe would, and write what happened to OUT.npz (by rank 0).

follow.py SOLVER WEIGHTS STEPS OUT
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np
from mpi4py import MPI

import paratrain as caffe


def main() -> None:
    solver_file, weights, steps, out = sys.argv[1:5]
    solver = caffe.get_solver(solver_file)
    if caffe.root_solver():  # the root's parameters are everyone's
        solver.net.copy_from(weights)
    losses, hashes = [], []
    for _ in range(int(steps)):
        solver.step(1)
        losses.append(np.mean(MPI.COMM_WORLD.allgather(float(solver.net.blobs["loss"].data))))
        values = solver.net.parameters.data.host().tobytes() + solver.net.parameters.statistics.host().tobytes()
        hashes.append(MPI.COMM_WORLD.allgather(hashlib.sha256(values).hexdigest()))
    if caffe.root_solver():
        np.savez(out, losses=losses, hashes=hashes, size=caffe.solver_count())


if __name__ == "__main__":
    main()
