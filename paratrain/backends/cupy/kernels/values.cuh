// What layers that work value by value share: they do not care for the order of the values, only for their type.
//
// Each is y = f(x), and dx = dy f'(v), where v is x, or y where f' is easier told by that. y may be x, and dx may be dy. Who
// works in place and needs x in backward has it kept: `kept` gets a copy of x, unless it is null.

// For each value v of x: y = f, an expression of v.
#define WRITE_Y(x, y, kept, f)                                   \
    FOR_EACH_FOUR(i, count) {                                    \
        const int present = count - i < 4 ? count - i : 4;       \
        ACCUMULATE values[4];                                    \
        load_four((x) + i, values, present);                     \
        if (kept) {                                              \
            store_four((kept) + i, values, present);             \
        }                                                        \
        for (int k = 0; k < 4; ++k) {                            \
            [[maybe_unused]] const ACCUMULATE v = values[k];     \
            values[k] = (f);                                     \
        }                                                        \
        store_four((y) + i, values, present);                    \
    }

// For each value v of `from`: dx = dy slope, an expression of v.
#define WRITE_DX(from, dy, dx, slope)                            \
    FOR_EACH_FOUR(i, count) {                                    \
        const int present = count - i < 4 ? count - i : 4;       \
        ACCUMULATE values[4], gradients[4];                      \
        load_four((from) + i, values, present);                  \
        load_four((dy) + i, gradients, present);                 \
        for (int k = 0; k < 4; ++k) {                            \
            [[maybe_unused]] const ACCUMULATE v = values[k];     \
            gradients[k] *= (slope);                             \
        }                                                        \
        store_four((dx) + i, gradients, present);                \
    }

// NAME_forward and NAME_backward of a layer with up to three numbers a, b and c.
#define FORWARD(name, f)                                                                                          \
    extern "C" __global__ void name##_forward(int count, const STORAGE* x, STORAGE* y, STORAGE* kept, ACCUMULATE a, \
                                              ACCUMULATE b, ACCUMULATE c) {                                       \
        WRITE_Y(x, y, kept, f)                                                                                    \
    }
#define BACKWARD(name, slope)                                                                                        \
    extern "C" __global__ void name##_backward(int count, const STORAGE* from, const STORAGE* dy, STORAGE* dx,       \
                                               ACCUMULATE a, ACCUMULATE b, ACCUMULATE c) {                           \
        WRITE_DX(from, dy, dx, slope)                                                                                \
    }
