"""A small job of which one rank ends itself, or is ended from outside, at a moment that a plan names."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

__all__ = ["CODES", "LAST", "MOMENTS", "NOTE", "SIGNALS", "Plan", "write_files"]

SIGNALS = ("SIGKILL", "SIGSEGV", "SIGSTOP")
CODES = ("exception", "sys.exit", "os._exit")
# From outside at any time from mpirun's start to the first iteration; or by the rank itself, when it comes to the phase.
_SIGNAL_MOMENTS = ("start", "any", "exchange", "test", "snapshot")
_CODE_MOMENTS = ("setup", "forward", "backward", "test")
# Before the rank has even imported paratrain.
_EARLY = ("early",)
MOMENTS = {
    **dict.fromkeys(SIGNALS, _SIGNAL_MOMENTS),
    **dict.fromkeys(CODES, _CODE_MOMENTS),
    "SIGSTOP": _EARLY + _SIGNAL_MOMENTS,
    "os._exit": _EARLY + _CODE_MOMENTS,
}
LAST = 60
NOTE = "ended"
"""The file in which stands when the rank has ended. Where it is there, nothing happens."""
RECORD_COUNT = 61  # a prime: no batch divides an epoch
NET = """
name: "ending"
layer { name: "rows" type: "HDF5Data" top: "x" top: "label"
  hdf5_data_param { source: "rows.txt" batch_size: 5 shuffle: true } }
layer { name: "first" type: "InnerProduct" bottom: "x" top: "first"
  inner_product_param { num_output: 40 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "first" top: "first" }
layer { name: "relu" type: "ReLU" bottom: "first" top: "first" }
layer { name: "trouble" type: "Python" bottom: "first" top: "same" include { phase: TRAIN }
  python_param { module: "trouble" layer: "Trouble" } }
layer { name: "trouble" type: "Python" bottom: "first" top: "same" include { phase: TEST }
  python_param { module: "trouble" layer: "TroubleInTest" } }
layer { name: "drop" type: "Dropout" bottom: "same" top: "same" }
layer { name: "last" type: "InnerProduct" bottom: "same" top: "last"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "last" bottom: "label" top: "loss" }
"""
SOLVER = f"""
net: "net.prototxt" type: "Adam" base_lr: 0.001 lr_policy: "fixed" momentum: 0.9 momentum2: 0.999
random_seed: 1 solver_mode: CPU max_iter: {LAST} snapshot: 7 snapshot_prefix: "net" test_iter: 6 test_interval: 10
display: 0
"""
# Python runs it first of all; helpers and guards, which start without it, are left alone.
EARLY = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(__file__).parent.parent
plan = json.loads((folder / "plan.json").read_text())
if plan["moment"] == "early" and os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK")) == str(plan["rank"]):
    try:
        with open(folder / "ended", "x") as note:
            note.write(f"{time.time()} {os.getpid()}")
    except FileExistsError:
        pass
    else:
        if plan["kind"] == "SIGSTOP":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            os._exit(plan["code"])
"""
TROUBLE = """
import json, os, signal, sys, threading, time
from pathlib import Path
import paratrain as caffe
from paratrain.activity import Activity
from paratrain.comm.environment import launcher_environment

rank = launcher_environment(os.environ).rank
plan = json.loads(Path("plan.json").read_text())
came = {}

def come_to(moment):
    came[moment] = came.get(moment, 0) + 1
    return moment == plan["moment"] and came[moment] == plan["count"] and rank == plan["rank"]

def is_first():
    try:
        with open("ended", "x") as note:
            note.write(f"{time.time()} {os.getpid()}")
        return True
    except FileExistsError:
        return False

def trouble(moment):
    if plan["kind"].startswith("SIG") or not come_to(moment) or not is_first():
        return
    if plan["kind"] == "exception":
        raise ValueError("this rank has had enough")
    (sys.exit if plan["kind"] == "sys.exit" else os._exit)(plan["code"])

def end_later():
    time.sleep(plan["delay_s"])
    if is_first():
        os.kill(os.getpid(), getattr(signal, plan["kind"]))

enter = Activity.enter

def watched_enter(self, phase, name=""):
    enter(self, phase, name)
    comes = [come_to(moment) for moment in {phase, "any"}]
    if plan["kind"].startswith("SIG") and any(comes):
        threading.Thread(target=end_later, daemon=True).start()

if plan["kind"].startswith("SIG"):
    Activity.enter = watched_enter

class Trouble(caffe.Layer):
    def setup(self, bottom, top):
        trouble("setup")

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        if not Path("begun").exists():
            Path("begun").touch()
        trouble("forward")
        top[0].data[...] = bottom[0].data

    def backward(self, top, propagate_down, bottom):
        trouble("backward")
        bottom[0].diff[...] = top[0].diff

class TroubleInTest(Trouble):
    def setup(self, bottom, top):
        pass

    def forward(self, bottom, top):
        trouble("test")
        top[0].data[...] = bottom[0].data
"""


@dataclass(frozen=True)
class Plan:
    """Which rank ends, how, and when."""

    kind: str
    moment: str
    rank: int
    count: int
    """How often the rank has come to that moment."""
    delay_s: float
    """Then; or for "start", after the start of mpirun."""
    code: int
    """The exit code, for those that exit."""

    def __str__(self) -> str:
        if self.moment == "start":
            return f"{self.kind} of rank {self.rank}, {self.delay_s:.2f} s after the start"
        if self.moment == "early":
            return f"{self.kind} of rank {self.rank}, early"
        code = f"({self.code})" if self.kind in ("sys.exit", "os._exit") else ""
        return f"{self.kind}{code} of rank {self.rank}, {self.moment} {self.count} + {self.delay_s * 1e3:.2f} ms"


def write_files(folder: Path, plan: Plan | None) -> None:
    """All that the job needs; without a plan nothing happens in it."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((RECORD_COUNT, 20)).astype(np.float32)
    with h5py.File(folder / "rows.h5", "w") as file:
        file["x"], file["label"] = rows, rows[:, :3].argmax(axis=1).astype(np.float32)
    (folder / "rows.txt").write_text("rows.h5\n")
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    (folder / "trouble.py").write_text(TROUBLE)
    (folder / "early").mkdir()
    (folder / "early" / "sitecustomize.py").write_text(EARLY)
    (folder / "plan.json").write_text(json.dumps({"kind": "", "moment": ""} if plan is None else asdict(plan)))
