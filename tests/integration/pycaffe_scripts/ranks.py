"""A plain solver loop: by itself, or on many ranks under mpirun."""
import sys

import caffe

solver = caffe.get_solver("sgd.solver.prototxt")
solver.net.copy_from("init.caffemodel")
for _ in range(3):
    solver.step(1)
weights = abs(solver.net.params["ip1"][0].data).sum()
print("rank %d of %d: %.4f %s\n" % (caffe.solver_rank(), caffe.solver_count(), weights, sys.argv[1:]), end="", flush=True)
if "fail" in sys.argv and caffe.solver_rank() == 1:
    sys.exit(3)
solver.step(1)
