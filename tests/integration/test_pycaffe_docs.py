"""Every piece of code in docs/pycaffe.md runs, and leaves behind what the page says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import paratrain as caffe
from paratrain.proto import BlobProto, NetParameter, read_prototxt, write_binary
from tests.integration.cli import write_solver
from tests.integration.test_cli_pictures import DEPLOY
from tests.optional import need_opencv
from tests.paths import DATA, REPOSITORY

PAGE = (REPOSITORY / "docs" / "pycaffe.md").read_text()
SECTIONS = {
    section.split("\n", 1)[0]: re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for section in PAGE.split("\n## ")[1:]
}
CODE = {title: "\n".join(blocks) for title, blocks in SECTIONS.items() if blocks}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, mnist_folder: Path) -> Path:
    """The files that the page names."""
    made = tmp_path_factory.mktemp("page")
    (made / "deploy.prototxt").write_text(DEPLOY)
    caffe.Net(made / "deploy.prototxt", caffe.TEST).save(str(made / "net.caffemodel"))
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (made / name).symlink_to(mnist_folder / name)
    (made / write_solver(made, "max_iter: 9\n")).rename(made / "solver.prototxt")
    shutil.copy(made / "small.net.prototxt", made / "train_val.prototxt")
    shutil.copy(DATA / "images" / "images" / "china" / "00.jpg", made / "cat.jpg")
    write_binary(made / "mean.binaryproto", BlobProto(num=1, channels=3, height=2, width=2, data=range(12)))
    return made


def check(title: str, found: dict[str, Any], folder: Path) -> None:
    """What the reader may expect of a section."""
    if title == "Change weights":
        changed = caffe.Net(folder / "deploy.prototxt", caffe.TEST, weights=folder / "changed.caffemodel")
        assert not changed.params["conv"][0].data[0].any() and changed.params["conv"][0].data[1].any()
    elif title == "Train in a loop of one's own":
        assert len(found["losses"]) == 5 and found["losses"][-1] < found["losses"][0]
        assert (folder / "trained.caffemodel").exists()
    elif title == "Write a net in Python":
        net = read_prototxt(folder / "train.prototxt", NetParameter)
        assert [layer.name for layer in net.layer] == ["data", "conv1", "pool1", "fc1", "relu1", "score", "loss"]
        (folder / "python.solver.prototxt").write_text(
            'net: "train.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 1 solver_mode: CPU snapshot_after_train: false'
        )
        caffe.get_solver(folder / "python.solver.prototxt").step(1)
    elif title == "Prepare images":
        assert found["best"] in (0, 1) and found["mean"].tolist() == [
            [[0, 1], [2, 3]],
            [[4, 5], [6, 7]],
            [[8, 9], [10, 11]],
        ]
        assert abs(found["shown"] - caffe.io.resize_image(found["image"], (24, 24))).max() < 1e-5
        assert found["datum"].label == 3 and found["pixels"].shape == (3, 48, 64)
    elif title == "Classify":
        assert found["probabilities"].shape == (1, 2)
    elif title == "Draw a net":
        assert (folder / "net.png").read_bytes().startswith(b"\x89PNG") and "(Convolution)" in found["dot"]
    elif title == "Crop one feature map to another":
        # A pixel x lies at x + 99 of conv, that at half of it less a quarter of pool, that at twice it and 1.5 of upscore.
        assert found["axis"] == 1 and found["score"].fn.params == {"crop_param": {"axis": 2, "offset": [100]}}
    else:
        assert title == "Run a net and look into it"
        assert found["net"].blobs["prob"].shape == (1, 2) and found["features"].shape == (4, 4, 10, 10)


@pytest.mark.parametrize("title", CODE)
def test_the_code_of_a_section_runs(title: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_opencv()
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CODE[title], f"docs/pycaffe.md, {title}", "exec"), found)
    check(title, found, folder)


def test_all_code_of_the_page_is_run() -> None:
    assert sum(map(len, SECTIONS.values())) == PAGE.count("```python") > 0
