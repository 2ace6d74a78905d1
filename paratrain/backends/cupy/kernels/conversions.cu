// Copies of parameters in the type and order that products want, and gradients back from those: of many layers in one launch.

#include "table.cuh"

// So many values of a thread, blockDim.x apart: all are read before the first is written.
enum { EACH = 8 };

// Where the source has value i of the target. Of a row with channels last one of the two lies so, the source if `from_last`, and the
// other is plain.
__device__ __forceinline__ long long other_place(int i, const Row& row, int from_last) {
    if (!row.channels_last) {
        return i;
    }
    const int channels = row.channels, pixels = row.pixels;
    const Place place = place_of(i, channels, pixels, !from_last);
    return index_of(place.image, place.channel, place.pixel, channels, pixels, from_last);
}

// For each row: target = source, converted. The source is plain, (N, C, pixels) with channels second, the target the same with
// channels last if so. Threads follow the order of what is written.
extern "C" __global__ void convert_weights(int rows, const long long* table) {
    const Row row = row_of_block(rows, table);
    const ACCUMULATE* const source = reinterpret_cast<const ACCUMULATE*>(row.source);
    STORAGE* const target = reinterpret_cast<STORAGE*>(row.target);
    const long long first = (blockIdx.x - row.first_block) * blockDim.x * EACH + threadIdx.x;
    ACCUMULATE values[EACH];
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
        const long long i = first + k * blockDim.x;
        if (i < row.count) {
            values[k] = source[other_place(i, row, 0)];
        }
    }
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
        const long long i = first + k * blockDim.x;
        if (i < row.count) {
            store(target[i], values[k]);
        }
    }
}

// For each row the way back: target = source, or target += source where the row says so. The target is plain.
extern "C" __global__ void convert_gradients(int rows, const long long* table) {
    const Row row = row_of_block(rows, table);
    const STORAGE* const source = reinterpret_cast<const STORAGE*>(row.source);
    ACCUMULATE* const target = reinterpret_cast<ACCUMULATE*>(row.target);
    const long long first = (blockIdx.x - row.first_block) * blockDim.x * EACH + threadIdx.x;
    ACCUMULATE values[EACH];
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
        const long long i = first + k * blockDim.x;
        if (i < row.count) {
            values[k] = load(source[other_place(i, row, 1)]);
        }
    }
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
        const long long i = first + k * blockDim.x;
        if (i < row.count) {
            target[i] = row.accumulate ? target[i] + values[k] : values[k];
        }
    }
}
