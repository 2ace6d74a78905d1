// Losses that are sums over values: their forward passes, in one launch each, and their gradients.
//
// Forward: each block of 256 threads sums runs of RUN values into `sums`, working memory of a value for each run, and the last
// block adds those up. What the values are of is ACCUMULATE (targets, labels, weights); x, the prediction, is STORAGE.

#include "blocks.cuh"
#include "labels.cuh"

#define RUN 1024

// sums[run] = the sum of `value`, an expression of i, over each run.
#define SUM_RUNS(count, sums, shared, value)                                                            \
    for (int run = blockIdx.x; run < (count) / RUN + ((count) % RUN > 0); run += gridDim.x) {           \
        const long long first = static_cast<long long>(run) * RUN;                                      \
        ACCUMULATE sum = 0;                                                                             \
        for (long long i = first + threadIdx.x; i < (count) && i < first + RUN; i += blockDim.x) {      \
            sum += (value);                                                                             \
        }                                                                                               \
        sum = block_sum(sum, shared);                                                                   \
        if (threadIdx.x == 0) {                                                                         \
            (sums)[run] = sum;                                                                          \
        }                                                                                               \
    }

// *loss = the sum of all runs / divisor.
__device__ __forceinline__ void finish_sum(int count, const ACCUMULATE* sums, ACCUMULATE divisor, ACCUMULATE* loss,
                                           unsigned* ticket, ACCUMULATE* shared) {
    if (is_last_block(ticket)) {
        const ACCUMULATE sum = sum_of(sums, count / RUN + (count % RUN > 0), shared);
        if (threadIdx.x == 0) {
            *loss = sum / divisor;
        }
    }
}

__device__ __forceinline__ ACCUMULATE squared_difference(const STORAGE& x, ACCUMULATE target, ACCUMULATE& difference) {
    difference = load(x) - target;
    return difference * difference;
}

// *loss = the sum of (x - target)^2 / divisor; differences = x - target, for backward.
extern "C" __global__ void euclidean_forward(int count, const STORAGE* x, const ACCUMULATE* targets, ACCUMULATE* differences,
                                             ACCUMULATE divisor, ACCUMULATE* loss, ACCUMULATE* sums, unsigned* ticket) {
    __shared__ ACCUMULATE shared[256];
    SUM_RUNS(count, sums, shared, squared_difference(x[i], targets[i], differences[i]))
    finish_sum(count, sums, divisor, loss, ticket, shared);
}

// dx = *weight factor difference.
extern "C" __global__ void euclidean_backward(int count, const ACCUMULATE* differences, STORAGE* dx, ACCUMULATE factor,
                                              const ACCUMULATE* weight) {
    const ACCUMULATE scale = *weight * factor;
    FOR_EACH(i, count) {
        store(dx[i], scale * differences[i]);
    }
}

__device__ __forceinline__ bool is_ignored(ACCUMULATE target, int ignored, int has_ignored) {
    return has_ignored && trunc(target) == ignored;
}

// max(x, 0) - x target + log(1 + exp(-|x|)), which cannot overflow.
__device__ __forceinline__ ACCUMULATE cross_entropy(ACCUMULATE x, ACCUMULATE target) {
    const ACCUMULATE size = x < 0 ? -x : x;
    return (x < 0 ? ACCUMULATE(0) : x) - x * target + log1p(exp(-size));
}

// *loss = the sum of the cross entropies of sigmoid(x) and the targets that are not ignored, / *normalizer: fixed_normalizer,
// or, where that is 0, the number of those targets (at least 1). counts is working memory as sums is.
extern "C" __global__ void cross_entropy_forward(int count, const STORAGE* x, const ACCUMULATE* targets, int ignored,
                                                 int has_ignored, ACCUMULATE fixed_normalizer, ACCUMULATE* normalizer,
                                                 ACCUMULATE* loss, ACCUMULATE* sums, ACCUMULATE* counts, unsigned* ticket) {
    __shared__ ACCUMULATE shared[256];
    SUM_RUNS(count, sums, shared,
             is_ignored(targets[i], ignored, has_ignored) ? ACCUMULATE(0) : cross_entropy(load(x[i]), targets[i]))
    SUM_RUNS(count, counts, shared, is_ignored(targets[i], ignored, has_ignored) ? 0 : 1)
    if (is_last_block(ticket)) {
        const int runs = count / RUN + (count % RUN > 0);
        const ACCUMULATE sum = sum_of(sums, runs, shared), valid = sum_of(counts, runs, shared);
        if (threadIdx.x == 0) {
            *normalizer = fixed_normalizer > 0 ? fixed_normalizer : max(valid, ACCUMULATE(1));
            *loss = sum / *normalizer;
        }
    }
}

// dx = *weight / *normalizer (sigmoid(x) - target), 0 where the target is ignored.
extern "C" __global__ void cross_entropy_backward(int count, const STORAGE* x, const ACCUMULATE* targets, STORAGE* dx, int ignored,
                                                  int has_ignored, const ACCUMULATE* weight, const ACCUMULATE* normalizer) {
    const ACCUMULATE scale = *weight / *normalizer;
    FOR_EACH(i, count) {
        const ACCUMULATE sigmoid = 0.5f * tanh(0.5f * load(x[i])) + 0.5f;
        store(dx[i], is_ignored(targets[i], ignored, has_ignored) ? ACCUMULATE(0) : scale * (sigmoid - targets[i]));
    }
}

// The margin of value i of (rows, classes): max(1 - s x, 0), with s = 1 at the label and -1 elsewhere.
__device__ __forceinline__ ACCUMULATE margin_of(int i, const STORAGE* x, const Labels& labels) {
    const int row = static_cast<unsigned>(i) / static_cast<unsigned>(labels.classes), k = i - row * labels.classes;
    const int label = k == 0 ? checked_class_at(labels, row) : class_at(labels, row);
    const ACCUMULATE margin = 1 + (k == label ? -load(x[i]) : load(x[i]));
    return margin < 0 ? ACCUMULATE(0) : margin;
}

__device__ __forceinline__ ACCUMULATE power_of(ACCUMULATE margin, int is_squared) {
    return is_squared ? margin * margin : margin;
}

// *loss = the sum of the margins, or of their squares, / divisor; margins are kept for backward. x is (rows, classes).
extern "C" __global__ void hinge_forward(int count, const STORAGE* x, ACCUMULATE* margins, int classes,
                                         const ACCUMULATE* label_values, unsigned long long* fault, int is_squared,
                                         ACCUMULATE divisor, ACCUMULATE* loss, ACCUMULATE* sums, unsigned* ticket) {
    __shared__ ACCUMULATE shared[256];
    const Labels labels = {label_values, classes, 0, 0, fault};
    SUM_RUNS(count, sums, shared, power_of(margins[i] = margin_of(i, x, labels), is_squared))
    finish_sum(count, sums, divisor, loss, ticket, shared);
}

// dx = -s *weight / divisor where the margin is above 0, or 2 margin times that if squared.
extern "C" __global__ void hinge_backward(int count, const ACCUMULATE* margins, STORAGE* dx, int classes,
                                          const ACCUMULATE* label_values, int is_squared, ACCUMULATE divisor,
                                          const ACCUMULATE* weight) {
    const Labels labels = {label_values, classes, 0, 0, 0};
    const ACCUMULATE scale = *weight / divisor;
    FOR_EACH(i, count) {
        const int row = static_cast<unsigned>(i) / static_cast<unsigned>(classes), k = i - row * classes;
        const ACCUMULATE slope = is_squared ? 2 * margins[i] : margins[i] > 0 ? ACCUMULATE(1) : ACCUMULATE(0);
        store(dx[i], (k == class_at(labels, row) ? -scale : scale) * slope);
    }
}
