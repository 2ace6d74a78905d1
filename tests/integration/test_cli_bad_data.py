"""Data that cannot be used: one message that names the layer, the file and the place in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from paratrain.data import LmdbWriter, array_to_datum
from paratrain.data.hdf5 import open_hdf5
from paratrain.proto import array_to_blob, write_binary
from tests.integration.cli import error, write_solver
from tests.integration.cli import paratrain_here as run
from tests.paths import DATA

IMAGES = DATA / "images" / "images"
NET = """
layer {{ name: "d" top: "data" top: "label" {layer} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 9 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""


def message_of(folder: Path, layer: str) -> str:
    message = error(run(folder, "train", write_solver(folder, net=NET.format(layer=layer))))
    assert "layer 'd'" in message
    return message


# -- Data


def write_database(folder: Path, shapes: list[tuple[int, int, int]]) -> None:
    with LmdbWriter(folder / "db") as database:
        for i, shape in enumerate(shapes):
            database.put(b"%08d" % i, array_to_datum(np.zeros(shape, np.uint8), i).SerializeToString())


DATABASE = 'type: "Data" data_param { source: "db" backend: LMDB batch_size: 2 }'


@pytest.mark.parametrize(
    ("shapes", "transform", "parts"),
    [
        ([(1, 4, 4)] * 3 + [(1, 5, 4)], "", ["db: record 3 (key '00000003')", "(1, 5, 4)", "(1, 4, 4)", "crop_size"]),
        ([(1, 4, 4)] * 3 + [(3, 4, 4)], "", ["record 3", "(3, 4, 4)", "force_color, force_gray"]),
        ([(1, 8, 8)] * 3 + [(1, 5, 9)], "crop_size: 6", ["db: record 3 (key '00000003')", "5 x 9", "crop_size 6"]),
        ([(1, 4, 4)], "crop_size: 6", ["db: record 0", "4 x 4", "smaller than crop_size 6"]),
        ([(1, 4, 4)], "mean_file: 'mean'", ["db: record 0", "mean has the shape (3, 4, 4) (C, H, W)", "(1, 4, 4)"]),
        ([(3, 4, 5)], "mean_file: 'mean' crop_size: 2", ["mean has the shape (3, 4, 4)", "the image (3, 4, 5)"]),
        ([(3, 4, 4)], "mean_file: 'none'", ["mean_file none", "no such file"]),
        ([(3, 4, 4)], "mean_file: 'small.net.prototxt'", ["mean_file small.net.prototxt"]),
        ([(3, 4, 4)], "mean_value: 1 mean_value: 2", ["mean_value is given 2 times", "3 channels"]),
        ([(3, 4, 4)], "mean_value: 1 mean_file: 'mean'", ["both mean_file and mean_value"]),
    ],
)
def test_images_that_do_not_fit_together(
    tmp_path: Path, shapes: list[tuple[int, int, int]], transform: str, parts: list[str]
) -> None:
    write_database(tmp_path, shapes)
    write_binary(tmp_path / "mean", array_to_blob(np.zeros((1, 3, 4, 4), np.float32)))
    message = message_of(tmp_path, f"{DATABASE} transform_param {{ {transform} }}")
    assert [part for part in parts if part not in message] == [], message


# -- ImageData


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ("02.png 1\n\n02.png one\n", ["list.txt:3", "expected the path of an image", "02.png one"]),
        ("02.png 1\n02.png\n", ["list.txt:2", "a label, an integer of 32 bits, found '02.png'"]),
        ("02.png 1\nmy cat.png 2\n", ["list.txt:2 ('my cat.png')", "there is no image my cat.png", "looked up from"]),
        ("02.png 1\ndamaged.jpg 2\n", ["list.txt:2 ('damaged.jpg')", "no image OpenCV can decode, or a damaged one"]),
        ("02.png 1\n30 31.png 2\n", ["list.txt:2 ('30 31.png')", "(3, 30, 31)", "(3, 32, 32)"]),
        ("\n \n", ["list.txt", "the list of images is empty"]),
        (None, ["list.txt", "cannot be read", "looked up from"]),
    ],
)
def test_lists_of_images(tmp_path: Path, lines: str | None, parts: list[str]) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    assert cv2.imwrite(str(tmp_path / "02.png"), np.zeros((32, 32, 3), np.uint8))
    assert cv2.imwrite(str(tmp_path / "30 31.png"), np.zeros((30, 31, 3), np.uint8))
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    if lines is not None:
        (tmp_path / "list.txt").write_text(lines)
    message = message_of(tmp_path, 'type: "ImageData" image_data_param { source: "list.txt" batch_size: 2 }')
    assert [part for part in parts if part not in message] == [], message


# -- HDF5Data

ROWS = {"data": np.zeros((4, 2)), "label": np.zeros(4)}


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ([{"data": ROWS["data"]}], ["0.h5", "has no dataset 'label'", "it has data"]),
        ([{**ROWS, "label": np.zeros(5)}], ["0.h5", "'data' has 4 rows, 'label' 5"]),
        ([{**ROWS, "label": np.array([b"cat"] * 4)}], ["0.h5: 'label'", "expected integers or floats"]),
        ([{**ROWS, "label": np.float32(1)}], ["0.h5: 'label' has no rows"]),
        ([ROWS, {**ROWS, "data": np.zeros((4, 3))}], ["1.h5: rows of 'data'", "(3,)", "0.h5", "(2,)"]),
        ([{name: values[:0] for name, values in ROWS.items()}], ["list.txt", "hold no rows"]),
        ([], ["list.txt: lists no files"]),
        (None, ["list.txt: no such file"]),
    ],
)
def test_hdf5_files(tmp_path: Path, files: list[dict[str, np.ndarray]] | None, parts: list[str]) -> None:
    pytest.importorskip("h5py", reason="h5py is not installed (the extra 'hdf5')")
    for number, datasets in enumerate(files or []):
        with open_hdf5(tmp_path / f"{number}.h5", "w") as file:
            for name, values in datasets.items():
                file[name] = values
    if files is not None:
        (tmp_path / "list.txt").write_text("".join(f"{number}.h5\n" for number in range(len(files))))
    message = message_of(tmp_path, 'type: "HDF5Data" hdf5_data_param { source: "list.txt" batch_size: 2 }')
    assert [part for part in parts if part not in message] == [], message


# -- WindowData

WINDOWS = "# 0\ncat.png\n3\n32\n32\n2\n1 0.9 4 6 27 29\n0 0.1 8 8 12 30\n"


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("0.9 4 6 27 29", "0.9 4 6 27", ["windows.txt:7", "expected 'class overlap x1 y1 x2 y2'", "1 0.9 4 6 27"]),
        ("27 29", "2 29", ["windows.txt:7", "the window ends before it starts", "4 6 2 29"]),
        ("8 8 12 30", "8 8 12 99", ["windows.txt:8 ('cat.png')", "8 8 12 99 leaves the image"]),
        ("4 6 27", "-4 6 27", ["windows.txt:7 ('cat.png')", "-4 6 27 29 leaves the image"]),
        ("cat.png", "dog.png", ["windows.txt:", "there is no image dog.png"]),
        ("# 0", "0", ["windows.txt:1", "expected for each image '# index'"]),
        ("\n2\n", "\n3\n", ["the file ends after 2 of 3 windows"]),
        (WINDOWS, "", ["windows.txt", "the window file is empty"]),
    ],
)
def test_window_files(tmp_path: Path, old: str, new: str, parts: list[str]) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    shutil.copy(IMAGES / "china" / "02.png", tmp_path / "cat.png")
    assert old in WINDOWS
    (tmp_path / "windows.txt").write_text(WINDOWS.replace(old, new))
    layer = (
        'type: "WindowData" window_data_param { source: "windows.txt" batch_size: 8 } transform_param { crop_size: 9 }'
    )
    message = message_of(tmp_path, layer)
    assert [part for part in parts if part not in message] == [], message
