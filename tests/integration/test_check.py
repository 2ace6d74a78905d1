"""``paratrain check``: what it says of good and bad files, and the pictures it draws."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from paratrain.check import check_file
from paratrain.proto import array_to_blob, write_binary
from tests.integration.cli import paratrain_here as run
from tests.integration.cli import write_solver
from tests.paths import GOLDEN

NETS = ["caffenet", "cifar10_quick", "googlenet", "lenet", "resnet50", "resnet50_deploy"]

VGG = (
    'name: "VGG-16"\n'
    + 'layer { name: "data" type: "Input" top: "b0" input_param { shape { dim: 64 dim: 3 dim: 224 dim: 224 } } }\n'
)
_count = 0
for _width, _repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
    for _ in range(_repeats):
        VGG += (
            f'layer {{ name: "c{_count + 1}" type: "Convolution" bottom: "b{_count}" top: "b{_count + 1}" convolution_param '
            f'{{ num_output: {_width} kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}\n'
            f'layer {{ name: "r{_count + 1}" type: "ReLU" bottom: "b{_count + 1}" top: "b{_count + 1}" }}\n'
        )
        _count += 1
    VGG += (
        f'layer {{ name: "p{_count}" type: "Pooling" bottom: "b{_count}" top: "b{_count + 1}" '
        "pooling_param { kernel_size: 2 stride: 2 } }\n"
    )
    _count += 1
for _width in (4096, 4096, 1000):
    VGG += (
        f'layer {{ name: "f{_count + 1}" type: "InnerProduct" bottom: "b{_count}" top: "b{_count + 1}" '
        f'inner_product_param {{ num_output: {_width} weight_filler {{ type: "gaussian" }} }} }}\n'
    )
    _count += 1


def problems(text: str) -> list[str]:
    return [line.removeprefix("problem: ") for line in text.splitlines() if line.startswith("problem: ")]


@pytest.mark.parametrize("name", NETS)
def test_good_networks_have_no_problems_and_the_shapes_that_caffe_gives_them(name: str, tmp_path: Path) -> None:
    recorded = json.loads((GOLDEN / "nets" / f"{name}.json").read_text())
    done = run(tmp_path, "check", str(GOLDEN / "nets" / f"{name}.prototxt"))
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("\nno problems\n")
    for net in check_file(GOLDEN / "nets" / f"{name}.prototxt").nets:
        phase = next(phase for phase in ("TRAIN", "TEST") if phase in net.title and phase in recorded)
        shapes: dict[str, list[int]] = {}
        for one in net.shaped.layers:
            shapes.update(
                {top: list(blob.shape) for top, blob in zip(one.parameter.top, one.tops, strict=False) if blob}
            )
        assert {name: shape for name, shape in shapes.items() if name in recorded[phase]["blobs"]} == shapes
        wanted = {layer: blobs for layer, blobs in recorded[phase]["params"].items() if blobs}
        assert {
            one.parameter.name: [list(blob.shape) for blob in one.layer.blobs]
            for one in net.shaped.layers if one.layer is not None and one.layer.blobs
        } == wanted  # fmt: skip


def test_the_table_of_lenet(tmp_path: Path) -> None:
    done = run(tmp_path, "check", str(GOLDEN / "nets" / "lenet.prototxt"))
    lines = [re.split(r"  +", line.strip()) for line in done.stdout.splitlines()]
    # 20 kernels of 1 x 5 x 5 and biases; each weight is used at 24 x 24 places of two images.
    assert ["conv1", "Convolution", "conv1", "2 x 20 x 24 x 24", "520", "576 k"] in lines
    assert ["ip1", "InnerProduct", "ip1", "2 x 500", "400,500", "800 k"] in lines
    assert ["relu1", "ReLU", "ip1 (in place)", "2 x 500"] in lines
    assert ["total", "431,080", "4.59 M"] in lines
    # 431,080 float32 and the same of gradients and of momentum.
    assert ["parameters", "1.64 MiB"] in lines
    assert ["history (SGD), on the root only", "1.64 MiB"] in lines


def test_a_large_network_is_checked_without_its_memory(tmp_path: Path) -> None:
    """VGG-16 with 64 images would take some gigabytes and 138 million random numbers."""
    (tmp_path / "vgg.prototxt").write_text(VGG)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = check_file(tmp_path / "vgg.prototxt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200 * 1024
    assert report.problems == []
    [net] = report.nets
    assert net.title == "TRAIN and TEST"
    assert sum(entry.blob.count for entry in net.shaped.parameters.entries) == 138_357_544  # as its authors count
    assert net.memory.parameters == 4 * 138_357_544
    assert net.memory.data > 3 * 10**9


def test_data_that_is_missing_is_reported_and_given_shapes_carry_on(tmp_path: Path) -> None:
    solver = write_solver(tmp_path)
    alone = run(tmp_path, "check", solver)
    assert alone.returncode == 1
    assert [problem.split(":")[0] for problem in problems(alone.stdout)] == ["layer 'data' (Data)"] * 2
    assert "data_param.source, 'mnist_train_lmdb', does not exist" in alone.stdout
    assert "--input-shape data=" in alone.stdout
    given = run(tmp_path, "check", solver, "--input-shape", "data=64,1,28,28")
    assert len(problems(given.stdout)) == 1
    assert re.search(r"^ip2 .* 64 x 10 ", given.stdout, re.MULTILINE)
    assert "?" not in given.stdout
    wrong = run(tmp_path, "check", solver, "--input-shape", "date=64,1,28,28")
    assert "--input-shape: no layer makes a blob named 'date'" in problems(wrong.stdout)


def test_shapes_that_the_file_itself_tells(tmp_path: Path) -> None:
    net = """
    layer { name: "a" type: "Data" top: "a" top: "la" data_param { source: "none" batch_size: 4 }
            transform_param { mean_file: "mean.binaryproto" } }
    layer { name: "b" type: "ImageData" top: "b" top: "lb"
            image_data_param { source: "none" batch_size: 5 new_height: 6 new_width: 7 } }
    layer { name: "c" type: "Data" top: "c" data_param { source: "none" batch_size: 3 }
            transform_param { crop_size: 9 force_gray: true } }
    """
    write_binary(tmp_path / "mean.binaryproto", array_to_blob(np.zeros((1, 3, 8, 10), np.float32)))
    (tmp_path / "net.prototxt").write_text(net)
    done = run(tmp_path, "check", "net.prototxt")
    assert [problem[:9] for problem in problems(done.stdout)] == ["layer 'a'", "layer 'b'", "layer 'c'"]
    for name, shape in (("a", "4 x 3 x 8 x 10"), ("la", "4"), ("b", "5 x 3 x 6 x 7"), ("c", "3 x 1 x 9 x 9")):
        assert re.search(rf" {name} +{shape}$", done.stdout, re.MULTILINE), name


def test_a_solver_and_its_nets_are_checked_together(mnist_folder: Path, tmp_path: Path) -> None:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    good = run(tmp_path, "check", write_solver(tmp_path))
    assert good.returncode == 0, good.stdout
    assert "small.solver.prototxt: a solver" in good.stdout
    settings = (
        'type: "Adan"\niter_size: 0\naverage_loss: 0\nlr_policy: "stepp"\nclip_gradients: 0\n'
        'weights: "none.caffemodel"\nsnapshot_prefix: "no/where"\ntest_iter: 3\n'
    )
    bad = run(tmp_path, "check", write_solver(tmp_path, settings, name="bad"))
    assert bad.returncode == 1
    for part in ("'Adan'", "iter_size is 0", "average_loss is 0", "'stepp'", "clip_gradients is 0", "'none.caffemodel'",
                 "'no/where'", "test_interval is 0"):  # fmt: skip
        assert len([problem for problem in problems(bad.stdout) if part in problem]) == 1, part


def test_every_misprint_of_solver_and_net_is_found(tmp_path: Path) -> None:
    net = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_outputs: 3 kernel_size: "3" } }
    layer { name: "crf" type: "ReLU" bottom: "conv" top: "crf" dense_crf_param { x: 1 } }
    """
    solver = write_solver(
        tmp_path, 'momentun: 0.9\nsolver_mode: CPUS\nlr_policy: "step"\ngama: 0.1\niter_size: 0\n', net=net
    )
    done = run(tmp_path, "check", solver)
    found = problems(done.stdout)
    # Nothing is said of what follows from the fields that could not be read, such as num_output and gamma.
    assert len(found) == 7, found
    for part in (
        "did you mean 'momentum'",
        "one of CPU, GPU, found 'CPUS'",
        "did you mean 'gamma'",
        "iter_size is 0",
        "did you mean 'num_output'",
        'found "3"',
        "DeepLab",
    ):
        assert any(part in problem for problem in found), part


def test_a_layer_that_is_not_read_whole_keeps_its_other_mistakes(tmp_path: Path) -> None:
    net = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
    layer { name: "a" type: "Convolutionn" bottom: "data" top: "a" convolution_param { num_outputs: 3 } }
    layer { name: "b" type: "ReLU" bottom: "data" bottom: "data" top: "b" relu_param { negativ_slope: 3 } pooling_param { } }
    layer { name: "c" type: "ReLU" botom: "data" top: "c" }
    layer { name: "b" type: "InnerProduct" bottom: "data" top: "d" inner_product_param { num_output: 0 } }
    """
    (tmp_path / "net.prototxt").write_text(net)
    found = problems(run(tmp_path, "check", "net.prototxt").stdout)
    assert len(found) == 8, found
    for part in (
        "did you mean 'num_output'",
        "layer 'a': unknown layer type 'Convolutionn'",
        "did you mean 'negative_slope'",
        "layer 'b' (ReLU): takes exactly 1 bottom blobs; the prototxt gives 2",
        "layer 'b' (ReLU): pooling_param is given",
        "did you mean 'bottom'",
        "two layers are named 'b'",
        "layer 'b' (InnerProduct): ",
    ):
        assert len([problem for problem in found if part in problem]) == 1, part


def test_how_images_are_transformed_is_checked_without_them(tmp_path: Path) -> None:
    net = """
    layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "none" batch_size: 4 }
            transform_param { crop_size: 9 force_gray: true crop_h: 3 resize_param { height: 3 } display: true } }
    """
    (tmp_path / "net.prototxt").write_text(net)
    found = problems(run(tmp_path, "check", "net.prototxt").stdout)
    assert len(found) == 3, found
    assert "data_param.source, 'none', does not exist" in found[0]
    assert found[1].startswith("layer 'data' (Data): transform_param.crop_h (of SSD")
    assert found[2].startswith("layer 'data' (Data): transform_param.resize_param (of SSD")


def test_layers_of_forks_and_what_is_shown_where_no_shape_is_known(tmp_path: Path) -> None:
    net = """
    layer { name: "data" type: "AnnotatedData" top: "data" top: "label" }
    layer { name: "prior" type: "PriorBox" bottom: "data" top: "prior" }
    """
    (tmp_path / "net.prototxt").write_text(net)
    done = run(tmp_path, "check", "net.prototxt")
    data, prior = problems(done.stdout)
    assert data.startswith("layer 'data': unknown layer type 'AnnotatedData', which is of SSD (weiliu89/caffe")
    assert prior.startswith("layer 'prior': unknown layer type 'PriorBox', which is of SSD (weiliu89/caffe")
    assert "known:" not in done.stdout
    assert "0 bytes" not in done.stdout


def test_fields_that_are_not_used_are_noted(tmp_path: Path) -> None:
    net = """
    default_forward_type: FLOAT16
    default_backward_type: FLOAT
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" forward_type: FLOAT backward_math: FLOAT16 debug: true
            convolution_param { num_output: 3 kernel_size: 1 conv_algos_override: "1,-1,-1" negative_slope: 0.1 } }
    layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" multinode { num_nodes: 2 }
            dropout_param { random_seed: 7 } }
    """
    (tmp_path / "net.prototxt").write_text(net)
    done = run(tmp_path, "check", "net.prototxt")
    assert done.returncode == 0, done.stdout
    notes = [line.removeprefix("note: ") for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert [note.split(" is not used")[0] for note in notes[:3]] == [
        "dropout_param.random_seed (of NVIDIA/caffe) in 'drop'",
        "backward_math (of NVIDIA/caffe) in 'conv'",
        "default_forward_type (of NVIDIA/caffe) in the net",
    ]
    assert re.findall(r"[\w.]+(?= \(of)", notes[3]) == [
        "convolution_param.conv_algos_override",
        "convolution_param.negative_slope",
        "debug",
        "multinode",
    ]
    assert len(notes) == 4


def test_old_networks_are_upgraded_first(tmp_path: Path) -> None:
    done = run(
        tmp_path, "check", str(GOLDEN / "upgrade" / "v0_lenet_train.prototxt"), "--input-shape", "data=64,1,28,28"
    )
    assert "note: the network is in the form of V0" in done.stdout
    assert re.search(r"^conv1 +Convolution +conv1 +64 x 20 x 24 x 24", done.stdout, re.MULTILINE)


def test_a_net_of_stages(tmp_path: Path) -> None:
    net = 'layer { name: "%s" type: "Input" top: "%s" input_param { shape { dim: %d } } include { %s } }\n'
    (tmp_path / "net.prototxt").write_text(
        net % ("a", "a", 2, 'stage: "deploy"')
        + net % ("b", "b", 3, "min_level: 2")
        + net % ("c", "c", 4, "phase: TEST")
    )
    assert re.findall(r"^([abc]) ", run(tmp_path, "check", "net.prototxt").stdout, re.MULTILINE) == ["c"]
    done = run(tmp_path, "check", "net.prototxt", "--stage", "deploy", "--level", "2")
    assert re.findall(r"^([abc]) ", done.stdout, re.MULTILINE) == ["a", "b", "a", "b", "c"]


def test_python_layers_run_only_where_they_may(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "p" type: "Python" top: "p" python_param { module: "no_such_module" layer: "A" } }'
    )
    assert "--allow-python" in run(tmp_path, "check", "net.prototxt").stdout
    allowed = run(tmp_path, "check", "net.prototxt", "--allow-python")
    assert allowed.returncode == 1
    assert "no_such_module" in allowed.stdout
    assert "--allow-python" not in allowed.stdout


def test_files_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    (tmp_path / "open.prototxt").write_text('layer { name: "a"')
    (tmp_path / "binary").write_bytes((GOLDEN / "solvers" / "init.caffemodel").read_bytes())
    done = run(tmp_path, "check", "open.prototxt")
    assert done.returncode == 1
    assert "never closed" in done.stdout
    for name, part in (("binary", "not a text file"), ("none.prototxt", "no such file")):
        done = run(tmp_path, "check", name)
        assert done.returncode == 1
        assert part in done.stderr


@pytest.mark.parametrize("name", ["lenet", "googlenet"])
def test_pictures(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = str(GOLDEN / "nets" / f"{name}.prototxt")
    for ending in ("svg", "dot"):
        assert run(tmp_path, "check", file, "--draw", f"net.{ending}").returncode == 0
    svg = ElementTree.parse(tmp_path / "net.svg")
    texts = ["".join(element.itertext()).strip() for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    dot = (tmp_path / "net.dot").read_text()
    net = check_file(file).nets[1]
    for one in net.shaped.layers:
        if one.parameter.type != "Split":
            assert any(one.parameter.name in text for text in texts), one.parameter.name
            assert one.parameter.name in dot
    assert "Accuracy" in texts
    assert dot.count("{") == dot.count("}")
    first = (tmp_path / "net.svg").read_bytes()
    run(tmp_path, "check", file, "--draw", "net.svg")
    assert (tmp_path / "net.svg").read_bytes() == first


def test_a_bad_net_is_drawn_as_far_as_it_goes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "b" type: "Nonsense" bottom: "a" bottom: "nobody" top: "b" }\n'
        'layer { name: "c" type: "ReLU" bottom: "b" top: "b" }\n'
    )
    done = run(tmp_path, "check", "net.prototxt", "--draw", "net.png")
    assert done.returncode == 1
    assert (tmp_path / "net.png").read_bytes()[:4] == b"\x89PNG"


def test_a_picture_of_another_kind_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "check", str(GOLDEN / "nets" / "lenet.prototxt"), "--draw", "net.gif")
    assert done.returncode == 2
    assert ".svg, .png or .dot" in done.stderr
