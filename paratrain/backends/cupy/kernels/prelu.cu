// PReLU: y = x where x > 0, else slopes[channel] x.

#include "blocks.cuh"

// The channel of value i; 0 where one slope serves all.
__device__ __forceinline__ int slope_of(int i, int channels, int pixels, int channels_last, int is_shared) {
    return is_shared ? 0 : place_of(i, channels, pixels, channels_last).channel;
}

// y may be x; `kept` gets a copy of x, unless it is null.
extern "C" __global__ void prelu_forward(int count, const STORAGE* x, STORAGE* y, STORAGE* kept, const ACCUMULATE* slopes,
                                         int channels, int pixels, int channels_last, int is_shared) {
    FOR_EACH(i, count) {
        const ACCUMULATE value = load(x[i]);
        if (kept) {
            kept[i] = x[i];
        }
        store(y[i], value > 0 ? value : slopes[slope_of(i, channels, pixels, channels_last, is_shared)] * value);
    }
}

// dx = dy where x > 0, else slopes[channel] dy. dx may be dy.
extern "C" __global__ void prelu_backward(int count, const STORAGE* x, const STORAGE* dy, STORAGE* dx, const ACCUMULATE* slopes,
                                          int channels, int pixels, int channels_last, int is_shared) {
    FOR_EACH(i, count) {
        const ACCUMULATE gradient = load(dy[i]);
        const int slope = slope_of(i, channels, pixels, channels_last, is_shared);
        store(dx[i], load(x[i]) > 0 ? gradient : slopes[slope] * gradient);
    }
}

// slopes_diff[channel] += the sum of dy min(x, 0) over images and pixels, or over everything with is_shared.
//
// `rows` = images * pixels. Block b sums the rows of part b / tiles, `part` of them, for the channels of tile b % tiles: 32 with
// channels last, which lie side by side, else one. sums (parts, channels) is working memory. Blocks of 256 threads.
extern "C" __global__ void prelu_slopes(int rows, const STORAGE* x, const STORAGE* dy, ACCUMULATE* slopes_diff, ACCUMULATE* sums,
                                        unsigned* ticket, int part, int channels, int pixels, int channels_last, int is_shared) {
    __shared__ ACCUMULATE shared[256];
    const int lanes = channels_last ? 32 : 1, tiles = (channels + lanes - 1) / lanes, parts = (rows + part - 1) / part;
    for (int block = blockIdx.x; block < parts * tiles; block += gridDim.x) {
        const int first = block / tiles * part, channel = block % tiles * lanes + threadIdx.x % lanes;
        ACCUMULATE sum = 0;
        for (int row = first + threadIdx.x / lanes; row < rows && row < first + part; row += blockDim.x / lanes) {
            const int image = row / pixels, pixel = row - image * pixels;
            if (channel < channels) {
                const long long i = index_of(image, channel, pixel, channels, pixels, channels_last);
                const ACCUMULATE value = load(x[i]);
                sum += value > 0 ? ACCUMULATE(0) : load(dy[i]) * value;
            }
        }
        __syncthreads();
        shared[threadIdx.x] = sum;
        __syncthreads();
        for (int width = blockDim.x / 2; width >= lanes; width /= 2) {
            if (threadIdx.x < width) {
                shared[threadIdx.x] += shared[threadIdx.x + width];
            }
            __syncthreads();
        }
        if (threadIdx.x < lanes && channel < channels) {
            sums[block / tiles * channels + channel] = shared[threadIdx.x];
        }
    }
    if (!is_last_block(ticket)) {
        return;
    }
    ACCUMULATE all = 0;
    for (int channel = threadIdx.x; channel < channels; channel += blockDim.x) {
        ACCUMULATE sum = 0;
        for (int k = 0; k < parts; ++k) {
            sum += __ldcg(sums + k * channels + channel);
        }
        all += sum;
        if (!is_shared) {
            slopes_diff[channel] += sum;
        }
    }
    all = block_sum(all, shared);
    if (is_shared && threadIdx.x == 0) {
        *slopes_diff += all;
    }
}
