// The random numbers of paratrain/random.py: each is named by a key and a number, whoever draws it and in whatever order.

// Element `index` of the stream of `key`: a multiple of 2^-24 in [0, 1), the upper bits of SplitMix64's finalizer.
__device__ __forceinline__ float uniform_at(unsigned long long key, unsigned long long index) {
    unsigned long long z = key + (index + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    return static_cast<float>(static_cast<unsigned>(z >> 40)) * 5.9604644775390625e-8f;
}

// The element that belongs to value j of row i of this rank's part of a batch, `inner` values to a row: row i of the rank is
// row first_row + i row_step of the effective batch.
__device__ __forceinline__ unsigned long long element_of(unsigned i, unsigned j, unsigned inner, unsigned first_row,
                                                         unsigned row_step) {
    return (first_row + static_cast<unsigned long long>(i) * row_step) * inner + j;
}
