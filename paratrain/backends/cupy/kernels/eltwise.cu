// Several blobs, value by value: sums, products and maxima of up to 8 of them, and their gradients. All lie in one form.
//
// The kernels that end in _packed take PACK values with each thread, 16 bytes of each blob; their `count` is that of the packs.
// Arrays that a kernel writes may be among those it reads, for each value is written by the thread that has read it.

#define EIGHT(type, name)                                                                                                        \
    type name##0, type name##1, type name##2, type name##3, type name##4, type name##5, type name##6, type name##7
#define ALL(name) {name##0, name##1, name##2, name##3, name##4, name##5, name##6, name##7}

template <int WIDTH> struct Values {
    ACCUMULATE values[WIDTH];
};

template <int WIDTH> __device__ __forceinline__ Values<WIDTH> load_values(const STORAGE* array, long long i) {
    const Pack<STORAGE, WIDTH> pack = reinterpret_cast<const Pack<STORAGE, WIDTH>*>(array)[i];
    Values<WIDTH> result;
    for (int k = 0; k < WIDTH; ++k) {
        result.values[k] = load(pack.values[k]);
    }
    return result;
}

template <int WIDTH> __device__ __forceinline__ void store_values(STORAGE* array, long long i, const Values<WIDTH>& values) {
    Pack<STORAGE, WIDTH> pack;
    for (int k = 0; k < WIDTH; ++k) {
        store(pack.values[k], values.values[k]);
    }
    reinterpret_cast<Pack<STORAGE, WIDTH>*>(array)[i] = pack;
}

// y = the sum of c_n x_n over the first `inputs`, then y where y > 0, else slope y: 1 leaves it as it is.
template <int WIDTH>
__device__ __forceinline__ void sum_forward_of(int count, STORAGE* y, ACCUMULATE slope, int inputs,
                                               const STORAGE* const (&x)[8], const ACCUMULATE (&c)[8]) {
    FOR_EACH(i, count) {
        Values<WIDTH> sum = {};
#pragma unroll
        for (int n = 0; n < 8; ++n) {
            if (n < inputs) {
                const Values<WIDTH> next = load_values<WIDTH>(x[n], i);
                for (int k = 0; k < WIDTH; ++k) {
                    sum.values[k] += c[n] * next.values[k];
                }
            }
        }
        if (slope != 1) {
            for (int k = 0; k < WIDTH; ++k) {
                sum.values[k] = sum.values[k] > 0 ? sum.values[k] : slope * sum.values[k];
            }
        }
        store_values<WIDTH>(y, i, sum);
    }
}

// dx_n = c_n dy for the first `outputs`, those left out that are null. Where y, the top after a ReLU of this slope, is not null,
// dy is gone back through that before.
template <int WIDTH>
__device__ __forceinline__ void sum_backward_of(int count, const STORAGE* dy, const STORAGE* y, ACCUMULATE slope,
                                                int outputs, STORAGE* const (&dx)[8], const ACCUMULATE (&c)[8]) {
    FOR_EACH(i, count) {
        Values<WIDTH> gradient = load_values<WIDTH>(dy, i);
        if (y != nullptr) {
            const Values<WIDTH> top = load_values<WIDTH>(y, i);
            for (int k = 0; k < WIDTH; ++k) {
                gradient.values[k] *= top.values[k] > 0 ? ACCUMULATE(1) : slope;
            }
        }
#pragma unroll
        for (int n = 0; n < 8; ++n) {
            if (n < outputs && dx[n] != nullptr) {
                Values<WIDTH> share;
                for (int k = 0; k < WIDTH; ++k) {
                    share.values[k] = c[n] * gradient.values[k];
                }
                store_values<WIDTH>(dx[n], i, share);
            }
        }
    }
}

// y = the product of the first `inputs`.
template <int WIDTH>
__device__ __forceinline__ void product_forward_of(int count, STORAGE* y, int inputs, const STORAGE* const (&x)[8]) {
    FOR_EACH(i, count) {
        Values<WIDTH> product = load_values<WIDTH>(x[0], i);
#pragma unroll
        for (int n = 1; n < 8; ++n) {
            if (n < inputs) {
                const Values<WIDTH> next = load_values<WIDTH>(x[n], i);
                for (int k = 0; k < WIDTH; ++k) {
                    product.values[k] *= next.values[k];
                }
            }
        }
        store_values<WIDTH>(y, i, product);
    }
}

// dx_n = dy times the product of the others, or with y, the top, not null: y / x_n times dy. Null dx are left out.
template <int WIDTH>
__device__ __forceinline__ void product_backward_of(int count, const STORAGE* dy, const STORAGE* y, int inputs,
                                                    const STORAGE* const (&x)[8], STORAGE* const (&dx)[8]) {
    FOR_EACH(i, count) {
        const Values<WIDTH> gradient = load_values<WIDTH>(dy, i);
#pragma unroll
        for (int n = 0; n < 8; ++n) {
            if (n < inputs && dx[n] != nullptr) {
                Values<WIDTH> share = gradient;
                if (y != nullptr) {
                    const Values<WIDTH> top = load_values<WIDTH>(y, i), own = load_values<WIDTH>(x[n], i);
                    for (int k = 0; k < WIDTH; ++k) {
                        share.values[k] *= top.values[k] / own.values[k];
                    }
                } else {
                    for (int m = 0; m < 8; ++m) {
                        if (m < inputs && m != n) {
                            const Values<WIDTH> other = load_values<WIDTH>(x[m], i);
                            for (int k = 0; k < WIDTH; ++k) {
                                share.values[k] *= other.values[k];
                            }
                        }
                    }
                }
                store_values<WIDTH>(dx[n], i, share);
            }
        }
    }
}

// The largest of the first `inputs`, and which it is, as Caffe chooses: of the first two equal ones the second, a later one only
// if it is larger. What is not a number is larger than all.
template <int WIDTH>
__device__ __forceinline__ Values<WIDTH> largest(long long i, int inputs, const STORAGE* const (&x)[8], int (&winners)[WIDTH]) {
    Values<WIDTH> best = load_values<WIDTH>(x[0], i);
    for (int k = 0; k < WIDTH; ++k) {
        winners[k] = 0;
    }
#pragma unroll
    for (int n = 1; n < 8; ++n) {
        if (n < inputs) {
            const Values<WIDTH> next = load_values<WIDTH>(x[n], i);
            for (int k = 0; k < WIDTH; ++k) {
                const ACCUMULATE value = next.values[k];
                if (value > best.values[k] || value != value || (n == 1 && value == best.values[k])) {
                    best.values[k] = value;
                    winners[k] = n;
                }
            }
        }
    }
    return best;
}

// y = the largest of the first `inputs`.
template <int WIDTH>
__device__ __forceinline__ void maximum_forward_of(int count, STORAGE* y, int inputs, const STORAGE* const (&x)[8]) {
    FOR_EACH(i, count) {
        int winners[WIDTH];
        store_values<WIDTH>(y, i, largest<WIDTH>(i, inputs, x, winners));
    }
}

// dx_n = dy where x_n is the largest, else 0. Null dx are left out.
template <int WIDTH>
__device__ __forceinline__ void maximum_backward_of(int count, const STORAGE* dy, int inputs,
                                                    const STORAGE* const (&x)[8], STORAGE* const (&dx)[8]) {
    FOR_EACH(i, count) {
        int winners[WIDTH];
        largest<WIDTH>(i, inputs, x, winners);
        const Values<WIDTH> gradient = load_values<WIDTH>(dy, i);
#pragma unroll
        for (int n = 0; n < 8; ++n) {
            if (n < inputs && dx[n] != nullptr) {
                Values<WIDTH> share;
                for (int k = 0; k < WIDTH; ++k) {
                    share.values[k] = winners[k] == n ? gradient.values[k] : ACCUMULATE(0);
                }
                store_values<WIDTH>(dx[n], i, share);
            }
        }
    }
}

#define ELTWISE_KERNELS(suffix, WIDTH)                                                                                           \
    extern "C" __global__ void sum_forward##suffix(int count, STORAGE* y, ACCUMULATE slope, int inputs,                          \
                                                   EIGHT(const STORAGE*, x), EIGHT(ACCUMULATE, c)) {                             \
        const STORAGE* const x[] = ALL(x);                                                                                       \
        const ACCUMULATE c[] = ALL(c);                                                                                           \
        sum_forward_of<WIDTH>(count, y, slope, inputs, x, c);                                                                    \
    }                                                                                                                            \
    extern "C" __global__ void sum_backward##suffix(int count, const STORAGE* dy, const STORAGE* y, ACCUMULATE slope,            \
                                                    int outputs, EIGHT(STORAGE*, dx), EIGHT(ACCUMULATE, c)) {                    \
        STORAGE* const dx[] = ALL(dx);                                                                                           \
        const ACCUMULATE c[] = ALL(c);                                                                                           \
        sum_backward_of<WIDTH>(count, dy, y, slope, outputs, dx, c);                                                             \
    }                                                                                                                            \
    extern "C" __global__ void product_forward##suffix(int count, STORAGE* y, int inputs, EIGHT(const STORAGE*, x)) {            \
        const STORAGE* const x[] = ALL(x);                                                                                       \
        product_forward_of<WIDTH>(count, y, inputs, x);                                                                          \
    }                                                                                                                            \
    extern "C" __global__ void product_backward##suffix(int count, const STORAGE* dy, const STORAGE* y, int inputs,              \
                                                        EIGHT(const STORAGE*, x), EIGHT(STORAGE*, dx)) {                         \
        const STORAGE* const x[] = ALL(x);                                                                                       \
        STORAGE* const dx[] = ALL(dx);                                                                                           \
        product_backward_of<WIDTH>(count, dy, y, inputs, x, dx);                                                                 \
    }                                                                                                                            \
    extern "C" __global__ void maximum_forward##suffix(int count, STORAGE* y, int inputs, EIGHT(const STORAGE*, x)) {            \
        const STORAGE* const x[] = ALL(x);                                                                                       \
        maximum_forward_of<WIDTH>(count, y, inputs, x);                                                                          \
    }                                                                                                                            \
    extern "C" __global__ void maximum_backward##suffix(int count, const STORAGE* dy, int inputs, EIGHT(const STORAGE*, x),      \
                                                        EIGHT(STORAGE*, dx)) {                                                   \
        const STORAGE* const x[] = ALL(x);                                                                                       \
        STORAGE* const dx[] = ALL(dx);                                                                                           \
        maximum_backward_of<WIDTH>(count, dy, inputs, x, dx);                                                                    \
    }

ELTWISE_KERNELS(, 1)
ELTWISE_KERNELS(_packed, PACK)
