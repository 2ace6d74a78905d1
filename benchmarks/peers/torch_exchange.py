"""PyTorch's side of benchmarks/exchange.py: gloo's allreduce of one flat gradient, and an optimizer's step after it.

Run as so many processes with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set; rank 0 prints the median milliseconds of
allreduce alone and of both, and the version.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import torch
import torch.distributed as dist

BUCKET_BYTES = 25 << 20  # DistributedDataParallel's own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int)
    parser.add_argument("--iters", type=int)
    parser.add_argument("--form", choices=["fused", "foreach"])
    parser.add_argument(
        "--buckets", action="store_true", help="in DistributedDataParallel's buckets, all under way at once"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    dist.init_process_group("gloo")
    size = dist.get_world_size()
    parameter = torch.nn.Parameter(torch.randn(options.count) * 0.01)
    gradient = torch.randn(options.count)
    parameter.grad = torch.empty_like(parameter)
    optimizer = torch.optim.SGD([parameter], lr=1e-3, momentum=0.9, weight_decay=5e-4, **{options.form: True})
    step = BUCKET_BYTES // 4 if options.buckets else options.count
    exchange, whole = [], []
    for _ in range(options.iters + 2):
        parameter.grad.copy_(gradient)
        dist.barrier()
        begin = time.perf_counter()
        works = [dist.all_reduce(part, async_op=True) for part in parameter.grad.split(step)]
        for work in works:
            work.wait()
        parameter.grad /= size
        middle = time.perf_counter()
        optimizer.step()
        end = time.perf_counter()
        exchange.append(middle - begin)
        whole.append(end - begin)
    if dist.get_rank() == 0:
        print(statistics.median(exchange[2:]) * 1e3, statistics.median(whole[2:]) * 1e3, torch.__version__)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads, which are not joined, now and then end a process that exits in the usual way


if __name__ == "__main__":
    main()
