// What the kernels have in common. It stands before the text of every family (see paratrain/backends/cupy/modules.py).
//
// A family is compiled once for each type in which values are stored: STORAGE is float, double, __half or __nv_bfloat16.
// Sums, factors and everything in between are ACCUMULATE: double for double, else float.
//
// Kernels are extern "C", take counts and sizes as int (a blob has fewer than 2^31 values), factors as ACCUMULATE, and walk
// over their values with FOR_EACH, so that any number of blocks gives the same result. Nothing here uses atomics: sums are
// made in a fixed order, and two runs give the same bits.

#if defined(STORAGE_IS_HALF)
#include <cuda_fp16.h>
typedef __half STORAGE;
typedef float ACCUMULATE;
__device__ __forceinline__ float load(const STORAGE& value) { return __half2float(value); }
__device__ __forceinline__ void store(STORAGE& place, float value) { place = __float2half_rn(value); }
#elif defined(STORAGE_IS_BFLOAT16)
#include <cuda_bf16.h>
typedef __nv_bfloat16 STORAGE;
typedef float ACCUMULATE;
__device__ __forceinline__ float load(const STORAGE& value) { return __bfloat162float(value); }
__device__ __forceinline__ void store(STORAGE& place, float value) { place = __float2bfloat16_rn(value); }
#elif defined(STORAGE_IS_DOUBLE)
typedef double STORAGE;
typedef double ACCUMULATE;
__device__ __forceinline__ double load(const STORAGE& value) { return value; }
__device__ __forceinline__ void store(STORAGE& place, double value) { place = value; }
#else
typedef float STORAGE;
typedef float ACCUMULATE;
__device__ __forceinline__ float load(const STORAGE& value) { return value; }
__device__ __forceinline__ void store(STORAGE& place, float value) { place = value; }
#endif

// Every value i below count, by the threads of a grid of one axis. 64 bits only where the step could pass 2^31.
#define FOR_EACH(i, count)                                                                                   \
    for (long long i##_wide = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, i = i##_wide;   \
         i##_wide < (count); i##_wide += static_cast<long long>(gridDim.x) * blockDim.x, i = i##_wide)

// The same by fours: i is the first of four neighbours, of which the last may lie beyond count.
#define FOR_EACH_FOUR(i, count)                                                                  \
    for (long long i = 4 * (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x); i < (count); \
         i += 4 * static_cast<long long>(gridDim.x) * blockDim.x)

// Reads and writes the first `present` of four neighbours; all four at once where they lie on a boundary of four.
struct __align__(4 * sizeof(STORAGE)) Four {
    STORAGE values[4];
};

__device__ __forceinline__ void load_four(const STORAGE* from, ACCUMULATE (&to)[4], int present) {
    if (present >= 4 && reinterpret_cast<size_t>(from) % sizeof(Four) == 0) {
        const Four four = *reinterpret_cast<const Four*>(from);
        for (int k = 0; k < 4; ++k) {
            to[k] = load(four.values[k]);
        }
    } else {
        for (int k = 0; k < 4; ++k) {
            to[k] = k < present ? load(from[k]) : ACCUMULATE(0);
        }
    }
}

__device__ __forceinline__ void store_four(STORAGE* to, const ACCUMULATE (&from)[4], int present) {
    if (present >= 4 && reinterpret_cast<size_t>(to) % sizeof(Four) == 0) {
        Four four;
        for (int k = 0; k < 4; ++k) {
            store(four.values[k], from[k]);
        }
        *reinterpret_cast<Four*>(to) = four;
    } else {
        for (int k = 0; k < 4 && k < present; ++k) {
            store(to[k], from[k]);
        }
    }
}

// Where value i of an array (N, C, pixels), in memory order, belongs: channels_last tells whether channels lie innermost.
struct Place {
    int image, channel, pixel;
};

__device__ __forceinline__ Place place_of(int i, int channels, int pixels, int channels_last) {
    const unsigned value = i, inner = channels_last ? channels : pixels, outer = value / inner;
    const unsigned middle = channels_last ? pixels : channels, image = outer / middle;
    Place place;
    place.image = image;
    place.channel = channels_last ? value - outer * inner : outer - image * middle;
    place.pixel = channels_last ? outer - image * middle : value - outer * inner;
    return place;
}

__device__ __forceinline__ long long index_of(int image, int channel, int pixel, int channels, int pixels, int channels_last) {
    return channels_last ? (static_cast<long long>(image) * pixels + pixel) * channels + channel
                         : (static_cast<long long>(image) * channels + channel) * pixels + pixel;
}

// The sum of one value of each thread of the block, in a fixed order, for all threads of it. The block has a power of two of
// threads, at most 1024, and room for as many values in shared; all threads must call it.
__device__ __forceinline__ ACCUMULATE block_sum(ACCUMULATE value, ACCUMULATE* shared) {
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int width = blockDim.x / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) {
            shared[threadIdx.x] += shared[threadIdx.x + width];
        }
        __syncthreads();
    }
    return shared[0];
}

// COUNT neighbouring values that one load or store moves together. Where their bytes are a power of two, up to 16, and the
// address is a multiple of that, this is one instruction. PACK fills 16 bytes: narrow values need it to keep the memory busy.
template <typename T, int COUNT> struct alignas(sizeof(T) * COUNT) Pack {
    T values[COUNT];
};
enum { PACK = 16 / sizeof(STORAGE) };
