"""PyTorch's side of benchmarks/scaling.py: training steps of a Caffe prototxt, in both layouts, with fused SGD.

One process trains alone; more of them (RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set) through
DistributedDataParallel over gloo. Each is bound to the core of its rank. Rank 0 prints, as JSON, the milliseconds of a step in
each layout, of the slowest process, and the version.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time

import torch
import torch.distributed as dist
from torch_net import Net, parse

LAYOUTS = {"plain": torch.contiguous_format, "channels-last": torch.channels_last}


def time_steps(options: argparse.Namespace, layout: torch.memory_format, rank: int, size: int) -> float:
    """Return the median milliseconds of a step, of the slowest process."""
    torch.manual_seed(1)
    with open(options.net) as file:
        shape = tuple(int(axis) for axis in options.shape.split("x"))
        model = Net(parse(file.read()), shape).to(memory_format=layout)
    torch.manual_seed(rank + 1)
    data = torch.randn(options.batch, *shape).to(memory_format=layout)
    label = torch.randint(0, 10, (options.batch,))
    trained = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True) if size > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        trained(data, label).backward()
        optimizer.step()
        return time.perf_counter()

    for _ in range(options.warm_steps):
        step()
    moments = [step() for _ in range(options.steps + 1)]
    milliseconds = statistics.median(after - before for before, after in itertools.pairwise(moments)) * 1e3
    if size > 1:
        slowest = torch.tensor(milliseconds)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        milliseconds = float(slowest)
    return milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--shape")
    parser.add_argument("--cores", help="one for each rank, divided by commas")
    parser.add_argument("--warm-steps", type=int)
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    os.sched_setaffinity(0, {int(options.cores.split(",")[rank])})  # before gloo starts its threads, which inherit it
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo")
    times = {name: time_steps(options, layout, rank, size) for name, layout in LAYOUTS.items()}
    if rank == 0:
        print(json.dumps({"ms": times, "version": torch.__version__}))
    if size > 1:
        dist.barrier()
        sys.stdout.flush()
        os._exit(0)  # gloo's threads, which are not joined, now and then end a process that exits in the usual way


if __name__ == "__main__":
    main()
