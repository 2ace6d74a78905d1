// Mean and variance of channels, what normalizes by them, scales and shifts, and the gradients: BatchNorm, Scale and Bias, alone
// or as one, perhaps with the ReLU that follows.
//
// Values are (N, C, pixels) with channels second or last. What belongs to channels is ACCUMULATE whatever the values are.
// All kernels run blocks of THREADS threads, tiles * parts of them, each for the channels of its tile and the rows of its part;
// a row is a pixel of an image. Where channels come last, a thread has WIDTH neighbouring channels and a tile COLUMNS threads
// side by side, which makes THREADS / COLUMNS rows at once; otherwise a tile is one channel, COLUMNS is 1, and a thread has WIDTH
// neighbouring pixels, which count as one row. Which rows are added up in which order follows from these numbers alone.

enum { THREADS = 256 };

struct Sizes {
    int images, channels, pixels, channels_last, columns, tiles, parts;
};

#define SIZES int images, int channels, int pixels, int channels_last, int columns, int tiles, int parts
#define PASS_SIZES \
    Sizes { images, channels, pixels, channels_last, columns, tiles, parts }

template <int WIDTH> __device__ __forceinline__ void load_pack(const STORAGE* from, ACCUMULATE (&to)[WIDTH]) {
    const Pack<STORAGE, WIDTH> pack = *reinterpret_cast<const Pack<STORAGE, WIDTH>*>(from);
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) {
        to[k] = load(pack.values[k]);
    }
}

template <int WIDTH> __device__ __forceinline__ void store_pack(STORAGE* to, const ACCUMULATE (&from)[WIDTH]) {
    Pack<STORAGE, WIDTH> pack;
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) {
        store(pack.values[k], from[k]);
    }
    *reinterpret_cast<Pack<STORAGE, WIDTH>*>(to) = pack;
}

// The rows of a thread, one after the other: where its first channel lies in each. No division on the way.
template <int WIDTH> struct Walk {
    int part, column, row_in_block, rows_in_block, channel;
    int image, pixel, image_step, pixel_step, images, pixels;
    long long place, image_stride, pixel_stride;

    __device__ __forceinline__ explicit Walk(const Sizes& s) {
        const int tile = blockIdx.x % s.tiles;
        part = blockIdx.x / s.tiles;
        column = threadIdx.x % s.columns;
        row_in_block = threadIdx.x / s.columns;
        rows_in_block = THREADS / s.columns;
        channel = s.channels_last ? (tile * s.columns + column) * WIDTH : tile;
        images = s.images;
        pixels = s.channels_last ? s.pixels : s.pixels / WIDTH;
        pixel_stride = s.channels_last ? s.channels : WIDTH;
        image_stride = static_cast<long long>(s.channels) * s.pixels;
        const unsigned row = part * rows_in_block + row_in_block, step = s.parts * rows_in_block, width = pixels;
        image = row / width;
        pixel = row - image * width;
        image_step = step / width;
        pixel_step = step - image_step * width;
        if (channel >= s.channels) {
            image = images;  // a tile may reach over the last channel
        }
        place = s.channels_last ? channel : static_cast<long long>(channel) * s.pixels;
        place += image * image_stride + pixel * pixel_stride;
    }
    __device__ __forceinline__ bool is_inside() const { return image < images; }
    __device__ __forceinline__ void next() {
        image += image_step;
        pixel += pixel_step;
        place += image_step * image_stride + pixel_step * pixel_stride;
        if (pixel >= pixels) {
            pixel -= pixels;
            ++image;
            place += image_stride - pixels * pixel_stride;
        }
    }
};

// How many values, their mean, and the sum of the squares of what they differ from it.
struct Moments {
    ACCUMULATE count, mean, squares;
};

// Those of both together. Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979.
__device__ __forceinline__ Moments merged(const Moments& a, const Moments& b) {
    if (b.count == 0) {
        return a;
    }
    const ACCUMULATE count = a.count + b.count, share = b.count / count, difference = b.mean - a.mean;
    Moments both;
    both.count = count;
    both.mean = a.mean + difference * share;
    both.squares = a.squares + b.squares + difference * difference * a.count * share;
    return both;
}

// partial[channel, part] of three arrays (channels, parts), one behind the other: count, mean, squares of a part of the rows of x.
// Each thread takes its rows one by one (Welford, 1962), then the threads of a column are merged by halves.
template <int WIDTH> __device__ __forceinline__ void moments_of(const Sizes& s, const STORAGE* x, ACCUMULATE* partial) {
    __shared__ Moments shared[THREADS];
    Walk<WIDTH> walk(s);
    ACCUMULATE count = 0, mean[WIDTH] = {}, squares[WIDTH] = {};
    // One load is always on its way while the row before is worked on: a row has little else that could hide how long it takes.
    typedef Pack<STORAGE, WIDTH> Row;
    Row next = {};
    if (walk.is_inside()) {
        next = *reinterpret_cast<const Row*>(x + walk.place);
    }
    while (walk.is_inside()) {
        ACCUMULATE value[WIDTH];
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) {
            value[k] = load(next.values[k]);
        }
        walk.next();
        if (walk.is_inside()) {
            next = *reinterpret_cast<const Row*>(x + walk.place);
        }
        count += 1;
        const ACCUMULATE share = 1 / count;
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) {
            const ACCUMULATE difference = value[k] - mean[k];
            mean[k] += difference * share;
            squares[k] += difference * (value[k] - mean[k]);
        }
    }
    const long long plane = static_cast<long long>(s.channels) * s.parts;
    Moments own[WIDTH];
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) {
        own[k] = Moments{count, mean[k], squares[k]};
        if (k > 0 && !s.channels_last) {
            own[0] = merged(own[0], own[k]);
        }
    }
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) {
        if (k > 0 && !s.channels_last) {
            break;  // they were all of one channel
        }
        __syncthreads();
        shared[threadIdx.x] = own[k];
        for (int half = walk.rows_in_block / 2; half > 0; half /= 2) {
            __syncthreads();
            if (walk.row_in_block < half) {
                shared[threadIdx.x] = merged(shared[threadIdx.x], shared[threadIdx.x + half * s.columns]);
            }
        }
        if (walk.row_in_block == 0 && walk.channel + k < s.channels) {
            ACCUMULATE* target = partial + static_cast<long long>(walk.channel + k) * s.parts + walk.part;
            target[0] = shared[threadIdx.x].count;
            target[plane] = shared[threadIdx.x].mean;
            target[2 * plane] = shared[threadIdx.x].squares;
        }
    }
}

// mean and inverse_std = 1 / sqrt(variance + eps) of each channel, from the parts. The running sums, as Caffe keeps them:
// running_mean = fraction running_mean + mean, running_variance the same with variance m / (m - 1) over m values, and
// running_count = fraction running_count + 1. One block for each channel.
extern "C" __global__ void finish_moments(int channels, int parts, const ACCUMULATE* partial, ACCUMULATE eps, ACCUMULATE fraction,
                                          ACCUMULATE* mean, ACCUMULATE* inverse_std, ACCUMULATE* running_mean,
                                          ACCUMULATE* running_variance, ACCUMULATE* running_count) {
    __shared__ Moments shared[THREADS];
    const int channel = blockIdx.x;
    const long long plane = static_cast<long long>(channels) * parts;
    const ACCUMULATE* source = partial + static_cast<long long>(channel) * parts;
    Moments sum = {0, 0, 0};
    for (int part = threadIdx.x; part < parts; part += blockDim.x) {
        sum = merged(sum, Moments{source[part], source[plane + part], source[2 * plane + part]});
    }
    shared[threadIdx.x] = sum;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            shared[threadIdx.x] = merged(shared[threadIdx.x], shared[threadIdx.x + half]);
        }
    }
    if (threadIdx.x == 0) {
        const Moments all = shared[0];
        const ACCUMULATE variance = all.squares / all.count;
        mean[channel] = all.mean;
        inverse_std[channel] = 1 / sqrt(variance + eps);
        running_mean[channel] = fraction * running_mean[channel] + all.mean;
        const ACCUMULATE unbiased = all.count > 1 ? all.squares / (all.count - 1) : variance;
        running_variance[channel] = fraction * running_variance[channel] + unbiased;
        if (channel == 0) {
            running_count[0] = fraction * running_count[0] + 1;
        }
    }
}

// The same from what is stored: the running sums divided by their count; zeros while that is 0. One thread for each channel.
extern "C" __global__ void stored_moments(int channels, ACCUMULATE eps, const ACCUMULATE* running_mean,
                                          const ACCUMULATE* running_variance, const ACCUMULATE* running_count, ACCUMULATE* mean,
                                          ACCUMULATE* inverse_std) {
    FOR_EACH(channel, channels) {
        const ACCUMULATE total = running_count[0], factor = total == 0 ? ACCUMULATE(0) : 1 / total;
        mean[channel] = running_mean[channel] * factor;
        inverse_std[channel] = 1 / sqrt(running_variance[channel] * factor + eps);
    }
}

// What an array has for the channels of WIDTH values, which are neighbours or, with a spread of 0, all the same: `absent` without
// an array. Neighbours come 16 bytes at a time if they lie so: a thread may have few rows to use them for.
template <int WIDTH>
__device__ __forceinline__ void load_channels(const ACCUMULATE* from, int first, int spread, int channels, ACCUMULATE absent,
                                              ACCUMULATE (&to)[WIDTH]) {
    constexpr int EACH = 16 / sizeof(ACCUMULATE);
    if (WIDTH % EACH == 0 && from != nullptr && spread != 0 && first + WIDTH <= channels &&
        reinterpret_cast<size_t>(from + first) % 16 == 0) {
        typedef Pack<ACCUMULATE, EACH> Values;
#pragma unroll
        for (int k = 0; k < WIDTH; k += EACH) {
            const Values values = *reinterpret_cast<const Values*>(from + first + k);
#pragma unroll
            for (int n = 0; n < EACH && k + n < WIDTH; ++n) {
                to[k + n] = values.values[n];
            }
        }
    } else {
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) {
            const int channel = first + k * spread;
            to[k] = from != nullptr && channel < channels ? from[channel] : absent;
        }
    }
}

// What is known of the channels of WIDTH values: y = (x - mean) factor + shift. Null pointers mean 0, 1, 1 and 0.
template <int WIDTH> struct Factors {
    ACCUMULATE mean[WIDTH], inverse_std[WIDTH], factor[WIDTH], shift[WIDTH];

    __device__ __forceinline__ Factors(int first, int spread, int channels, const ACCUMULATE* means,
                                       const ACCUMULATE* inverse_stds, const ACCUMULATE* scales, const ACCUMULATE* shifts) {
        load_channels<WIDTH>(means, first, spread, channels, 0, mean);
        load_channels<WIDTH>(inverse_stds, first, spread, channels, 1, inverse_std);
        load_channels<WIDTH>(scales, first, spread, channels, 1, factor);
        load_channels<WIDTH>(shifts, first, spread, channels, 0, shift);
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) {
            factor[k] = inverse_std[k] * factor[k];
        }
    }
    __device__ __forceinline__ ACCUMULATE output(int k, ACCUMULATE x) const { return (x - mean[k]) * factor[k] + shift[k]; }
};

#define FACTORS const ACCUMULATE *means, const ACCUMULATE *inverse_stds, const ACCUMULATE *scales, const ACCUMULATE *shifts
#define PASS_FACTORS means, inverse_stds, scales, shifts

// y = (x - mean) inverse_std scale + shift, and where rectifies max(y, 0). y may be x; `kept` gets a copy of x, unless it is null.
template <int WIDTH>
__device__ __forceinline__ void normalize_rows(const Sizes& s, const STORAGE* x, STORAGE* y, FACTORS, int rectifies,
                                               STORAGE* kept) {
    Walk<WIDTH> walk(s);
    const Factors<WIDTH> factors(walk.channel, s.channels_last ? 1 : 0, s.channels, PASS_FACTORS);
    for (; walk.is_inside(); walk.next()) {
        ACCUMULATE value[WIDTH];
        load_pack<WIDTH>(x + walk.place, value);
        if (kept != nullptr) {
            store_pack<WIDTH>(kept + walk.place, value);
        }
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) {
            value[k] = factors.output(k, value[k]);
            if (rectifies && value[k] < 0) {  // what is not a number stays so, as everywhere: losses have to show it
                value[k] = 0;
            }
        }
        store_pack<WIDTH>(y + walk.place, value);
    }
}

// dy of the values that are not rectified away, which is computed again from x rather than read; 0 for the others.
template <int WIDTH>
__device__ __forceinline__ void load_gradient(const STORAGE* dy, const ACCUMULATE (&x)[WIDTH], const Factors<WIDTH>& factors,
                                              int rectifies, ACCUMULATE (&gradient)[WIDTH]) {
    load_pack<WIDTH>(dy, gradient);
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) {
        if (rectifies && !(factors.output(k, x[k]) > 0)) {
            gradient[k] = 0;
        }
    }
}

// partial[channel, part] of two arrays (channels, parts): the sums over a part of the rows of the gradient (see above), and of
// the gradient times x - mean. x may be null where it is not rectified: the second sums are 0 then.
template <int WIDTH>
__device__ __forceinline__ void sums_of(const Sizes& s, const STORAGE* x, const STORAGE* dy, FACTORS, int rectifies,
                                        ACCUMULATE* partial) {
    __shared__ ACCUMULATE shared[2][THREADS];
    Walk<WIDTH> walk(s);
    const Factors<WIDTH> factors(walk.channel, s.channels_last ? 1 : 0, s.channels, PASS_FACTORS);
    ACCUMULATE sum[WIDTH] = {}, product[WIDTH] = {};
    for (; walk.is_inside(); walk.next()) {
        ACCUMULATE value[WIDTH] = {}, gradient[WIDTH];
        if (x != nullptr) {
            load_pack<WIDTH>(x + walk.place, value);
        }
        load_gradient<WIDTH>(dy + walk.place, value, factors, rectifies, gradient);
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) {
            sum[k] += gradient[k];
            product[k] += gradient[k] * (value[k] - factors.mean[k]);
        }
    }
    const long long plane = static_cast<long long>(s.channels) * s.parts;
#pragma unroll
    for (int k = 1; k < WIDTH; ++k) {
        if (!s.channels_last) {
            sum[0] += sum[k];
            product[0] += product[k];
        }
    }
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) {
        if (k > 0 && !s.channels_last) {
            break;  // they were all of one channel
        }
        __syncthreads();
        shared[0][threadIdx.x] = sum[k];
        shared[1][threadIdx.x] = product[k];
        for (int half = walk.rows_in_block / 2; half > 0; half /= 2) {
            __syncthreads();
            if (walk.row_in_block < half) {
                shared[0][threadIdx.x] += shared[0][threadIdx.x + half * s.columns];
                shared[1][threadIdx.x] += shared[1][threadIdx.x + half * s.columns];
            }
        }
        if (walk.row_in_block == 0 && walk.channel + k < s.channels) {
            ACCUMULATE* target = partial + static_cast<long long>(walk.channel + k) * s.parts + walk.part;
            target[0] = shared[0][threadIdx.x];
            target[plane] = shared[1][threadIdx.x];
        }
    }
}

// From the parts, with g the gradient: means[channel] = mean of g, slopes[channel] = inverse_std^2 mean of g (x - mean), which
// `gradient` needs; scale_diff = sum of g (x - mean) inverse_std and shift_diff = sum of g, or += where adds_. Any of the four
// outputs may be null. count values have been summed. One block for each channel.
extern "C" __global__ void finish_sums(int channels, int parts, int count, const ACCUMULATE* partial,
                                       const ACCUMULATE* inverse_stds, ACCUMULATE* means, ACCUMULATE* slopes,
                                       ACCUMULATE* scale_diff, int adds_to_scale, ACCUMULATE* shift_diff, int adds_to_shift) {
    __shared__ ACCUMULATE shared[THREADS];
    const int channel = blockIdx.x;
    const long long plane = static_cast<long long>(channels) * parts;
    const ACCUMULATE* source = partial + static_cast<long long>(channel) * parts;
    ACCUMULATE sum = 0, product = 0;
    for (int part = threadIdx.x; part < parts; part += blockDim.x) {
        sum += source[part];
        product += source[plane + part];
    }
    sum = block_sum(sum, shared);
    product = block_sum(product, shared);
    if (threadIdx.x == 0) {
        const ACCUMULATE inverse_std = inverse_stds != nullptr ? inverse_stds[channel] : ACCUMULATE(1);
        if (means != nullptr) {
            means[channel] = sum / count;
        }
        if (slopes != nullptr) {
            slopes[channel] = product / count * inverse_std * inverse_std;
        }
        if (scale_diff != nullptr) {
            scale_diff[channel] = (adds_to_scale ? scale_diff[channel] : ACCUMULATE(0)) + product * inverse_std;
        }
        if (shift_diff != nullptr) {
            shift_diff[channel] = (adds_to_shift ? shift_diff[channel] : ACCUMULATE(0)) + sum;
        }
    }
}

// dx = inverse_std scale (g - gradient_mean - (x - mean) slope), where g is the gradient as above. Without gradient_means, for
// statistics that do not depend on x, dx = inverse_std scale g, and x may be null where nothing is rectified. dx may be dy.
template <int WIDTH>
__device__ __forceinline__ void gradient_of(const Sizes& s, const STORAGE* x, const STORAGE* dy, STORAGE* dx, FACTORS,
                                            int rectifies, const ACCUMULATE* gradient_means, const ACCUMULATE* slopes) {
    Walk<WIDTH> walk(s);
    const Factors<WIDTH> factors(walk.channel, s.channels_last ? 1 : 0, s.channels, PASS_FACTORS);
    ACCUMULATE gradient_mean[WIDTH], slope[WIDTH];
    const int spread = s.channels_last ? 1 : 0;
    load_channels<WIDTH>(gradient_means, walk.channel, spread, s.channels, 0, gradient_mean);
    load_channels<WIDTH>(gradient_means != nullptr ? slopes : nullptr, walk.channel, spread, s.channels, 0, slope);
    for (; walk.is_inside(); walk.next()) {
        ACCUMULATE value[WIDTH] = {}, gradient[WIDTH];
        if (x != nullptr) {
            load_pack<WIDTH>(x + walk.place, value);
        }
        load_gradient<WIDTH>(dy + walk.place, value, factors, rectifies, gradient);
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) {
            gradient[k] = factors.factor[k] * (gradient[k] - gradient_mean[k] - (value[k] - factors.mean[k]) * slope[k]);
        }
        store_pack<WIDTH>(dx + walk.place, gradient);
    }
}

// Each for one value at a time, and for as many as fill 16 bytes: then the number of channels, or with channels second that of
// pixels, is a multiple of that, and arrays begin at multiples of 16 bytes.
#define FOR_BOTH_WIDTHS(name, parameters, call)                                          \
    extern "C" __global__ void name parameters { call(1); }                              \
    extern "C" __global__ void name##_wide parameters { call(PACK); }

#define CALL_MOMENTS(width) moments_of<width>(PASS_SIZES, x, partial)
FOR_BOTH_WIDTHS(moments, (SIZES, const STORAGE* x, ACCUMULATE* partial), CALL_MOMENTS)

#define CALL_NORMALIZE(width) normalize_rows<width>(PASS_SIZES, x, y, PASS_FACTORS, rectifies, kept)
FOR_BOTH_WIDTHS(normalize, (SIZES, const STORAGE* x, STORAGE* y, FACTORS, int rectifies, STORAGE* kept), CALL_NORMALIZE)

#define CALL_SUMS(width) sums_of<width>(PASS_SIZES, x, dy, PASS_FACTORS, rectifies, partial)
FOR_BOTH_WIDTHS(sums, (SIZES, const STORAGE* x, const STORAGE* dy, FACTORS, int rectifies, ACCUMULATE* partial), CALL_SUMS)

#define CALL_GRADIENT(width) gradient_of<width>(PASS_SIZES, x, dy, dx, PASS_FACTORS, rectifies, gradient_means, slopes)
FOR_BOTH_WIDTHS(gradient, (SIZES, const STORAGE* x, const STORAGE* dy, STORAGE* dx, FACTORS, int rectifies,
                           const ACCUMULATE* gradient_means, const ACCUMULATE* slopes), CALL_GRADIENT)
