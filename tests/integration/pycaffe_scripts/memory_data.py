"""Training on arrays: two classes of points through a MemoryData layer."""
import numpy as np

import caffe

with open("points.prototxt", "w") as f:
    f.write("""layer { name: "points" type: "MemoryData" top: "data" top: "label"
        memory_data_param { batch_size: 10 channels: 2 height: 1 width: 1 } }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2
        weight_filler { type: "xavier" } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
        layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }""")
with open("points.solver.prototxt", "w") as f:
    f.write('net: "points.prototxt" test_iter: 4 test_interval: 1000 test_initialization: false base_lr: 0.5 '
            'lr_policy: "fixed" max_iter: 60 snapshot_prefix: "points" random_seed: 2')
rng = np.random.RandomState(0)
labels = (np.arange(40) % 2).astype(np.float32)
data = (rng.randn(40, 2, 1, 1) * 0.3 + np.where(labels, 1, -1).reshape(-1, 1, 1, 1)).astype(np.float32)

solver = caffe.SGDSolver("points.solver.prototxt")
solver.net.set_input_arrays(data, labels)
solver.test_nets[0].set_input_arrays(data, labels)
solver.solve()
solver.test_nets[0].share_with(solver.net)
accuracy = np.mean([solver.test_nets[0].forward()["accuracy"] for _ in range(4)])
assert accuracy > 0.95, accuracy
try:
    solver.net.set_input_arrays(data[:7], labels[:7])
except Exception as error:
    print("refused:", error)
else:
    raise AssertionError("7 samples are no batches of 10")
print("accuracy", accuracy)
