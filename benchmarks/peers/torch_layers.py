"""Time PyTorch's counterparts of Caffe layers. Reads the cases that benchmarks/layers.py sends; needs only torch.

    torch_layers.py SECONDS_PER_CASE < cases.json

A case is {"name": "ReLU", "bottoms": [[shape, values], ...], "backward": true, "fixed": []}. Prints for each that it
knows one line of JSON: [name, forward ms, backward ms, values in the outputs]. Forward records the graph; backward gives the
gradients by all bottoms of numbers that are not fixed and by all parameters. Times are the medians over as many runs as fit
the seconds.
"""

import json
import math
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


def values(shape, kind):
    name, _, argument = kind.partition(" ")
    if name == "normal":
        return torch.randn(shape).requires_grad_()
    if name == "positive":
        return (torch.rand(shape) * 0.9 + 0.1).requires_grad_()
    if name == "rows":
        return F.softmax(torch.randn(shape), 1).requires_grad_()
    if name == "labels":
        return torch.randint(int(argument), shape)
    if name == "bits":
        return (torch.arange(math.prod(shape)) % 2).float().reshape(shape)
    if name == "ones":
        return torch.ones(shape)
    if name == "mask":
        side = int(argument)
        pooled = F.max_pool2d(torch.randn(*shape[:2], shape[2] * side, shape[3] * side), side, return_indices=True)
        return pooled[1]
    if name == "regions":
        corners = torch.rand(shape[0], 2, 2).sort(1).values * torch.tensor([800.0, 600.0])
        return torch.cat([torch.randint(2, (shape[0], 1)).float(), corners.reshape(-1, 4)], 1)
    raise SystemExit(f"no such values: {kind}")


def run_module(make):
    """A counterpart that is a module, made anew for each case."""
    module = make()
    parameters = [p for p in module.parameters() if p.requires_grad]
    return lambda *bottoms: module(*bottoms), parameters


def with_parameters(function, *shapes):
    parameters = [torch.randn(shape).requires_grad_() for shape in shapes]
    return lambda *bottoms: function(*bottoms, *parameters), parameters


def channel(p):
    return p.view(1, -1, 1, 1)


def region_pool(x, regions):
    corners = (regions[:, 1:] * 0.0625).round().int().tolist()
    cells = []
    for image, (left, top, right, bottom) in zip(regions[:, 0].int().tolist(), corners, strict=True):
        cells.append(F.adaptive_max_pool2d(x[image, :, top : bottom + 1, left : right + 1], (7, 7)))
    return torch.stack(cells)


def pyramid(x):
    return torch.cat([F.adaptive_max_pool2d(x, side).flatten(1) for side in (1, 2, 4)], 1)


def lstm_unit(c, gates, cont):
    i, f, o, g = gates.chunk(4, 2)
    c = torch.sigmoid(i) * torch.tanh(g) + torch.sigmoid(f) * c * cont[..., None]
    return c, torch.sigmoid(o) * torch.tanh(c)


def center_loss(x, label, centers):
    return ((x - centers[label]) ** 2).sum() / (2 * len(x))


def contrastive(a, b, same):
    squared = ((a - b) ** 2).sum(1)
    return (same * squared + (1 - same) * torch.clamp(1 - squared.sqrt(), min=0) ** 2).sum() / (2 * len(a))


def focal(x, label):
    log = F.log_softmax(x, 1).gather(1, label[:, None])
    return -(0.25 * (1 - log.exp()) ** 2 * log).mean()


def hinge(x, label):
    sign = torch.ones_like(x).scatter(1, label[:, None], -1.0)
    return torch.clamp(1 + sign * x, min=0).sum() / len(x)


def smooth_l1(a, b, inside, outside):
    return (F.smooth_l1_loss(inside * a, inside * b, reduction="none") * outside).sum() / len(a)


class RNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.output = nn.RNN(256, 256), nn.Linear(256, 256)

    def forward(self, x, cont):
        return torch.tanh(self.output(self.hidden(x)[0]))


class LSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.LSTM(256, 256)

    def forward(self, x, cont):
        return self.hidden(x)[0]


def plain(function):
    return lambda: (function, [])


def module(make):
    return lambda: run_module(make)


def parametric(function, *shapes):
    return lambda: with_parameters(function, *shapes)


CASES = {
    "AbsVal": plain(torch.abs), "BNLL": plain(F.softplus), "Clip": plain(lambda x: torch.clamp(x, -1, 1)), "ELU": plain(F.elu),
    "Exp": plain(torch.exp), "Log": plain(torch.log), "PReLU": parametric(F.prelu, (64,)),
    "Power": plain(lambda x: (1 + 0.5 * x) ** 2), "ReLU": plain(F.relu), "ReLU6": plain(F.relu6), "Sigmoid": plain(torch.sigmoid),
    "Swish": plain(F.silu), "TanH": plain(torch.tanh), "Threshold": plain(lambda x: (x > 0).float()), "Dropout": plain(F.dropout),
    "Eltwise SUM": plain(torch.add), "Eltwise PROD": plain(torch.mul), "Eltwise MAX": plain(torch.maximum),
    "Convolution LeNet 5x5": module(lambda: nn.Conv2d(20, 50, 5)),
    "Convolution CaffeNet 5x5, 2 groups": module(lambda: nn.Conv2d(96, 256, 5, padding=2, groups=2)),
    "Convolution ResNet 3x3": module(lambda: nn.Conv2d(64, 64, 3, padding=1)),
    "Convolution ResNet 1x1": module(lambda: nn.Conv2d(256, 64, 1)),
    "Deconvolution 4x4, stride 2": module(lambda: nn.ConvTranspose2d(64, 64, 4, 2, 1)),
    "DepthwiseConvolution MobileNet 3x3": module(lambda: nn.Conv2d(128, 128, 3, padding=1, groups=128)),
    "InnerProduct LeNet": module(lambda: nn.Linear(800, 500)), "InnerProduct CaffeNet": module(lambda: nn.Linear(9216, 4096)),
    "Embed": module(lambda: nn.Embedding(8801, 512)),
    "Scale": parametric(lambda x, s, b: x * channel(s) + channel(b), (64,), (64,)),
    "Bias": parametric(lambda x, b: x + channel(b), (64,)),
    "LSTM": module(LSTM), "RNN": module(RNN), "LSTMUnit": plain(lstm_unit),
    "BatchNorm": module(lambda: nn.BatchNorm2d(64, affine=False)), "BN": module(lambda: nn.BatchNorm2d(64)),
    "SyncBN": module(lambda: nn.BatchNorm2d(64)), "MVN": plain(F.instance_norm),
    "LRN across channels": module(lambda: nn.LocalResponseNorm(5, 1e-4, 0.75)),
    "LRN within channel": plain(lambda x: x * (1 + 1e-4 * F.avg_pool2d(x * x, 5, 1, 2)) ** -0.75),
    "Normalize SSD": parametric(lambda x, s: F.normalize(x, dim=1) * channel(s), (512,)),
    "Pooling MAX 3x3": plain(lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)),
    "Pooling AVE 3x3": plain(lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True)),
    "Pooling AVE global": plain(lambda x: F.adaptive_avg_pool2d(x, 1)), "SPP": plain(pyramid),
    "ROIPooling Fast R-CNN": plain(region_pool),
    "Softmax classes": plain(lambda x: F.softmax(x, 1)), "Softmax pixels": plain(lambda x: F.softmax(x, 1)),
    "ArgMax": plain(lambda x: x.argmax(1)), "Axpy": plain(lambda a, x, y: a * x + y), "BatchReindex": plain(lambda x, i: x[i]),
    "Concat": plain(lambda a, b: torch.cat([a, b], 1)), "Slice": plain(lambda x: tuple(p.contiguous() for p in x.chunk(2, 1))),
    "Crop": plain(lambda x, _like: x[:, :, 4:60, 4:60].contiguous()), "Filter": plain(lambda x, keep: x[keep != 0]),
    "Im2col": plain(lambda x: F.unfold(x, 3, padding=1)),
    "Interp DeepLab": plain(lambda x: F.interpolate(x, (321, 321), mode="bilinear", align_corners=True)),
    "Permute SSD": plain(lambda x: x.permute(0, 2, 3, 1).contiguous()), "Reduction": plain(lambda x: x.sum((1, 2, 3))),
    "ShuffleChannel": plain(lambda x: F.channel_shuffle(x, 3)), "Tile": plain(lambda x: x.repeat(1, 4, 1, 1)),
    "Upsample SegNet": plain(lambda x, mask: F.max_unpool2d(x, mask, 2)),
    "Accuracy": plain(lambda x, label: (x.argmax(1) == label).float().mean()), "CenterLoss": parametric(center_loss, (1000, 512)),
    "ContrastiveLoss": plain(contrastive), "EuclideanLoss": plain(lambda a, b: ((a - b) ** 2).sum() / (2 * len(a))),
    "FocalLoss": plain(focal), "HingeLoss": plain(hinge),
    "InfogainLoss": plain(lambda x, label, h: -(h[0, 0][label] * F.log_softmax(x, 1)).sum() / len(x)),
    "L1Loss": plain(lambda a, b: F.l1_loss(a, b, reduction="sum") / len(a)),
    "MultinomialLogisticLoss": plain(lambda p, label: F.nll_loss(torch.log(p), label)),
    "SigmoidCrossEntropyLoss": plain(lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum") / len(x)),
    "SmoothL1Loss Faster R-CNN": plain(smooth_l1), "SoftmaxWithLoss classes": plain(F.cross_entropy),
    "SoftmaxWithLoss pixels": plain(F.cross_entropy),
}  # fmt: skip


def measure(case, seconds):
    function, parameters = CASES[case["name"]]()
    bottoms = [values(shape, kind) for shape, kind in case["bottoms"]]
    for index in case["fixed"]:
        bottoms[index].requires_grad_(False)
    wanted = [t for t in bottoms if t.requires_grad] + parameters
    times, end = [], None
    while end is None or len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        outputs = function(*bottoms)
        between = time.perf_counter()
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        if end is None:  # the first run warms up
            diffs = [torch.ones_like(top) for top in outputs]
            end = time.perf_counter() + seconds
        if case["backward"]:
            torch.autograd.backward(outputs, diffs)
        done = time.perf_counter()
        for tensor in wanted:
            tensor.grad = None
        times.append((between - begin, done - between))
    times = times[1:]
    medians = [statistics.median(part) * 1e3 for part in zip(*times, strict=True)]
    return [case["name"], *medians, sum(top.numel() for top in outputs)]


def main():
    torch.manual_seed(1)
    torch.set_num_threads(1)
    for case in json.load(sys.stdin):
        if case["name"] in CASES:
            print(json.dumps(measure(case, float(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    main()
