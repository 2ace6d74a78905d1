// ReLU and its relatives: layers of comparisons and products.

#include "values.cuh"

// y = x where x > 0, else slope x. -inf becomes 0 for a slope of 0, and what is no number stays so.
extern "C" __global__ void relu_forward(int count, const STORAGE* x, STORAGE* y, ACCUMULATE slope) {
    WRITE_Y(x, y, static_cast<STORAGE*>(0), v < 0 ? (slope == 0 ? ACCUMULATE(0) : slope * v) : v)
}

// dx = dy where x > 0, else slope dy. x may be y, for a slope of at least 0.
extern "C" __global__ void relu_backward(int count, const STORAGE* x, const STORAGE* dy, STORAGE* dx, ACCUMULATE slope) {
    WRITE_DX(x, dy, dx, v > 0 ? ACCUMULATE(1) : slope)
}

// x up to 6, and a x below 0. v may be y, for an a of at least 0.
FORWARD(relu6, v < 0 ? (a == 0 ? ACCUMULATE(0) : a * v) : v > 6 ? ACCUMULATE(6) : v)
BACKWARD(relu6, v > 0 ? ACCUMULATE(v < 6) : a)

// x, cut off at a and b.
FORWARD(clip, v < a ? a : v > b ? b : v)
BACKWARD(clip, v >= a && v <= b ? 1 : 0)

__device__ __forceinline__ ACCUMULATE sign(ACCUMULATE x) { return x > 0 ? 1 : x < 0 ? -1 : x; }

FORWARD(absval, v < 0 ? -v : v)
BACKWARD(absval, sign(v))

// a x
FORWARD(factor, a * v)
BACKWARD(factor, a)

// a, whatever x is.
FORWARD(constant, a)
BACKWARD(constant, 0)

FORWARD(threshold, v > a ? 1 : 0)
