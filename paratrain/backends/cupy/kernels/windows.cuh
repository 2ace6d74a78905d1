// Pooling over (N, C, H, W), channels second or last, by Caffe's windows: what the kernels have in common.
//
// Window (y, x) takes rows y * stride - pad to that + kernel, not included, and columns alike, cut at the image's edges: what
// it takes of the image is never empty. Values are taken row by row.
//
// For MAX and STOCHASTIC `chosen` holds, for each window in the order of the top, which place it took: row * kernel_width +
// column within the uncut window, NONE where it took none. A byte is enough for kernels of up to 255 places, so that the
// gradient costs one byte of reading per window, and it needs no bottom. Gradients are gathered: a pixel adds, in the order of
// the windows, what those that hold it give it. Nothing is ever added by two threads.
//
// With channels last a thread takes WIDTH channels of a pixel, so that it works out places once for all of them and moves 16
// bytes at a time; channels are then counted in packs. Neighbouring threads take neighbouring channels, or pixels.

#define WINDOWS                                                                                                                  \
    int channels, int height, int width, int top_height, int top_width, int kernel_height, int kernel_width,                     \
        int stride_height, int stride_width, int pad_height, int pad_width, int channels_last
#define THESE_WINDOWS                                                                                                            \
    Windows {                                                                                                                    \
        channels, height, width, top_height, top_width, kernel_height, kernel_width, stride_height, stride_width,                \
            pad_height, pad_width, channels_last                                                                                 \
    }
enum { NONE = -1 };

struct Windows {
    int channels, height, width, top_height, top_width, kernel_height, kernel_width, stride_height, stride_width, pad_height,
        pad_width, channels_last;
};

// One window: its uncut corner, and the rows and columns of the image that it takes, ends not included.
struct Window {
    int row, column, first_row, end_row, first_column, end_column;
};

__device__ __forceinline__ Window window_of(const Windows& w, int pixel) {
    const int y = pixel / w.top_width, x = pixel - y * w.top_width;
    Window window;
    window.row = y * w.stride_height - w.pad_height;
    window.column = x * w.stride_width - w.pad_width;
    window.first_row = max(window.row, 0);
    window.end_row = min(window.row + w.kernel_height, w.height);
    window.first_column = max(window.column, 0);
    window.end_column = min(window.column + w.kernel_width, w.width);
    return window;
}

// The windows of one axis that hold a place of it: from `first` up to `end`, not included.
struct Holders {
    int first, end;
};

// A number that is not negative, by a stride. Nearly all are 1 or 2, and a division takes some 20 instructions.
__device__ __forceinline__ int by_stride(int number, int stride) {
    return stride <= 2 ? number >> (stride - 1) : number / stride;
}

__device__ __forceinline__ Holders holders_of(int padded_place, int kernel, int stride, int windows) {
    Holders holders;
    holders.first = padded_place < kernel ? 0 : by_stride(padded_place - kernel, stride) + 1;
    holders.end = min(by_stride(padded_place, stride) + 1, windows);
    return holders;
}

// top = the largest value of each window, and `chosen` unless that is null: the first of equals, NONE where a value is NaN,
// which is the largest then. count is that of the packs of the top.
template <int WIDTH, typename CHOSEN>
__device__ __forceinline__ void max_forward_of(int count, const STORAGE* bottom, STORAGE* top, CHOSEN* chosen,
                                               const Windows w) {
    typedef Pack<STORAGE, WIDTH> Values;
    const int step = w.channels_last ? w.channels : 1;
    FOR_EACH(i, count) {
        const Place place = place_of(i, w.channels, w.top_height * w.top_width, w.channels_last);
        const Window window = window_of(w, place.pixel);
        const Values* image = reinterpret_cast<const Values*>(bottom)
            + index_of(place.image, place.channel, 0, w.channels, w.height * w.width, w.channels_last);
        const Values start = image[(window.first_row * w.width + window.first_column) * step];
        ACCUMULATE best[WIDTH];
        int taken[WIDTH];
        for (int k = 0; k < WIDTH; ++k) {
            best[k] = load(start.values[k]);
            taken[k] = (window.first_row - window.row) * w.kernel_width + window.first_column - window.column;
        }
        for (int row = window.first_row; row < window.end_row; ++row) {
            for (int column = window.first_column; column < window.end_column; ++column) {
                const Values pixel = image[(row * w.width + column) * step];
                const int offset = (row - window.row) * w.kernel_width + column - window.column;
                for (int k = 0; k < WIDTH; ++k) {
                    const ACCUMULATE value = load(pixel.values[k]);
                    const bool is_none = value != value;
                    if (value > best[k] || is_none) {
                        best[k] = value;
                        taken[k] = is_none ? NONE : offset;
                    }
                }
            }
        }
        Values result;
        Pack<CHOSEN, WIDTH> marks;
        for (int k = 0; k < WIDTH; ++k) {
            store(result.values[k], best[k]);
            marks.values[k] = static_cast<CHOSEN>(taken[k]);
        }
        reinterpret_cast<Values*>(top)[i] = result;
        if (chosen) {
            reinterpret_cast<Pack<CHOSEN, WIDTH>*>(chosen)[i] = marks;
        }
    }
}

// dx = the sum of dy over the windows that took this place. count is that of the packs of the bottom.
template <int WIDTH, typename CHOSEN>
__device__ __forceinline__ void chosen_backward_of(int count, const STORAGE* dy, const CHOSEN* chosen, STORAGE* dx,
                                                   const Windows w) {
    typedef Pack<STORAGE, WIDTH> Values;
    const int step = w.channels_last ? w.channels : 1;
    FOR_EACH(i, count) {
        const Place place = place_of(i, w.channels, w.height * w.width, w.channels_last);
        const int y = place.pixel / w.width + w.pad_height, x = place.pixel % w.width + w.pad_width;
        const Holders rows = holders_of(y, w.kernel_height, w.stride_height, w.top_height);
        const Holders columns = holders_of(x, w.kernel_width, w.stride_width, w.top_width);
        const long long first =
            index_of(place.image, place.channel, 0, w.channels, w.top_height * w.top_width, w.channels_last);
        ACCUMULATE sums[WIDTH] = {};
        for (int row = rows.first; row < rows.end; ++row) {
            for (int column = columns.first; column < columns.end; ++column) {
                const long long index = first + (row * w.top_width + column) * step;
                const int offset = (y - row * w.stride_height) * w.kernel_width + x - column * w.stride_width;
                const Pack<CHOSEN, WIDTH> marks = reinterpret_cast<const Pack<CHOSEN, WIDTH>*>(chosen)[index];
                const Values gradient = reinterpret_cast<const Values*>(dy)[index];
                for (int k = 0; k < WIDTH; ++k) {
                    sums[k] += static_cast<int>(marks.values[k]) == offset ? load(gradient.values[k]) : ACCUMULATE(0);
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

// top = the first value of each window at which the running sum reaches (1 - number) times the sum, the window's first where
// none does. `numbers`, in [0, 1), lie as the top does. count is that of the top.
template <typename CHOSEN>
__device__ __forceinline__ void stochastic_forward_of(int count, const STORAGE* bottom, const STORAGE* numbers,
                                                      STORAGE* top, CHOSEN* chosen, const Windows w) {
    const int step = w.channels_last ? w.channels : 1;
    FOR_EACH(i, count) {
        const Place place = place_of(i, w.channels, w.top_height * w.top_width, w.channels_last);
        const Window window = window_of(w, place.pixel);
        const STORAGE* image =
            bottom + index_of(place.image, place.channel, 0, w.channels, w.height * w.width, w.channels_last);
        ACCUMULATE sum = 0;
        for (int row = window.first_row; row < window.end_row; ++row) {
            for (int column = window.first_column; column < window.end_column; ++column) {
                sum += load(image[(row * w.width + column) * step]);
            }
        }
        const ACCUMULATE threshold = (1 - load(numbers[i])) * sum;
        int taken_row = window.first_row, taken_column = window.first_column;
        bool is_open = true;
        sum = 0;
        for (int row = window.first_row; is_open && row < window.end_row; ++row) {
            for (int column = window.first_column; is_open && column < window.end_column; ++column) {
                sum += load(image[(row * w.width + column) * step]);
                if (!(sum < threshold)) {
                    taken_row = row;
                    taken_column = column;
                    is_open = false;
                }
            }
        }
        top[i] = image[(taken_row * w.width + taken_column) * step];
        chosen[i] = static_cast<CHOSEN>((taken_row - window.row) * w.kernel_width + taken_column - window.column);
    }
}

// indices = y * width + x of the place that each window took, -1 for none; in plain order, whatever that of `chosen` is.
template <typename CHOSEN>
__device__ __forceinline__ void chosen_indices_of(int count, const CHOSEN* chosen, ACCUMULATE* indices,
                                                  const Windows w) {
    const int pixels = w.top_height * w.top_width;
    FOR_EACH(i, count) {
        const Place place = place_of(i, w.channels, pixels, 0);
        const Window window = window_of(w, place.pixel);
        const CHOSEN mark = chosen[index_of(place.image, place.channel, place.pixel, w.channels, pixels, w.channels_last)];
        const int row = window.row + mark / w.kernel_width, column = window.column + mark % w.kernel_width;
        indices[i] = mark == static_cast<CHOSEN>(NONE) ? -1 : row * w.width + column;
    }
}

#define CHOOSING_KERNELS(suffix, WIDTH, CHOSEN)                                                                                  \
    extern "C" __global__ void max_forward##suffix(int count, const STORAGE* bottom, STORAGE* top, CHOSEN* chosen, WINDOWS) {    \
        max_forward_of<WIDTH, CHOSEN>(count, bottom, top, chosen, THESE_WINDOWS);                                                \
    }                                                                                                                            \
    extern "C" __global__ void chosen_backward##suffix(int count, const STORAGE* dy, const CHOSEN* chosen, STORAGE* dx,          \
                                                       WINDOWS) {                                                                \
        chosen_backward_of<WIDTH, CHOSEN>(count, dy, chosen, dx, THESE_WINDOWS);                                                 \
    }
#define UNPACKED_KERNELS(suffix, CHOSEN)                                                                                         \
    extern "C" __global__ void stochastic_forward##suffix(int count, const STORAGE* bottom, const STORAGE* numbers,              \
                                                          STORAGE* top, CHOSEN* chosen, WINDOWS) {                               \
        stochastic_forward_of<CHOSEN>(count, bottom, numbers, top, chosen, THESE_WINDOWS);                                       \
    }                                                                                                                            \
    extern "C" __global__ void chosen_indices##suffix(int count, const CHOSEN* chosen, ACCUMULATE* indices, WINDOWS) {           \
        chosen_indices_of<CHOSEN>(count, chosen, indices, THESE_WINDOWS);                                                        \
    }
