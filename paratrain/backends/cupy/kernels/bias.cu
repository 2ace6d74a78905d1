// A bias for each channel, the ReLU that may follow it, and both backwards.
//
// Values are (N, C, pixels) with channels second or last; a matrix (rows, C) is what has one pixel, or channels last. Biases and
// their gradients are ACCUMULATE whatever the values are.

#include "table.cuh"

__device__ __forceinline__ ACCUMULATE with_relu(ACCUMULATE value, int has_relu, ACCUMULATE slope) {
    return has_relu && !(value > 0) ? slope * value : value;
}

// y = y + bias of its channel, and where has_relu then y where y > 0, else slope y. bias may be null: none is added.
extern "C" __global__ void add_bias(int count, STORAGE* y, const ACCUMULATE* bias, int channels, int pixels, int channels_last,
                                    int has_relu, ACCUMULATE slope) {
    const unsigned run = channels_last ? 1 : pixels, modulus = channels;
    FOR_EACH(i, count) {
        ACCUMULATE value = load(y[i]);
        if (bias != nullptr) {
            value += bias[static_cast<unsigned>(i) / run % modulus];
        }
        store(y[i], with_relu(value, has_relu, slope));
    }
}

// The same with a thread for each PACK of values, which begins at a multiple of 16 bytes and lies in one channel, or with
// channels_last in one pixel. count = values / PACK.
extern "C" __global__ void add_bias_packed(int count, STORAGE* y, const ACCUMULATE* bias, int channels, int pixels,
                                           int channels_last, int has_relu, ACCUMULATE slope) {
    typedef Pack<STORAGE, PACK> Values;
    const unsigned run = channels_last ? 1 : pixels, modulus = channels;
    const int step = channels_last ? 1 : 0;
    FOR_EACH(i, count) {
        const unsigned channel = static_cast<unsigned>(i) * PACK / run % modulus;
        Values values = reinterpret_cast<const Values*>(y)[i];
        for (int k = 0; k < PACK; ++k) {
            const ACCUMULATE value = load(values.values[k]);
            store(values.values[k], with_relu(bias == nullptr ? value : value + bias[channel + k * step], has_relu, slope));
        }
        reinterpret_cast<Values*>(y)[i] = values;
    }
}

// The gradient before the ReLU: dy where y > 0, else slope dy.
__device__ __forceinline__ ACCUMULATE through_relu(const STORAGE& dy, const STORAGE& y, ACCUMULATE slope) {
    const ACCUMULATE gradient = load(dy);
    return load(y) > 0 ? gradient : slope * gradient;
}

// The body of the kernels that sum rows, for one of the blocks that work on dy. The 256 threads of a block lie in rows of `lanes`,
// each of which has COUNT neighbouring channels: (channels / lanes / COUNT, rounded up) blocks have a part of the rows. Each thread
// adds up the rows that are 256 / lanes apart, then the sums of the threads that have the same channels are added in their order.
template <int COUNT>
__device__ __forceinline__ void sum_rows_body(int block, int rows, int channels, int lanes, int parts, const STORAGE* dy,
                                              const STORAGE* y, STORAGE* dx, ACCUMULATE slope, ACCUMULATE* sums,
                                              int accumulate) {
    typedef Pack<STORAGE, COUNT> Values;
    __shared__ ACCUMULATE shared[256 * COUNT];
    const int width = lanes * COUNT, tiles = (channels + width - 1) / width, part = block / tiles;
    const int first = (block - part * tiles) * width, lane = threadIdx.x % lanes, step = 256 / lanes;
    const int channel = first + lane * COUNT, rows_of_part = (rows + parts - 1) / parts, begin = part * rows_of_part;
    const int end = begin + rows_of_part < rows ? begin + rows_of_part : rows;
    ACCUMULATE sum[COUNT];
    for (int k = 0; k < COUNT; ++k) {
        sum[k] = 0;
    }
    if (channel < channels) {
#pragma unroll 4
        for (int row = begin + threadIdx.x / lanes; row < end; row += step) {
            const int i = row * channels + channel;
            Values gradients = *reinterpret_cast<const Values*>(dy + i);
            if (y != nullptr) {
                const Values outputs = *reinterpret_cast<const Values*>(y + i);
                for (int k = 0; k < COUNT; ++k) {
                    store(gradients.values[k], through_relu(gradients.values[k], outputs.values[k], slope));
                }
                *reinterpret_cast<Values*>(dx + i) = gradients;
            }
            for (int k = 0; k < COUNT; ++k) {
                sum[k] += load(gradients.values[k]);
            }
        }
    }
    for (int k = 0; k < COUNT; ++k) {
        shared[threadIdx.x * COUNT + k] = sum[k];
    }
    __syncthreads();
    for (int column = threadIdx.x; column < width && first + column < channels; column += 256) {
        ACCUMULATE total = 0;
        for (int row = 0; row < step; ++row) {
            total += shared[row * width + column];
        }
        ACCUMULATE& target = sums[part * channels + first + column];
        target = accumulate ? target + total : total;
    }
}

// sums[part, channel] = the sum of a part of the rows of dy (rows, channels); with one part and accumulate it is added. Where y is
// given, dy first goes back through the ReLU that gave y, and dx, which may be dy, gets that. lanes is a power of two, at most 256.
extern "C" __global__ void sum_rows(int rows, int channels, int lanes, int parts, const STORAGE* dy, const STORAGE* y, STORAGE* dx,
                                    ACCUMULATE slope, ACCUMULATE* sums, int accumulate) {
    sum_rows_body<1>(blockIdx.x, rows, channels, lanes, parts, dy, y, dx, slope, sums, accumulate);
}

// The same for channels that are a multiple of PACK, in arrays that begin at multiples of 16 bytes.
extern "C" __global__ void sum_rows_packed(int rows, int channels, int lanes, int parts, const STORAGE* dy, const STORAGE* y,
                                           STORAGE* dx, ACCUMULATE slope, ACCUMULATE* sums, int accumulate) {
    sum_rows_body<PACK>(blockIdx.x, rows, channels, lanes, parts, dy, y, dx, slope, sums, accumulate);
}

// For each row of a table: target (channels) = the sum of source (count, channels), or += where the row says so. The lanes stand in
// the place of pixels.
extern "C" __global__ void add_parts(int rows, const long long* table) {
    const Row row = row_of_block(rows, table);
    sum_rows_body<1>(blockIdx.x - row.first_block, row.count, row.channels, row.pixels, 1,
                     reinterpret_cast<const STORAGE*>(row.source), nullptr, nullptr, 0,
                     reinterpret_cast<ACCUMULATE*>(row.target), row.accumulate);
}

// The same as sum_rows for dy (images, channels, pixels): parts of images * pixels values of each channel. Blocks of 256 threads, one for
// each channel of each part.
extern "C" __global__ void sum_planes(int images, int channels, int pixels, int parts, const STORAGE* dy, const STORAGE* y,
                                      STORAGE* dx, ACCUMULATE slope, ACCUMULATE* sums, int accumulate) {
    __shared__ ACCUMULATE shared[256];
    const int part = blockIdx.x / channels, channel = blockIdx.x % channels, count = images * pixels;
    const int count_of_part = (count + parts - 1) / parts, begin = part * count_of_part;
    const unsigned end = begin + count_of_part < count ? begin + count_of_part : count;
    ACCUMULATE sum = 0;
    // Some are read before the first is written, which a compiler would not dare: dx may be dy.
    enum { EACH = 4 };
    for (unsigned first = begin + threadIdx.x; first < end; first += EACH * 256) {
        STORAGE gradients[EACH], outputs[EACH];
        unsigned places[EACH];
#pragma unroll
        for (int k = 0; k < EACH; ++k) {
            const unsigned i = first + k * 256, image = i / static_cast<unsigned>(pixels);
            places[k] = (image * channels + channel) * pixels + (i - image * pixels);
            if (i < end) {
                gradients[k] = dy[places[k]];
                if (y != nullptr) {
                    outputs[k] = y[places[k]];
                }
            }
        }
#pragma unroll
        for (int k = 0; k < EACH; ++k) {
            if (first + k * 256 < end) {
                if (y != nullptr) {
                    store(gradients[k], through_relu(gradients[k], outputs[k], slope));
                    dx[places[k]] = gradients[k];
                }
                sum += load(gradients[k]);
            }
        }
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        ACCUMULATE& target = sums[part * channels + channel];
        target = accumulate ? target + sum : sum;
    }
}
