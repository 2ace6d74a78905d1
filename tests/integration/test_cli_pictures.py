"""The verbs classify, detect, extract_features and draw, on small pictures and a small net."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import paratrain as caffe
from paratrain.data import datum_to_array
from paratrain.data.datum import parse_datum
from paratrain.data.hdf5 import open_hdf5
from paratrain.errors import MissingDependencyError
from paratrain.proto import BlobProto, write_binary
from paratrain.pycaffe.classifier import Classifier
from paratrain.pycaffe.detector import Detector
from paratrain.pycaffe.io import load_image
from paratrain.tools.databases import open_any_database
from tests.integration.cli import error, paratrain, paratrain_here
from tests.integration.test_help_examples import examples
from tests.optional import need_opencv
from tests.paths import DATA, REPOSITORY

DEPLOY = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 24 dim: 24 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 5 stride: 2 weight_filler { type: "gaussian" std: 0.001 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 0.05 } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
RECORDS = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 24 scale: 0.5 }
        data_param { source: "images_lmdb" batch_size: 5 backend: LMDB } }
"""
WEIGHTS_AND_NET = ("extract_features", "pretrained.caffemodel", "net.prototxt")
NET = ("--model_def", "deploy.prototxt", "--pretrained_model", "net.caffemodel")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a net and its weights, and what the examples of the help name."""
    need_opencv()
    made = tmp_path_factory.mktemp("pictures")
    (made / "deploy.prototxt").write_text(DEPLOY)
    (made / "net.prototxt").write_text(RECORDS + DEPLOY.split("\n", 3)[3].replace("ip", "ip1"))
    (made / "train_val.prototxt").write_text(RECORDS + DEPLOY.split("\n", 3)[3])
    caffe.set_random_seed(11)
    for net, weights in (("deploy", "net"), ("net", "pretrained")):
        text = (made / f"{net}.prototxt").read_text().replace("images_lmdb", str(DATA / "images" / "images_raw_lmdb"))
        (made / "here.prototxt").write_text(text)
        caffe.Net(str(made / "here.prototxt"), caffe.TEST).save(str(made / f"{weights}.caffemodel"))
    caffe.set_random_seed(-1)
    (made / "images").symlink_to(DATA / "images" / "images")
    (made / "images_lmdb").symlink_to(DATA / "images" / "images_raw_lmdb")
    shutil.copy(made / "images" / "china" / "00.jpg", made / "cat.jpg")
    (made / "labels.txt").write_text("china\nflower\n")
    (made / "synsets.txt").write_text("n00000002 flower, bloom\nn00000001 china, porcelain\n")
    (made / "windows.csv").write_text(
        "filename, xmin, ymin, xmax, ymax\nimages/china/00.jpg,2,3,20,30\nimages/flower/01.png,0,0,10,10\n"
        "images/china/00.jpg,30,10,64,48\n"
    )
    np.save(made / "mean.npy", np.arange(3 * 4 * 4, dtype=np.float32).reshape(3, 4, 4))
    write_binary(made / "mean.binaryproto", BlobProto(num=1, channels=3, height=4, width=4, data=range(48)))
    return made


def classifier(folder: Path, image_dims: tuple[int, int], **settings: object) -> Classifier:
    return Classifier(
        folder / "deploy.prototxt", folder / "net.caffemodel", image_dims, raw_scale=255, channel_swap=(2, 1, 0),
        **settings,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_best_classes_of_a_picture_are_printed(folder: Path) -> None:
    done = paratrain_here(folder, "classify", "cat.jpg", *NET, "--labels_file", "labels.txt", "--images_dim", "30,40")
    assert done.returncode == 0, done.stderr
    expected = classifier(folder, (30, 40)).predict([load_image(folder / "cat.jpg")])[0]
    order = np.argsort(-expected)
    lines = done.stdout.splitlines()
    assert lines[0] == "cat.jpg" and lines[3].startswith("1 image in ")
    for line, index in zip(lines[1:3], order, strict=True):
        value, name = line.split()
        assert float(value) == pytest.approx(expected[index], abs=2e-5) and name == ("china", "flower")[index]
    assert done.stderr == ""
    named = paratrain_here(folder, "classify", "cat.jpg", *NET, "--labels_file", "synsets.txt", "--top", "1")
    assert named.stdout.split()[2] in ("china", "flower") and "a small part of each" in named.stderr


def test_a_folder_with_a_mean_and_the_crop_in_the_middle_goes_to_an_array(folder: Path, tmp_path: Path) -> None:
    settings = ("--images_dim", "24,24", "--center_only", "--input_scale", "0.5", "--cpu")
    for mean in ("mean.npy", "mean.binaryproto"):
        out = tmp_path / mean.split(".")[1]
        done = paratrain_here(folder, "classify", "images/china", str(out), *NET, *settings, "--mean_file", mean)
        assert done.returncode == 0, done.stderr
        assert f"written to {out}.npy: (6, 2)" in done.stdout
        assert "class" not in done.stdout
    no_gpu = paratrain_here(folder, "classify", "images/china", str(out), *NET, "--gpu")
    assert no_gpu.returncode == 1 and "no NVIDIA GPU: " in no_gpu.stderr
    paths = sorted((folder / "images" / "china").glob("*.jpg"))
    net = classifier(folder, (24, 24), mean=np.array([7.5, 23.5, 39.5]), input_scale=0.5)
    expected = net.predict([load_image(path) for path in paths], oversample=False)
    np.testing.assert_allclose(np.load(f"{tmp_path}/npy.npy"), expected, atol=1e-6)
    np.testing.assert_array_equal(np.load(f"{tmp_path}/npy.npy"), np.load(f"{tmp_path}/binaryproto.npy"))


def test_an_array_of_pictures(folder: Path, tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).random((3, 30, 26, 3)).astype(np.float32)
    np.save(tmp_path / "in.npy", pictures)
    done = paratrain_here(
        folder, "classify", str(tmp_path / "in.npy"), str(tmp_path / "out.npy"), *NET, "--print_results",
        "--raw_scale", "2", "--channel_swap", "", "--images_dim", "24,24",
    )  # fmt: skip
    assert done.returncode == 0 and "in.npy[2]\n" in done.stdout and "class 1\n" in done.stdout
    net = Classifier(folder / "deploy.prototxt", folder / "net.caffemodel", raw_scale=2)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), net.predict(list(pictures)), atol=1e-6)
    np.save(tmp_path / "in.npy", (pictures * 255).astype(np.uint8))
    assert "--raw_scale 1" in paratrain_here(folder, "classify", str(tmp_path / "in.npy"), *NET).stderr


def test_windows_go_to_csv_and_hdf5(folder: Path, tmp_path: Path) -> None:
    done = paratrain_here(folder, "detect", "windows.csv", str(tmp_path / "d.csv"), *NET, "--context_pad", "3")
    assert done.returncode == 0 and "3 windows of 2 images" in done.stdout, done.stderr
    net = Detector(
        folder / "deploy.prototxt", folder / "net.caffemodel", raw_scale=255, channel_swap=(2, 1, 0), context_pad=3
    )
    china, flower = folder / "images/china/00.jpg", folder / "images/flower/01.png"
    expected = net.detect_windows([(china, [(3, 2, 30, 20), (10, 30, 48, 64)]), (flower, [(0, 0, 10, 10)])])
    rows = list(csv.reader((tmp_path / "d.csv").read_text().splitlines()))
    assert rows[0] == ["filename", "ymin", "xmin", "ymax", "xmax", "class0", "class1"] and len(rows) == 4
    for row, detection in zip(rows[1:], expected, strict=True):
        assert str(detection["filename"]).endswith(row[0])
        assert [float(value) for value in row[1:5]] == list(detection["window"])
        np.testing.assert_allclose([float(value) for value in row[5:]], detection["prediction"], atol=1e-6)
    try:
        done = paratrain_here(folder, "detect", "windows.csv", str(tmp_path / "d.h5"), *NET, "--context_pad", "3")
        with open_hdf5(tmp_path / "d.h5", "r") as opened:
            assert done.returncode == 0 and [name.decode() for name in opened["filename"]] == [
                row[0] for row in rows[1:]
            ]
            np.testing.assert_allclose(opened["prediction"], [one["prediction"] for one in expected], atol=1e-6)
            assert opened["window"][1].tolist() == [10, 30, 48, 64]
    except MissingDependencyError as missing:
        pytest.skip(str(missing))


def test_features_in_caffes_order_and_by_name_are_the_blobs_of_the_records(folder: Path, tmp_path: Path) -> None:
    one, two, three = (str(tmp_path / name) for name in ("conv_lmdb", "ip_lmdb", "named_lmdb"))
    done = paratrain_here(
        folder, "extract_features", "pretrained.caffemodel", "net.prototxt", "conv,ip1", f"{one},{two}", "3", "lmdb",
        "CPU",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        "15 records written" in done.stdout
        and "Extracted features of 15 query images for feature blob ip1" in done.stderr
    )
    named = ("--weights", "pretrained.caffemodel", "--model", "net.prototxt", "--blobs", "ip1", "--output", three)
    assert paratrain_here(folder, "extract_features", *named, "--batches", "3").returncode == 0

    here = (folder / "net.prototxt").read_text().replace("images_lmdb", str(folder / "images_lmdb"))
    (tmp_path / "here.prototxt").write_text(here)
    net = caffe.Net(str(tmp_path / "here.prototxt"), caffe.TEST, weights=str(folder / "pretrained.caffemodel"))
    databases = {path: open_any_database(path) for path in (one, two, three)}
    assert [len(database) for database in databases.values()] == [15, 15, 15]
    assert databases[one].key(0) == b"0000000000" and databases[one].key(14) == b"0000000014"
    for batch in range(3):
        net.forward()
        for path, blob in ((one, "conv"), (two, "ip1"), (three, "ip1")):
            for row in range(5):
                record = parse_datum(databases[path].get(5 * batch + row))
                assert not record.HasField("label") and not record.data
                expected = net.blobs[blob].data[row].reshape(record.channels, record.height, record.width)
                np.testing.assert_allclose(datum_to_array(record), expected, rtol=1e-5, atol=1e-6)
    first = parse_datum(databases[two].get(0))
    assert (first.channels, first.height, first.width) == (2, 1, 1)
    for database in databases.values():
        database.close()


@pytest.mark.parametrize("verb", ["classify", "detect", "extract_features", "draw"])
def test_every_example_of_the_help_works(verb: str, folder: Path) -> None:
    commands = examples(verb)
    assert commands
    for words in commands:
        done = paratrain_here(folder, *words[1:])
        assert done.returncode == 0, (words, done.stderr)
    if verb == "draw":
        svg = (folder / "net.svg").read_text()
        assert ">conv</text>" in svg and ">lr mult: 1</text>" in svg and (folder / "net.png").stat().st_size > 1000


def test_every_command_of_the_page_works(folder: Path) -> None:
    text = (REPOSITORY / "docs" / "pictures.md").read_text()
    commands = re.findall(r"^paratrain .*$", "".join(re.findall(r"```\n(.*?)```", text, re.DOTALL)), re.MULTILINE)
    assert len(commands) == 4
    for made in ("conv_lmdb", "ip1_lmdb", "features_lmdb"):
        shutil.rmtree(folder / made, ignore_errors=True)
    for command in commands:
        done = paratrain_here(folder, *command.split()[1:])
        assert done.returncode == 0, (command, done.stderr)


WRONG = [
    (("classify", "nix.jpg", *NET), "there is no image nix.jpg"),
    (("classify", "labels.txt", *NET), "labels.txt: 13 bytes that are no image"),
    (("classify", "images", *NET), "images: has no image whose name ends in .jpg"),
    (("classify", "images/flower", *NET, "--ext", "gif"), "the files there end in png: give --ext png"),
    (("classify", "cat.jpg", *NET, "--labels_file", "nix.txt"), "nix.txt: the names of the classes cannot be read"),
    (("classify", "cat.jpg", *NET, "--labels_file", "windows.csv"), "windows.csv: has 4 names, and the net 2 classes"),
    (("classify", "cat.jpg", *NET, "--mean_file", "labels.txt"), "labels.txt: is no array that NumPy can read"),
    (("classify", "cat.jpg", *NET, "--mean_file", "nix.npy"), "nix.npy: no such file"),
    (("classify", "cat.jpg", *NET, "--mean_file", "grey.npy"), "grey.npy: the mean has the shape (1, 4, 4); the net takes"),
    (("classify", "cat.jpg", *NET, "--channel_swap", "2,1"), "(2, 1) is no order of its 3 channels"),
    (("classify", "cat.jpg", *NET, "--images_dim", "20,40"), "do not fit into images of 20 x 40"),
    (("classify", "grey.npy", *NET), "grey.npy: expected images (N, H, W, K), found an array of the shape (1, 4, 4)"),
    (("classify", "four.npy", *NET), "channel_swap (2, 1, 0) does not fit an image of the shape (4, 24, 24)"),
    (("classify", "cat.jpg", "--model", "net.prototxt", "--weights", "pretrained.caffemodel"), "has no Input layer"),
    (("classify", "cat.jpg", "--model", "deploy.prototxt", "--weights", "nix.caffemodel"), "nix.caffemodel: no such file"),
    (("detect", "list.txt", "d.csv", *NET), "give a .csv file with the columns filename,xmin,ymin,xmax,ymax"),
    (("detect", "windows.csv", "d.csv", *NET, "--crop_mode", "selective_search"), "selective search runs in MATLAB"),
    (("detect", "windows.csv", "d.csv", *NET), "context_pad 16 needs a square input larger than twice that, not 24 x 24"),
    (("detect", "bad.csv", "d.csv", *NET), "bad.csv:1: there is no column 'filename' ('filenam' is near it)"),
    (("detect", "worse.csv", "d.csv", *NET), "worse.csv:3: expected filename,xmin,ymin,xmax,ymax, found cat.jpg,1,2,x,4"),
    (("detect", "outside.csv", "d.csv", *NET), "cat.jpg: the window 0 70 9 80 (ymin, xmin, ymax, xmax) has no pixel"),
    ((*WEIGHTS_AND_NET, "ip2", "db", "1", "lmdb"), "has no blob 'ip2'; did you mean 'ip1'"),
    ((*WEIGHTS_AND_NET, "ip1,conv", "db", "1", "lmdb"), "name a database for each blob"),
    ((*WEIGHTS_AND_NET, "ip1", "images", "1", "lmdb"), "images"),
    (("draw", "labels.txt", "a.svg"), "labels.txt:1:1: "),
    (("draw", "net.prototxt", "nix/a.svg"), "nix/a.svg: cannot be written"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_bad_input_is_one_message(words: tuple[str, ...], said: str, folder: Path) -> None:
    np.save(folder / "grey.npy", np.zeros((1, 4, 4), np.float32))
    np.save(folder / "four.npy", np.zeros((1, 24, 24, 4), np.float32))
    (folder / "bad.csv").write_text("filenam,xmin,ymin,xmax,ymax\n")
    (folder / "worse.csv").write_text("filename,xmin,ymin,xmax,ymax\ncat.jpg,1,2,3,4\ncat.jpg,1,2,x,4\n")
    (folder / "outside.csv").write_text("filename,xmin,ymin,xmax,ymax\ncat.jpg,70,0,80,9\n")
    before = sorted(folder.iterdir())
    assert said in error(paratrain_here(folder, *words))
    assert sorted(folder.iterdir()) == before  # nothing half-done stays behind


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("classify", "cat.jpg"), "--model_def/-model/--model, --pretrained_model"),
        (("classify", "cat.jpg", *NET, "--images_dim", "256"), "'256' is not like 256,256"),
        (("classify", "cat.jpg", *NET, "--channel_swap", "bgr"), "'bgr' is not like 2,1,0"),
        (("detect", "windows.csv", "d.txt", *NET), "d.txt: the results are written as .csv or .h5"),
        (("extract_features", "w", "n", "b"), "3 arguments are given; expected WEIGHTS NET"),
        (("extract_features", "w", "n", "b", "d", "x", "lmdb"), "a whole number above 0, not 'x'"),
        (("extract_features", "w", "n", "b", "d", "1", "sqlite"), "unknown kind of database 'sqlite'"),
        (("extract_features", "--weights", "w"), "--model, --blobs, --output, --batches missing"),
        (("draw", "net.prototxt", "net.gif"), "net.gif: the name must end in .png"),
    ],
)
def test_a_command_that_cannot_be_understood(words: tuple[str, ...], said: str, folder: Path) -> None:
    done = paratrain_here(folder, *words)
    assert done.returncode == 2 and said in done.stderr


def test_it_is_one_process(folder: Path, mpirun: str) -> None:
    done = paratrain(folder, "classify", "cat.jpg", *NET, launcher=(mpirun, "-n", "2"))
    assert done.returncode != 0 and "is run by one process, without mpirun" in done.stderr
    assert "Traceback" not in done.stderr
