"""A solver driven by hand: losses kept in an array, the test net run now and then, a learning curve at the end."""
import sys

import numpy as np

import caffe

caffe.set_mode_cpu()
caffe.set_random_seed(0)
solver = caffe.SGDSolver(sys.argv[1])
solver.net.copy_from("init.caffemodel")
print([(k, v.data.shape) for k, v in solver.net.blobs.items()])
print([(k, v[0].data.shape) for k, v in solver.net.params.items()])
solver.test_nets[0].share_with(solver.net)

niter, test_interval = 20, 10
train_loss = np.zeros(niter)
test_acc = []
output = np.zeros((niter, 8, 10))
for it in range(niter):
    solver.step(1)
    train_loss[it] = solver.net.blobs["loss"].data
    solver.test_nets[0].forward(start="conv1")
    output[it] = solver.test_nets[0].blobs["ip2"].data[:8]
    if (it + 1) % test_interval == 0:
        print("Iteration", it, "testing...")
        correct = 0
        for test_it in range(5):
            solver.test_nets[0].forward()
            correct += sum(solver.test_nets[0].blobs["ip2"].data.argmax(1) == solver.test_nets[0].blobs["label"].data)
        test_acc.append(correct / (5.0 * len(solver.test_nets[0].blobs["label"].data)))

expected = np.load("sgd.npz")["loss"]
np.testing.assert_allclose(train_loss, expected[:niter], rtol=1e-4)
assert solver.iter == niter
assert test_acc[-1] > 0.5, test_acc
assert (output[-1] != output[0]).any()
assert abs(solver.net.params["conv1"][0].diff).sum() > 0
print("followed Caffe's losses; test accuracy", test_acc)
