"""A folder of images with a folder for each class, as databases for training and testing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paratrain import random
from paratrain.data.image_list import ListedImage
from paratrain.data.partial import PartialFolder, write_error
from paratrain.errors import DataError
from paratrain.tools.imageset import Conversion, ImageSettings, convert_images, shuffled
from paratrain.tools.work import Work

__all__ = ["ClassFolders", "find_classes", "split", "write_databases"]

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pnm", ".tif", ".tiff", ".jp2", ".gif")


@dataclass
class ClassFolders:
    """What a folder holds: class names in order, the images of each, and what is neither class nor image."""

    names: list[str] = field(default_factory=list)
    images: list[list[str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def find_classes(folder: Path) -> ClassFolders:
    """List the classes in ``folder``, sorted by name, and the images in each, sorted, subfolders included.

    What begins with a dot is passed over, and so are links that lead back to a folder above them. Raises DataError where there is
    no class with an image, and for names with line breaks, which no list can hold.
    """
    found = ClassFolders()
    try:
        entries = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}; looked up from {Path.cwd()})") from None
    for name in entries:
        if not (folder / name).is_dir() or name.startswith("."):
            found.ignored.append(name)
            continue
        images: list[str] = []
        for parent, folders, files in os.walk(folder / name, followlinks=True):
            above = {Path(parent).resolve(), *Path(parent).resolve().parents}
            folders[:] = sorted(
                each for each in folders if not each.startswith(".") and (Path(parent) / each).resolve() not in above
            )
            for file in files:
                is_image = Path(file).suffix.lower() in _IMAGE_ENDINGS and not file.startswith(".")
                path = os.path.relpath(Path(parent) / file, folder)
                (images if is_image else found.ignored).append(path)
        broken = next((path for path in images if "\n" in path or "\r" in path), None)
        if broken is not None:
            raise DataError(f"{folder}: the name {broken!r} has a line break in it, which no list can hold; rename it")
        if images:
            found.names.append(name)
            found.images.append(sorted(images))
    if not found.names:
        raise DataError(
            f"{folder}: holds no folder with images in it; expected one for each class, as in {folder}/cat/1.jpg"
        )
    return found


def split(found: ClassFolders, test_share: float, seed: int) -> tuple[list[ListedImage], list[ListedImage]]:
    """Deal the images to training and testing, both in an order that depends on ``seed`` alone.

    Each class gives ``test_share`` of its images to the test, rounded: at least one of two or more, never all.
    """
    train: list[ListedImage] = []
    test: list[ListedImage] = []
    for label, (name, paths) in enumerate(zip(found.names, found.images, strict=True)):
        test_count = 0
        if test_share > 0 and len(paths) > 1:
            test_count = min(max(round(test_share * len(paths)), 1), len(paths) - 1)
        order = random.permutation(random.hash_key(seed, "split", name), len(paths))
        for place, index in enumerate(order):
            path = paths[int(index)]
            (test if place < test_count else train).append(ListedImage(path, label))
    return shuffled(train, seed, "train"), shuffled(test, seed, "test")


def write_databases(
    folder: Path,
    output: Path,
    settings: ImageSettings,
    work: Work,
    *,
    found: ClassFolders,
    test_share: float = 0.1,
    seed: int = 0,
    backend: str = "lmdb",
    check_size: bool = False,
    stop_on_bad: bool = False,
    thread_count: int | None = None,
) -> dict[str, Conversion]:
    """Write the folder ``output``: train_lmdb and test_lmdb, labels.txt with the class names in order, and lists of both.

    The lists are for convert_imageset and ImageData layers, with ``folder`` as root. ``output`` is whole or not there.
    Raises DataError as :func:`find_classes` and :func:`~paratrain.tools.imageset.convert_images` do.
    """
    parts = dict(zip(("train", "test"), split(found, test_share, seed), strict=True))
    done: dict[str, Conversion] = {}
    with PartialFolder(output) as partial:
        for part, listed in parts.items():
            if listed:
                done[f"{part}_{backend}"] = convert_images(
                    f"{folder}/",
                    listed,
                    partial / f"{part}_{backend}",
                    settings,
                    work,
                    backend=backend,
                    check_size=check_size,
                    stop_on_bad=stop_on_bad,
                    thread_count=thread_count,
                )
                _write_lines(partial / f"{part}.txt", [f"{image.path} {image.label}" for image in listed])
        _write_lines(partial / "labels.txt", found.names)
    return done


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    try:
        path.write_bytes(os.fsencode("".join(f"{line}\n" for line in lines)))
    except OSError as error:
        raise write_error(path, error) from None
