// Softmax, and the multinomial logistic loss of it.
//
// Scores are (outer, classes, inner); a position is one of outer * inner, in that order, as labels are. The scores of a
// position begin at start_of and lie `inner` apart. With channels last (and classes the channels) inner is 1.
// Two kernels for each task: "rows" has one block for each position and needs inner = 1, so that neighbouring threads read
// neighbouring classes; "positions" has one thread for each, for many positions.
// Probabilities are ACCUMULATE, in the order of the scores.

#include "blocks.cuh"
#include "labels.cuh"

#define MOST_THREADS 512

__device__ __forceinline__ long long start_of(int position, int classes, int inner) {
    const unsigned outer = static_cast<unsigned>(position) / static_cast<unsigned>(inner);
    return static_cast<long long>(outer) * classes * inner + (position - static_cast<int>(outer) * inner);
}

// The largest value of the threads of a block, for all of them; what is no number does not count.
__device__ __forceinline__ ACCUMULATE block_max(ACCUMULATE value, ACCUMULATE* shared) {
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int width = blockDim.x / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) {
            shared[threadIdx.x] = max(shared[threadIdx.x], shared[threadIdx.x + width]);
        }
        __syncthreads();
    }
    return shared[0];
}

// p = exp(x - max) / sum of exp(x - max) of `classes` neighbours, by a block. p may be x. Each thread writes what it reads.
__device__ __forceinline__ void softmax_row(const STORAGE* x, ACCUMULATE* p, int classes, ACCUMULATE* shared) {
    ACCUMULATE highest = load(x[0]), sum = 0;
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        highest = max(highest, load(x[k]));
    }
    highest = block_max(highest, shared);
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        sum += exp(load(x[k]) - highest);
    }
    sum = block_sum(sum, shared);
    for (int k = threadIdx.x; k < classes; k += blockDim.x) {
        p[k] = exp(load(x[k]) - highest) / sum;
    }
}

// The same by one thread, with scores `inner` apart.
__device__ __forceinline__ void softmax_position(const STORAGE* x, ACCUMULATE* p, int classes, int inner) {
    ACCUMULATE highest = load(x[0]), sum = 0;
    for (int k = 1; k < classes; ++k) {
        highest = max(highest, load(x[static_cast<long long>(k) * inner]));
    }
    for (int k = 0; k < classes; ++k) {
        sum += exp(load(x[static_cast<long long>(k) * inner]) - highest);
    }
    for (int k = 0; k < classes; ++k) {
        p[static_cast<long long>(k) * inner] = exp(load(x[static_cast<long long>(k) * inner]) - highest) / sum;
    }
}

extern "C" __global__ void softmax_rows(int positions, const STORAGE* x, ACCUMULATE* p, int classes, int inner) {
    __shared__ ACCUMULATE shared[MOST_THREADS];
    for (int row = blockIdx.x; row < positions; row += gridDim.x) {
        const long long start = static_cast<long long>(row) * classes;
        softmax_row(x + start, p + start, classes, shared);
    }
}

extern "C" __global__ void softmax_positions(int positions, const STORAGE* x, ACCUMULATE* p, int classes, int inner) {
    FOR_EACH(position, positions) {
        const long long start = start_of(position, classes, inner);
        softmax_position(x + start, p + start, classes, inner);
    }
}

// dx = p (dp - the sum of p dp over the classes), all in one order. dx may be dp where both are of one type.
extern "C" __global__ void softmax_backward_rows(int positions, const ACCUMULATE* p, const ACCUMULATE* dp, STORAGE* dx,
                                                 int classes, int inner) {
    __shared__ ACCUMULATE shared[MOST_THREADS];
    for (int row = blockIdx.x; row < positions; row += gridDim.x) {
        const long long start = static_cast<long long>(row) * classes;
        ACCUMULATE sum = 0;
        for (int k = threadIdx.x; k < classes; k += blockDim.x) {
            sum += p[start + k] * dp[start + k];
        }
        sum = block_sum(sum, shared);
        for (int k = threadIdx.x; k < classes; k += blockDim.x) {
            store(dx[start + k], p[start + k] * (dp[start + k] - sum));
        }
    }
}

extern "C" __global__ void softmax_backward_positions(int positions, const ACCUMULATE* p, const ACCUMULATE* dp, STORAGE* dx,
                                                      int classes, int inner) {
    FOR_EACH(position, positions) {
        const long long start = start_of(position, classes, inner), stop = start + static_cast<long long>(classes) * inner;
        ACCUMULATE sum = 0;
        for (long long i = start; i < stop; i += inner) {
            sum += p[i] * dp[i];
        }
        for (long long i = start; i < stop; i += inner) {
            store(dx[i], p[i] * (dp[i] - sum));
        }
    }
}

// -log(max(p, the least normal float)). What is no number stays so.
__device__ __forceinline__ ACCUMULATE loss_of(ACCUMULATE p) {
    const ACCUMULATE least = 1.17549435e-38f;
    return -log(p < least ? least : p);
}

// The end of a forward pass, by all blocks: *loss = the sum of the parts / *normalizer, which is fixed_normalizer or, where
// that is 0, the number of labels that count (at least 1).
__device__ __forceinline__ void finish_loss(const ACCUMULATE* losses, const ACCUMULATE* counts, int parts,
                                            ACCUMULATE fixed_normalizer, ACCUMULATE* loss, ACCUMULATE* normalizer,
                                            unsigned* ticket, ACCUMULATE* shared) {
    if (is_last_block(ticket)) {
        const ACCUMULATE sum = sum_of(losses, parts, shared), count = sum_of(counts, parts, shared);
        if (threadIdx.x == 0) {
            *normalizer = fixed_normalizer > 0 ? fixed_normalizer : max(count, ACCUMULATE(1));
            *loss = sum / *normalizer;
        }
    }
}

// p = softmax of x, and the loss of the labels, see finish_loss. losses and counts are working memory: a value for each row.
extern "C" __global__ void softmax_loss_rows(int positions, const STORAGE* x, ACCUMULATE* p, int classes, int inner,
                                             const ACCUMULATE* label_values, int ignored, int has_ignored,
                                             unsigned long long* fault, ACCUMULATE* losses, ACCUMULATE* counts,
                                             ACCUMULATE fixed_normalizer, ACCUMULATE* loss, ACCUMULATE* normalizer,
                                             unsigned* ticket) {
    __shared__ ACCUMULATE shared[MOST_THREADS];
    const Labels labels = {label_values, classes, ignored, has_ignored, fault};
    for (int row = blockIdx.x; row < positions; row += gridDim.x) {
        const long long start = static_cast<long long>(row) * classes;
        softmax_row(x + start, p + start, classes, shared);
        __syncthreads();
        if (threadIdx.x == 0) {
            const int label = checked_class_at(labels, row);
            losses[row] = label < 0 ? ACCUMULATE(0) : loss_of(p[start + label]);
            counts[row] = label < 0 ? 0 : 1;
        }
    }
    finish_loss(losses, counts, positions, fixed_normalizer, loss, normalizer, ticket, shared);
}

// The same; losses and counts hold a value for each run of blockDim.x positions.
extern "C" __global__ void softmax_loss_positions(int positions, const STORAGE* x, ACCUMULATE* p, int classes, int inner,
                                                  const ACCUMULATE* label_values, int ignored, int has_ignored,
                                                  unsigned long long* fault, ACCUMULATE* losses, ACCUMULATE* counts,
                                                  ACCUMULATE fixed_normalizer, ACCUMULATE* loss, ACCUMULATE* normalizer,
                                                  unsigned* ticket) {
    __shared__ ACCUMULATE shared[MOST_THREADS];
    const Labels labels = {label_values, classes, ignored, has_ignored, fault};
    const int threads = blockDim.x, runs = positions / threads + (positions % threads > 0);
    for (int run = blockIdx.x; run < runs; run += gridDim.x) {
        const long long position = static_cast<long long>(run) * threads + threadIdx.x;
        ACCUMULATE own_loss = 0, own_count = 0;
        if (position < positions) {
            const long long start = start_of(position, classes, inner);
            softmax_position(x + start, p + start, classes, inner);
            const int label = checked_class_at(labels, position);
            if (label >= 0) {
                own_loss = loss_of(p[start + static_cast<long long>(label) * inner]);
                own_count = 1;
            }
        }
        own_loss = block_sum(own_loss, shared);
        own_count = block_sum(own_count, shared);
        if (threadIdx.x == 0) {
            losses[run] = own_loss;
            counts[run] = own_count;
        }
    }
    finish_loss(losses, counts, runs, fixed_normalizer, loss, normalizer, ticket, shared);
}

// dx = *weight / *normalizer (p - 1 at the label), 0 where the label does not count; dx lies in the order of p.
extern "C" __global__ void softmax_loss_backward(int count, const ACCUMULATE* p, STORAGE* dx, int classes, int inner,
                                                 const ACCUMULATE* label_values, int ignored, int has_ignored,
                                                 const ACCUMULATE* weight, const ACCUMULATE* normalizer) {
    const Labels labels = {label_values, classes, ignored, has_ignored, 0};
    const ACCUMULATE scale = *weight / *normalizer;
    const unsigned width = inner, depth = classes;
    FOR_EACH(i, count) {
        const unsigned value = i, row = value / width, outer = row / depth;
        const int k = row - outer * depth, label = class_at(labels, outer * width + (value - row * width));
        store(dx[i], label < 0 ? ACCUMULATE(0) : scale * (p[i] - (k == label)));
    }
}
