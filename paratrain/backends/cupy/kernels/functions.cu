// Layers of exponentials, logarithms and powers.

#include "values.cuh"

__device__ __forceinline__ ACCUMULATE sigmoid(ACCUMULATE x) { return 0.5f * tanh(0.5f * x) + 0.5f; }  // cannot overflow

FORWARD(sigmoid, sigmoid(v))
BACKWARD(sigmoid, v * (1 - v))  // v = y

FORWARD(tanh, tanh(v))
BACKWARD(tanh, 1 - v * v)  // v = y

// x sigmoid(a x)
FORWARD(swish, v * sigmoid(a * v))
BACKWARD(swish, sigmoid(a * v) * (1 + a * v * (1 - sigmoid(a * v))))

// b x where x > 0, else b a (exp(x) - 1).
FORWARD(elu, b * (v > 0 ? v : a * expm1(v)))
BACKWARD(elu, v > 0 ? b : b * a * exp(v))
BACKWARD(elu_from_top, v > 0 ? b : v + b * a)  // v = y, which must tell where x > 0

// log(1 + exp(x)), in a form that cannot overflow. From 50 on the slope is 1 to the last bit.
FORWARD(bnll, (v > 0 ? v : ACCUMULATE(0)) + log1p(exp(v > 0 ? -v : v)))
BACKWARD(bnll, v > 50 ? ACCUMULATE(1) : exp(v) / (1 + exp(v)))

// exp(b + a x)
FORWARD(exp, exp(b + a * v))
BACKWARD(exp, a * v)  // v = y

// log(b + a x) / c
FORWARD(log, log(b + a * v) / c)
BACKWARD(log, a / c / (b + a * v))
BACKWARD(log_from_top, a / c * exp(-c * v))  // v = y

// value^power
__device__ __forceinline__ ACCUMULATE raised(ACCUMULATE value, ACCUMULATE power) {
    return power == 1 ? value : power == 2 ? value * value : power == 0.5f ? sqrt(value) : power == -1 ? 1 / value
         : power == 0 ? ACCUMULATE(1) : pow(value, power);
}

// (c + b x)^a
FORWARD(power, raised(c + b * v, a))
BACKWARD(power, a * b * raised(c + b * v, a - 1))
