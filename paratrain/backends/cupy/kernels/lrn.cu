// Local response normalization, across channels and within each.
//
//     s_i = k + factor * sum of x_j^2 over the window around i;   y_i = x_i s_i^-beta
//     dx_i = dy_i s_i^-beta - 2 factor beta x_i * sum of r_j over the window around i,   r_j = dy_j x_j s_j^-(beta + 1)
//
// Nothing is kept from forward to backward: s is made again of the bottom, which backward reads anyway. Reading and writing a
// kept s would cost more than adding a few squares, of values that are in the cache. Sums are made anew for each window, not
// carried along, and always in the same order.

// s^-beta; for the usual 3/4 by a reciprocal square root and its root, which are as exact and much quicker.
__device__ __forceinline__ ACCUMULATE inverse_power(ACCUMULATE s, ACCUMULATE beta) {
    if (beta == ACCUMULATE(0.75)) {
        const ACCUMULATE root = rsqrt(s);
        return root * sqrt(root);
    }
    return pow(s, -beta);
}

// Any window, in any order of the values: it reaches `reach` places to both sides on each of two axes. Of an axis it is told how
// many places it has and how far apart they lie; an axis of 1 place stands for none. Threads follow the order of the values.
#define AXES int places, int step, int other_places, int other_step, int reach
#define THESE_AXES                                                                                                               \
    Axes {                                                                                                                       \
        places, step, other_places, other_step, reach                                                                            \
    }

struct Axes {
    int places, step, other_places, other_step, reach;
};

// What lies within reach of value i: from `first` to `last`, included, on each axis, counted from i.
struct Around {
    int first, last, other_first, other_last;
};

__device__ __forceinline__ Around around(unsigned i, const Axes& axes) {
    const int place = i / unsigned(axes.step) % unsigned(axes.places);
    const int other = axes.other_places == 1 ? 0 : i / unsigned(axes.other_step) % unsigned(axes.other_places);
    Around result;
    result.first = -min(axes.reach, place);
    result.last = min(axes.reach, axes.places - 1 - place);
    result.other_first = -min(axes.reach, other);
    result.other_last = min(axes.reach, axes.other_places - 1 - other);
    return result;
}

__device__ __forceinline__ ACCUMULATE scale_at(const STORAGE* x, int i, const Around& a, const Axes& axes, ACCUMULATE k,
                                               ACCUMULATE factor) {
    ACCUMULATE sum = 0;
    for (int one = a.first; one <= a.last; ++one) {
        for (int other = a.other_first; other <= a.other_last; ++other) {
            const ACCUMULATE value = load(x[i + one * axes.step + other * axes.other_step]);
            sum += value * value;
        }
    }
    return k + factor * sum;
}

extern "C" __global__ void window_forward(int count, const STORAGE* x, STORAGE* y, AXES, ACCUMULATE k, ACCUMULATE factor,
                                          ACCUMULATE beta) {
    const Axes axes = THESE_AXES;
    FOR_EACH(i, count) {
        const ACCUMULATE s = scale_at(x, i, around(i, axes), axes, k, factor);
        store(y[i], load(x[i]) * inverse_power(s, beta));
    }
}

// r, see above. Backward is two kernels, this and the next, where a block cannot have all of a window to itself.
extern "C" __global__ void window_ratios(int count, const STORAGE* x, const STORAGE* dy, ACCUMULATE* ratios, AXES, ACCUMULATE k,
                                         ACCUMULATE factor, ACCUMULATE beta) {
    const Axes axes = THESE_AXES;
    FOR_EACH(i, count) {
        const ACCUMULATE s = scale_at(x, i, around(i, axes), axes, k, factor);
        ratios[i] = load(dy[i]) * load(x[i]) * inverse_power(s, beta) / s;
    }
}

extern "C" __global__ void window_backward(int count, const STORAGE* x, const STORAGE* dy, const ACCUMULATE* ratios, STORAGE* dx,
                                           AXES, ACCUMULATE k, ACCUMULATE factor, ACCUMULATE beta) {
    const Axes axes = THESE_AXES;
    FOR_EACH(i, count) {
        const Around a = around(i, axes);
        const ACCUMULATE s = scale_at(x, i, a, axes, k, factor);
        ACCUMULATE sum = 0;
        for (int one = a.first; one <= a.last; ++one) {
            for (int other = a.other_first; other <= a.other_last; ++other) {
                sum += ratios[i + one * axes.step + other * axes.other_step];
            }
        }
        store(dx[i], load(dy[i]) * inverse_power(s, beta) - 2 * factor * beta * load(x[i]) * sum);
    }
}

// Across channels where they come last: a block takes TILE neighbouring values, whatever pixels they belong to, and some more on
// both sides, so that it reads x and dy once and keeps the rest to itself. Grid: any number of blocks of 256 threads. Dynamic
// shared memory: forward TILE + 2 reach, backward 2 (TILE + 4 reach) values of ACCUMULATE. A window ends where its pixel ends.
enum { TILE = 1024 };

// values[p] = x[start + p] for p below length, 0 where there is no such value. All threads of the block have it afterwards.
__device__ __forceinline__ void load_tile(int count, const STORAGE* x, ACCUMULATE* values, long long start, int length) {
    for (int p = threadIdx.x; p < length; p += blockDim.x) {
        const long long i = start + p;
        values[p] = i >= 0 && i < count ? load(x[i]) : ACCUMULATE(0);
    }
    __syncthreads();
}

extern "C" __global__ void channels_last_forward(int count, const STORAGE* x, STORAGE* y, int channels, int reach, ACCUMULATE k,
                                                 ACCUMULATE factor, ACCUMULATE beta) {
    extern __shared__ double shared[];
    ACCUMULATE* const values = reinterpret_cast<ACCUMULATE*>(shared);
    const int tiles = (count - 1) / TILE + 1;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const long long start = static_cast<long long>(tile) * TILE - reach;  // a tile may pass 2^31
        load_tile(count, x, values, start, TILE + 2 * reach);
        for (int p = threadIdx.x + reach; p < TILE + reach && start + p < count; p += blockDim.x) {
            const int channel = static_cast<unsigned>(start + p) % channels;
            ACCUMULATE sum = 0;
            for (int d = -min(reach, channel); d <= min(reach, channels - 1 - channel); ++d) {
                sum += values[p + d] * values[p + d];
            }
            store(y[start + p], values[p] * inverse_power(k + factor * sum, beta));
        }
        __syncthreads();
    }
}

extern "C" __global__ void channels_last_backward(int count, const STORAGE* x, const STORAGE* dy, STORAGE* dx, int channels,
                                                  int reach, ACCUMULATE k, ACCUMULATE factor, ACCUMULATE beta) {
    extern __shared__ double shared[];
    const int length = TILE + 4 * reach, tiles = (count - 1) / TILE + 1;
    ACCUMULATE* const values = reinterpret_cast<ACCUMULATE*>(shared);
    ACCUMULATE* const shares = values + length;  // dy s^-(beta + 1)
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const long long start = static_cast<long long>(tile) * TILE - 2 * reach;
        load_tile(count, x, values, start, length);
        for (int p = threadIdx.x + reach; p < length - reach; p += blockDim.x) {
            const long long i = start + p;
            ACCUMULATE share = 0;
            if (i >= 0 && i < count) {
                const int channel = static_cast<unsigned>(i) % channels;
                ACCUMULATE sum = 0;
                for (int d = -min(reach, channel); d <= min(reach, channels - 1 - channel); ++d) {
                    sum += values[p + d] * values[p + d];
                }
                const ACCUMULATE s = k + factor * sum;
                share = load(dy[i]) * inverse_power(s, beta) / s;
            }
            shares[p] = share;
        }
        __syncthreads();
        for (int p = threadIdx.x + 2 * reach; p < TILE + 2 * reach && start + p < count; p += blockDim.x) {
            const int channel = static_cast<unsigned>(start + p) % channels;
            ACCUMULATE sum = 0, squares = 0;
            for (int d = -min(reach, channel); d <= min(reach, channels - 1 - channel); ++d) {
                sum += shares[p + d] * values[p + d];
                squares += values[p + d] * values[p + d];
            }
            // The share times s is what dx has of dy: the power need not be taken twice.
            store(dx[start + p], shares[p] * (k + factor * squares) - 2 * factor * beta * values[p] * sum);
        }
        __syncthreads();
    }
}

// The same where channels come in whole packs, beta is 3/4 and a window reaches at most FAR channels: what nets of images have. A
// thread makes a pack of channels of a pixel. It looks at the packs beside that too, which its neighbours have just read: no
// barriers, all loads are of 16 bytes, and every index of an array is known when this is compiled. count is that of the packs.
enum { FAR = 2 };

#if !defined(STORAGE_IS_DOUBLE)

typedef Pack<STORAGE, PACK> Channels;

// What lies around a pack: values[REACH + k] is its channel k, those that a pixel does not have are 0.
template <int REACH> struct Nearby {
    enum { LENGTH = PACK + 2 * REACH };
    ACCUMULATE values[LENGTH];

    __device__ __forceinline__ Nearby(const STORAGE* from, long long i, bool has_before, bool has_after) {
        const Channels* const packs = reinterpret_cast<const Channels*>(from) + i;
        const Channels none = {};
        const Channels before = has_before ? packs[-1] : none, own = packs[0], after = has_after ? packs[1] : none;
#pragma unroll
        for (int k = 0; k < LENGTH; ++k) {
            const Channels& source = k < REACH ? before : k < REACH + PACK ? own : after;
            values[k] = load(source.values[(k + PACK - REACH) % PACK]);
        }
    }
};

// The sum of the squares of values[middle + d] for d within reach.
template <int LENGTH>
__device__ __forceinline__ ACCUMULATE squares_around(const ACCUMULATE (&values)[LENGTH], int middle, int reach) {
    ACCUMULATE sum = 0;
#pragma unroll
    for (int d = -FAR; d <= FAR; ++d) {
        if (d >= -reach && d <= reach) {
            sum += values[middle + d] * values[middle + d];
        }
    }
    return sum;
}

extern "C" __global__ void packed_forward(int count, const STORAGE* x, STORAGE* y, int packs, int reach, ACCUMULATE k,
                                          ACCUMULATE factor) {
    FOR_EACH(i, count) {
        const int pack = static_cast<unsigned>(i) % packs;
        const Nearby<FAR> nearby(x, i, pack > 0, pack < packs - 1);
        Channels result;
#pragma unroll
        for (int c = 0; c < PACK; ++c) {
            const ACCUMULATE s = k + factor * squares_around(nearby.values, c + FAR, reach);
            store(result.values[c], nearby.values[c + FAR] * inverse_power(s, ACCUMULATE(0.75)));
        }
        reinterpret_cast<Channels*>(y)[i] = result;
    }
}

extern "C" __global__ void packed_backward(int count, const STORAGE* x, const STORAGE* dy, STORAGE* dx, int packs, int reach,
                                           ACCUMULATE k, ACCUMULATE factor) {
    FOR_EACH(i, count) {
        const int pack = static_cast<unsigned>(i) % packs;
        const bool has_before = pack > 0, has_after = pack < packs - 1;
        const Nearby<2 * FAR> nearby(x, i, has_before, has_after);
        const Nearby<FAR> gradients(dy, i, has_before, has_after);
        ACCUMULATE shares[PACK + 2 * FAR];  // dy s^-(beta + 1)
        ACCUMULATE scales[PACK + 2 * FAR];  // s
#pragma unroll
        for (int c = 0; c < PACK + 2 * FAR; ++c) {
            const bool is_there = (c >= FAR || has_before) && (c < PACK + FAR || has_after);
            const ACCUMULATE s = k + factor * squares_around(nearby.values, c + FAR, reach);
            scales[c] = s;
            shares[c] = is_there ? gradients.values[c] * inverse_power(s, ACCUMULATE(0.75)) / s : ACCUMULATE(0);
        }
        Channels result;
#pragma unroll
        for (int c = 0; c < PACK; ++c) {
            ACCUMULATE sum = 0;
#pragma unroll
            for (int d = -FAR; d <= FAR; ++d) {
                if (d >= -reach && d <= reach) {
                    sum += shares[c + FAR + d] * nearby.values[c + 2 * FAR + d];
                }
            }
            // As in channels_last_backward.
            const ACCUMULATE own = nearby.values[c + 2 * FAR];
            store(result.values[c], shares[c + FAR] * scales[c + FAR] - 2 * factor * ACCUMULATE(0.75) * own * sum);
        }
        reinterpret_cast<Channels*>(dx)[i] = result;
    }
}

#endif
