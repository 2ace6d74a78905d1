"""Images a second of PyTorch's DataLoader: decode a JPEG, crop at random, mirror half of them, subtract the mean.

Run by benchmarks/data.py. The records are plain JPEGs in an LMDB, so that nothing has to be parsed. ``--decoder`` says what
decodes them, ``--normalise`` where bytes become floats: for each image or for each batch in the worker, or in the main
process, so that workers send bytes.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import time
from typing import Any

import lmdb
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

DECODERS = ("cv2", "PIL", "torchvision")
NORMALISE = ("image", "batch", "main")


class Photos(Dataset):  # type: ignore[type-arg]
    """Crops (3, crop, crop): floats less the mean, or bytes where that is done later."""

    def __init__(self, path: str, decoder: str, crop: int, mean: torch.Tensor | None) -> None:
        self.path, self.decoder, self.crop, self.mean = path, decoder, crop, mean
        with lmdb.open(path, readonly=True, lock=False) as environment:
            self.count = environment.stat()["entries"]
        self.transaction: Any = None

    def __len__(self) -> int:
        return 1 << 30  # round and round

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.transaction is None:
            self._start()
        record = index % self.count
        data = self.transaction.get(b"%08d" % record)
        if self.decoder == "torchvision":
            return self._tensor(data), record % 1000
        pixels = self.decode(data)  # (H, W, 3)
        top, left = (int(random.random() * (length - self.crop + 1)) for length in pixels.shape[:2])
        window = pixels[top : top + self.crop, left : left + self.crop]
        if random.random() < 0.5:
            window = window[:, ::-1]
        planes = window.transpose(2, 0, 1)
        if self.mean is None:
            return torch.from_numpy(np.ascontiguousarray(planes)), record % 1000
        out = np.empty(planes.shape, np.float32)
        return torch.from_numpy(np.subtract(planes, self.mean.numpy(), out=out)), record % 1000

    def _tensor(self, data: bytes) -> torch.Tensor:
        image = self.decode(data)  # (3, H, W)
        top, left = (int(random.random() * (length - self.crop + 1)) for length in image.shape[1:])
        image = image[:, top : top + self.crop, left : left + self.crop]
        if random.random() < 0.5:
            image = image.flip(-1)
        return image.contiguous() if self.mean is None else torch.sub(image, self.mean)

    def _start(self) -> None:
        """In the worker: what it needs of its own."""
        self.transaction = lmdb.open(self.path, readonly=True, lock=False, max_spare_txns=4).begin()
        if self.decoder == "cv2":
            import cv2

            cv2.setNumThreads(0)
            self.decode = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        elif self.decoder == "PIL":
            from PIL import Image

            self.decode = lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        else:
            from torchvision.io import ImageReadMode, decode_jpeg

            self.decode = lambda data: decode_jpeg(
                torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB
            )


class Subtracting:
    """Stacks bytes and makes floats of the whole batch."""

    def __init__(self, mean: torch.Tensor) -> None:
        self.mean = mean

    def __call__(self, samples: list[tuple[torch.Tensor, int]]) -> list[torch.Tensor]:
        images = torch.stack([image for image, _ in samples])
        return [torch.sub(images, self.mean), torch.tensor([label for _, label in samples])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--decoder", choices=DECODERS, required=True)
    parser.add_argument("--normalise", choices=NORMALISE, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--crop", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mean = torch.tensor([104.0, 117.0, 123.0]).reshape(3, 1, 1)
    photos = Photos(options.path, options.decoder, options.crop, mean if options.normalise == "image" else None)
    loader = DataLoader(
        photos,
        batch_size=options.batch,
        num_workers=len(os.sched_getaffinity(0)),
        prefetch_factor=4,
        collate_fn=Subtracting(mean) if options.normalise == "batch" else default_collate,
        multiprocessing_context="fork",
    )
    batches = iter(loader)

    def step() -> None:
        images, _ = next(batches)
        if options.normalise == "main":
            images = torch.sub(images, mean)
        assert images.dtype == torch.float32 and images.shape[1:] == (3, options.crop, options.crop)

    for _ in range(16):
        step()
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < options.seconds:
        step()
        count += options.batch
    print(torch.__version__, count / (time.perf_counter() - begin))


if __name__ == "__main__":
    main()
