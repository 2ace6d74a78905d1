"""PyTorch's side of benchmarks/update.py and gpu_update.py: the median milliseconds of an optimizer's step, and the version."""

from __future__ import annotations

import argparse
import ast
import statistics
import time

import torch

OPTIMIZERS = {
    "SGD": lambda groups, **form: torch.optim.SGD(groups, lr=1e-3, momentum=0.9, **form),
    "Nesterov": lambda groups, **form: torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True, **form),
    "Adam": lambda groups, **form: torch.optim.Adam(groups, lr=1e-3, betas=(0.9, 0.999), **form),
    "AdamW": lambda groups, **form: torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), **form),
}


def cuda_ms(optimizer: torch.optim.Optimizer) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(10):
        optimizer.step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("type", choices=OPTIMIZERS)
    parser.add_argument("form", choices=["foreach", "fused"])
    parser.add_argument("--shapes", type=ast.literal_eval)
    parser.add_argument("--iters", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda: there by events, ten steps at a time")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    parameters = [torch.nn.Parameter(torch.randn(shape, device=options.device) * 0.01) for shape in options.shapes]
    gradients = [torch.randn_like(parameter) for parameter in parameters]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 5e-4},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0, "lr": 2e-3},
    ]
    optimizer = OPTIMIZERS[options.type](groups, **{options.form: True})
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    times = [cuda_ms(optimizer) / 1e3 for _ in range(options.iters + 2)] if options.device == "cuda" else []
    for _ in range(0 if times else options.iters + 2):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad.copy_(gradient)
        begin = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - begin)
    print(statistics.median(times[2:]) * 1e3, torch.__version__)


if __name__ == "__main__":
    main()
