// Many small pieces of work in one launch: each is a row of a table in the GPU's memory, and has some of the blocks.

// Where the values come from and go to, and what else the kernel asks for; see paratrain/backends/cupy/parameter_work.py.
struct Row {
    long long source, target, count, channels, pixels, channels_last, accumulate;
    long long first_block;  // of those that work on it; the next row's follow
};

// The row that this block works on. There is at least one, and the first begins at block 0.
__device__ __forceinline__ Row row_of_block(int rows, const long long* table) {
    const Row* const all = reinterpret_cast<const Row*>(table);
    int low = 0, high = rows - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (all[middle].first_block <= static_cast<long long>(blockIdx.x)) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return all[low];
}
