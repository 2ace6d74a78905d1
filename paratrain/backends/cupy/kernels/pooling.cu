// Pooling by kernels of up to 255 places, AVE by any, and pooling of whole images. How windows lie: windows.cuh.

#include "windows.cuh"

// One over the pixels that window (row, column) has inside the padded image: what Caffe divides by.
__device__ __forceinline__ ACCUMULATE share_of(const Windows& w, int row, int column) {
    const int y = row * w.stride_height - w.pad_height, x = column * w.stride_width - w.pad_width;
    const int rows = min(y + w.kernel_height, w.height + w.pad_height) - y;
    const int columns = min(x + w.kernel_width, w.width + w.pad_width) - x;
    return ACCUMULATE(1) / (rows * columns);
}

// top = the mean of each window. count is that of the packs of the top.
template <int WIDTH>
__device__ __forceinline__ void average_forward_of(int count, const STORAGE* bottom, STORAGE* top, const Windows w) {
    typedef Pack<STORAGE, WIDTH> Values;
    const int step = w.channels_last ? w.channels : 1;
    FOR_EACH(i, count) {
        const Place place = place_of(i, w.channels, w.top_height * w.top_width, w.channels_last);
        const Window window = window_of(w, place.pixel);
        const Values* image = reinterpret_cast<const Values*>(bottom)
            + index_of(place.image, place.channel, 0, w.channels, w.height * w.width, w.channels_last);
        ACCUMULATE sums[WIDTH] = {};
        for (int row = window.first_row; row < window.end_row; ++row) {
            for (int column = window.first_column; column < window.end_column; ++column) {
                const Values pixel = image[(row * w.width + column) * step];
                for (int k = 0; k < WIDTH; ++k) {
                    sums[k] += load(pixel.values[k]);
                }
            }
        }
        const ACCUMULATE share = share_of(w, place.pixel / w.top_width, place.pixel % w.top_width);
        Values result;
        for (int k = 0; k < WIDTH; ++k) {
            store(result.values[k], sums[k] * share);
        }
        reinterpret_cast<Values*>(top)[i] = result;
    }
}

// dx = the sum of dy / (pixels of the window) over the windows that hold this place. count is that of the packs of the bottom.
template <int WIDTH>
__device__ __forceinline__ void average_backward_of(int count, const STORAGE* dy, STORAGE* dx, const Windows w) {
    typedef Pack<STORAGE, WIDTH> Values;
    const int step = w.channels_last ? w.channels : 1;
    FOR_EACH(i, count) {
        const Place place = place_of(i, w.channels, w.height * w.width, w.channels_last);
        const int y = place.pixel / w.width + w.pad_height, x = place.pixel % w.width + w.pad_width;
        const Holders rows = holders_of(y, w.kernel_height, w.stride_height, w.top_height);
        const Holders columns = holders_of(x, w.kernel_width, w.stride_width, w.top_width);
        const Values* gradients = reinterpret_cast<const Values*>(dy)
            + index_of(place.image, place.channel, 0, w.channels, w.top_height * w.top_width, w.channels_last);
        ACCUMULATE sums[WIDTH] = {};
        for (int row = rows.first; row < rows.end; ++row) {
            for (int column = columns.first; column < columns.end; ++column) {
                const Values gradient = gradients[(row * w.top_width + column) * step];
                const ACCUMULATE share = share_of(w, row, column);
                for (int k = 0; k < WIDTH; ++k) {
                    sums[k] += load(gradient.values[k]) * share;
                }
            }
        }
        Values result;
        for (int k = 0; k < WIDTH; ++k) {
            store(result.values[k], sums[k]);
        }
        reinterpret_cast<Values*>(dx)[i] = result;
    }
}

#define AVERAGE_KERNELS(suffix, WIDTH)                                                                                           \
    extern "C" __global__ void average_forward##suffix(int count, const STORAGE* bottom, STORAGE* top, WINDOWS) {                \
        average_forward_of<WIDTH>(count, bottom, top, THESE_WINDOWS);                                                            \
    }                                                                                                                            \
    extern "C" __global__ void average_backward##suffix(int count, const STORAGE* dy, STORAGE* dx, WINDOWS) {                    \
        average_backward_of<WIDTH>(count, dy, dx, THESE_WINDOWS);                                                                \
    }

AVERAGE_KERNELS(, 1)
AVERAGE_KERNELS(_packed, PACK)
CHOOSING_KERNELS(, 1, unsigned char)
CHOOSING_KERNELS(_packed, PACK, unsigned char)

// Where one window is the whole image: a block of 8 warps makes 32 neighbouring channels of an image (channels last: a lane takes
// a channel, the warps share the pixels) or 8 (a warp takes a channel, the lanes share the pixels). What the threads have found
// of a channel is then put together, always in the same pairs.
//
// top = the mean, or with `is_maximum` the largest value; `chosen`, unless null, its place y * width + x, see max_forward().
extern "C" __global__ void global_forward(int images, const STORAGE* bottom, STORAGE* top, int* chosen, int channels, int pixels,
                                          int channels_last, int is_maximum) {
    enum { LANES = 32, WARPS = 8 };
    __shared__ ACCUMULATE values[LANES * WARPS];
    __shared__ int places[LANES * WARPS];
    const int thread = threadIdx.x, lane = thread % LANES, warp = thread / LANES;
    // Which channel of the block's this thread works for, which of its sharers it is, and how far apart those are.
    const int number = channels_last ? lane : warp, share = channels_last ? warp : lane;
    const int shares = channels_last ? WARPS : LANES, distance = channels_last ? LANES : 1;
    const int channels_of_block = channels_last ? LANES : WARPS;
    const int blocks_of_image = (channels + channels_of_block - 1) / channels_of_block;
    for (int work = blockIdx.x; work < images * blocks_of_image; work += gridDim.x) {
        const int image = work / blocks_of_image, channel = work % blocks_of_image * channels_of_block + number;
        ACCUMULATE value = 0;
        int place = pixels;  // none yet
        if (channel < channels) {
            const STORAGE* first = bottom + index_of(image, channel, 0, channels, pixels, channels_last);
            const int step = channels_last ? channels : 1;
            for (int pixel = share; pixel < pixels; pixel += shares) {
                const ACCUMULATE next = load(first[pixel * step]);
                if (!is_maximum) {
                    value += next;
                } else if (next != next) {
                    value = next;
                    place = NONE;
                } else if (place == pixels || next > value) {
                    value = next;
                    place = pixel;
                }
            }
        }
        values[thread] = value;
        places[thread] = place;
        for (int half = shares / 2; half > 0; half /= 2) {
            __syncthreads();
            if (share < half) {
                const ACCUMULATE next = values[thread + half * distance];
                const int next_place = places[thread + half * distance];
                if (!is_maximum) {
                    value += next;
                } else if (place != NONE && next_place != pixels
                           && (next_place == NONE || place == pixels || next > value || (next == value && next_place < place))) {
                    value = next;
                    place = next_place;
                }
                values[thread] = value;
                places[thread] = place;
            }
        }
        if (share == 0 && channel < channels) {
            store(top[image * channels + channel], is_maximum ? value : value / pixels);
            if (chosen) {
                chosen[image * channels + channel] = place;
            }
        }
        __syncthreads();
    }
}
