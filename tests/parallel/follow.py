"""Run under mpirun: train as a script for pycaffe would, and write what happened to OUT.npz (by rank 0).

follow.py SOLVER WEIGHTS STEPS OUT [EXCHANGE]
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np
from mpi4py import MPI

import paratrain as caffe
from paratrain.comm import create_communicator
from paratrain.data_parallel import create_parallel_solver
from paratrain.solvers import read_solver


def main() -> None:
    solver_file, weights, steps, out, *exchange = sys.argv[1:]
    if exchange:
        solver = create_parallel_solver(read_solver(solver_file), create_communicator(), exchange=exchange[0])
    else:
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
