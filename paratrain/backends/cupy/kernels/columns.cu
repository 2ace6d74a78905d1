// Blobs side by side along an axis: matrices of equally many rows, whose columns together are those of a whole.
//
// Only bytes are moved, whatever they mean: a column is a unit of 16, 8, 4 or 2 bytes, the largest of which all parts consist.

// Copy the first `columns` columns from `first_column` on of the whole to the parts, or with to_whole the other way round; a
// part that is null is left out. Part n ends before column end<n>, counted from first_column, where the next begins; after the
// last all ends are `columns`. `count` is rows * columns. Threads follow the order of the whole.
template <typename UNIT>
__device__ __forceinline__ void exchange(int count, void* whole, int whole_columns, int first_column, int columns,
                                         int to_whole, void* const (&parts)[8], const int (&ends)[8]) {
    FOR_EACH(i, count) {
        const unsigned row = static_cast<unsigned>(i) / columns;
        const int column = static_cast<unsigned>(i) - row * columns;
        void* part = parts[0];
        int begin = 0, end = ends[0];
#pragma unroll
        for (int n = 1; n < 8; ++n) {
            if (column >= ends[n - 1]) {
                part = parts[n];
                begin = ends[n - 1];
                end = ends[n];
            }
        }
        if (part != nullptr) {
            UNIT& outside = static_cast<UNIT*>(whole)[static_cast<long long>(row) * whole_columns + first_column + column];
            UNIT& inside = static_cast<UNIT*>(part)[static_cast<long long>(row) * (end - begin) + column - begin];
            if (to_whole) {
                outside = inside;
            } else {
                inside = outside;
            }
        }
    }
}

#define EXCHANGE_KERNEL(name, UNIT)                                                                                              \
    extern "C" __global__ void name(int count, void* whole, int whole_columns, int first_column, int columns, int to_whole,      \
                                    void* part0, void* part1, void* part2, void* part3, void* part4, void* part5,                \
                                    void* part6, void* part7, int end0, int end1, int end2, int end3, int end4, int end5,        \
                                    int end6, int end7) {                                                                        \
        void* const parts[] = {part0, part1, part2, part3, part4, part5, part6, part7};                                          \
        const int ends[] = {end0, end1, end2, end3, end4, end5, end6, end7};                                                     \
        exchange<UNIT>(count, whole, whole_columns, first_column, columns, to_whole, parts, ends);                               \
    }

EXCHANGE_KERNEL(exchange_2, unsigned short)
EXCHANGE_KERNEL(exchange_4, unsigned)
EXCHANGE_KERNEL(exchange_8, uint2)
EXCHANGE_KERNEL(exchange_16, uint4)
