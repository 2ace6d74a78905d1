"""Training by several processes that the script starts itself, with times, as pycaffe's users do it on several GPUs."""
import sys
from multiprocessing import Process, Queue

import numpy as np

import caffe


def train(solver, ranks, fail):
    uid = caffe.NCCL.new_uid()
    caffe.init_log(1)
    caffe.log("Using ranks %s" % str(ranks))
    results = Queue()
    procs = []
    for rank in range(len(ranks)):
        p = Process(target=solve, args=(solver, ranks, uid, rank, results, fail))
        p.daemon = True
        p.start()
        procs.append(p)
    losses = None if fail else np.mean([results.get(timeout=60) for _ in ranks], axis=0)
    for p in procs:
        p.join()
    print("exit codes", [p.exitcode for p in procs])
    return losses


def time(solver, nccl, lines):
    fprop, bprop = [], []
    total, allrd = caffe.Timer(), caffe.Timer()
    for _ in range(len(solver.net.layers)):
        fprop.append(caffe.Timer())
        bprop.append(caffe.Timer())

    def show_time():
        s = ""
        for i in range(len(solver.net.layers)):
            s += "forw %3d %8s : %.2f\n" % (i, solver.net._layer_names[i], fprop[i].ms)
            s += "back %3d %8s : %.2f\n" % (i, solver.net._layer_names[i], bprop[i].ms)
        s += "solver total: %.2f\n" % total.ms
        s += "allreduce: %.2f\n" % allrd.ms
        lines.append(s)

    solver.net.before_forward(lambda layer: fprop[layer].start())
    solver.net.after_forward(lambda layer: fprop[layer].stop())
    solver.net.before_backward(lambda layer: bprop[layer].start())
    solver.net.after_backward(lambda layer: bprop[layer].stop())
    solver.add_callback(lambda: total.start(), lambda: (total.stop(), allrd.start()))
    solver.add_callback(nccl)
    solver.add_callback(lambda: "", lambda: (allrd.stop(), show_time()))


def solve(proto, ranks, uid, rank, results, fail):
    caffe.set_mode_cpu()
    caffe.set_solver_count(len(ranks))
    caffe.set_solver_rank(rank)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank()) == (len(ranks), rank)

    solver = caffe.SGDSolver(proto)
    if rank == 0:  # the others get what the root has
        solver.net.copy_from("init.caffemodel")
    nccl = caffe.NCCL(solver, uid)
    nccl.bcast()
    if fail and rank == 1:
        raise ValueError("rank 1 gives up")
    lines = []
    if rank == 0:
        time(solver, nccl, lines)
    else:
        solver.add_callback(nccl)
    if solver.param.layer_wise_reduce:
        solver.net.after_backward(nccl)
    losses = []
    for _ in range(5):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    results.put(losses)
    if rank == 0:
        assert len(lines) == 5 and all(" conv1 : " in line for line in lines), lines


if __name__ == "__main__":
    losses = train("sgd.solver.prototxt", [0, 1], "fail" in sys.argv)
    if losses is not None:
        # Two ranks of 32 images follow what Caffe does with 64.
        np.testing.assert_allclose(losses, np.load("sgd_batch_64.npz")["loss"][:5], rtol=1e-4)
        print("followed Caffe's losses")
