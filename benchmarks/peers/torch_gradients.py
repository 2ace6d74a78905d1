"""Gradients of a golden net in PyTorch, in float32 and under bfloat16's autocast, on the CPU. Needs only torch and numpy.

    python torch_gradients.py NET.prototxt CLASS_COUNT IMAGE_SET_COUNT

Weights and images are those of benchmarks/bfloat16_gradients.py. Prints for each set of images a line of JSON:
{"LAYER/INDEX": [norm in float32, norm in bfloat16, norm of the difference]}.
"""

import json
import sys
import zlib

import numpy as np
import torch
import torch.nn as nn
from torch_net import Net, is_trained, one, parse


def generator(key):
    return np.random.default_rng(zlib.crc32(key.encode()))


def parameters(model, description):
    """(name, parameter) of each; the factors of a Scale may be those of the BatchNorm that it is joined with."""
    layers = [layer for layer in description["layer"] if is_trained(layer)]
    kinds = {nn.Conv2d: "Convolution", nn.Linear: "InnerProduct", nn.BatchNorm2d: "Scale", nn.ParameterList: "Scale"}
    ops = [op for op in model.ops if any(True for _ in op.parameters())]
    learning = [layer for layer in layers if one(layer, "type") in kinds.values()]
    for op, layer in zip(ops, learning, strict=True):
        assert kinds[type(op)] == one(layer, "type")
        for index, parameter in enumerate(op.parameters()):
            yield f"{one(layer, 'name')}/{index}", parameter


def fill(named):
    for name, parameter in named:
        random, shape = generator(name), tuple(parameter.shape)
        values = (
            random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
            if len(shape) > 1
            else random.uniform(0.1, 0.5, shape)
        )
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(values))


def gradients(model, named, images, labels, dtype):
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        loss = model(images, labels)
    loss.backward()
    return {name: parameter.grad.double() for name, parameter in named}


def main():
    description = parse(open(sys.argv[1]).read())
    class_count, set_count = map(int, sys.argv[2:])
    torch.set_num_threads(1)
    shape = [int(size) for size in description["layer"][0]["dummy_data_param"][0]["shape"][0]["dim"]]
    model = Net(description, tuple(shape[1:]))
    named = list(parameters(model, description))
    fill(named)
    for index in range(set_count):
        suffix = f"/{index}" if index else ""
        images = torch.from_numpy(generator("data/data" + suffix).normal(size=shape)).float()
        labels = torch.from_numpy(generator("data/label" + suffix).integers(0, class_count, shape[0]))
        wide, narrow = (gradients(model, named, images, labels, dtype) for dtype in ("float32", "bfloat16"))
        found = {
            name: [float(v.norm()) for v in (wide[name], narrow[name], narrow[name] - wide[name])] for name in wide
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
