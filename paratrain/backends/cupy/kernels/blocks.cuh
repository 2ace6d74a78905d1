// Sums over a whole grid: each block leaves its part in memory, and the last one to end adds them up, in their order.

// Whether this is the last block of the grid to come here: it sees whatever the others have written before. All threads of a
// block must call it. *ticket is 0 before and after. That blocks are counted by an atomic operation changes no result: every
// block writes its own part, and whichever comes last adds them in the same order.
__device__ __forceinline__ bool is_last_block(unsigned* ticket) {
    __threadfence();
    __syncthreads();
    const bool is_last = threadIdx.x == 0 && atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    const bool answer = __syncthreads_or(is_last);
    __threadfence();
    return answer;
}

// The sum of values written by other blocks, for all threads of the block.
__device__ __forceinline__ ACCUMULATE sum_of(const ACCUMULATE* values, int count, ACCUMULATE* shared) {
    ACCUMULATE sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        sum += __ldcg(values + i);  // past the first cache, which knows nothing of other blocks
    }
    return block_sum(sum, shared);
}
