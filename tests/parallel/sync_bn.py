"""Run under mpirun: train on this rank's part of a fixed batch with SyncBN, and write what came out to OUT.npz (by rank 0).

sync_bn.py SOLVER STEPS OUT
"""

from __future__ import annotations

import sys

import numpy as np
from mpi4py import MPI

import paratrain as caffe


def main() -> None:
    solver_file, steps, out = sys.argv[1:4]
    world = MPI.COMM_WORLD
    solver = caffe.get_solver(solver_file)
    blobs = solver.net.blobs
    for name, seed in (("x", 1), ("target", 2)):
        part = blobs[name].data
        whole = np.random.default_rng(seed).normal(3, 2, size=(len(part) * world.size, *part.shape[1:]))
        part[...] = whole[world.rank * len(part) : (world.rank + 1) * len(part)]
    solver.step(int(steps))
    gathered = {}
    for name in ("conv", "bn"):
        gathered[f"{name} data"] = np.concatenate(world.allgather(blobs[name].data.copy()))
        # A rank's loss is the mean over its own rows, so its gradients are larger by the number of ranks.
        gathered[f"{name} diff"] = np.concatenate(world.allgather(blobs[name].diff / world.size))
    statistics = world.allgather(solver.net.parameters.statistics.host().copy())
    gathered["statistics"] = np.stack(statistics)
    if world.rank == 0:
        np.savez(out, size=world.size, parameters=solver.net.parameters.data.host(), **gathered)


if __name__ == "__main__":
    main()
