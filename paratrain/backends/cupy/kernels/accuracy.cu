// The share of positions whose label is among the top_k highest scores. Scores lie as in softmax.cu.

#include "blocks.cuh"
#include "labels.cuh"

#define MOST_THREADS 256

// right[position] = 1 where fewer than top_k other classes score at least as high as the label's, else 0; -1 where the label does
// not count. What is no number counts as at least as high. One block for each position, whose scores begin at
// position / inner * classes * inner + position % inner and lie `inner` apart; *share = the mean of those that count.
extern "C" __global__ void accuracy(int positions, const STORAGE* x, int classes, int inner, const ACCUMULATE* label_values,
                                    int ignored, int has_ignored, unsigned long long* fault, int top_k, ACCUMULATE* right,
                                    ACCUMULATE* share, unsigned* ticket) {
    __shared__ ACCUMULATE shared[MOST_THREADS];
    __shared__ int label;
    const Labels labels = {label_values, classes, ignored, has_ignored, fault};
    for (int position = blockIdx.x; position < positions; position += gridDim.x) {
        const int outer = position / inner;
        const STORAGE* scores = x + static_cast<long long>(outer) * classes * inner + (position - outer * inner);
        __syncthreads();
        if (threadIdx.x == 0) {
            label = checked_class_at(labels, position);
        }
        __syncthreads();
        if (label < 0) {
            if (threadIdx.x == 0) {
                right[position] = -1;
            }
            continue;
        }
        const ACCUMULATE wanted = load(scores[static_cast<long long>(label) * inner]);
        ACCUMULATE not_lower = 0;
        for (int k = threadIdx.x; k < classes; k += blockDim.x) {
            not_lower += k != label && !(load(scores[static_cast<long long>(k) * inner]) < wanted);
        }
        not_lower = block_sum(not_lower, shared);
        if (threadIdx.x == 0) {
            right[position] = not_lower < top_k ? 1 : 0;
        }
    }
    if (!is_last_block(ticket)) {
        return;
    }
    ACCUMULATE found = 0, count = 0;
    for (int position = threadIdx.x; position < positions; position += blockDim.x) {
        const ACCUMULATE value = __ldcg(right + position);
        found += value > 0 ? value : ACCUMULATE(0);
        count += value >= 0 ? 1 : 0;
    }
    found = block_sum(found, shared);
    count = block_sum(count, shared);
    if (threadIdx.x == 0) {
        *share = static_cast<double>(found) / max(static_cast<double>(count), 1.0);
    }
}

// shares[k] = the mean of `right` over the positions of class k, 0 for a class that does not occur. One block for each class.
extern "C" __global__ void accuracy_of_classes(int positions, int classes, const ACCUMULATE* label_values,
                                               const ACCUMULATE* right, ACCUMULATE* shares) {
    __shared__ ACCUMULATE shared[MOST_THREADS];
    const Labels labels = {label_values, classes, 0, 0, 0};
    for (int k = blockIdx.x; k < classes; k += gridDim.x) {
        ACCUMULATE found = 0, count = 0;
        for (int position = threadIdx.x; position < positions; position += blockDim.x) {
            if (right[position] >= 0 && class_at(labels, position) == k) {
                found += right[position];
                count += 1;
            }
        }
        found = block_sum(found, shared);
        count = block_sum(count, shared);
        if (threadIdx.x == 0) {
            shares[k] = static_cast<double>(found) / max(static_cast<double>(count), 1.0);
        }
    }
}
