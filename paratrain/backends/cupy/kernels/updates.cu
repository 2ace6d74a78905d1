// The update of all learnable values, one kernel for each type of solver, and the sums of products that norms are made of.
//
// The values of all parameters lie in one flat array, their gradients and each history in others, laid out alike. Neighbours
// that learn alike form a run: run r ends before run_stops[r], where the next begins, and has a rate and a decay of its own.
//
// What changes from step to step lies in device memory, so that a launch can be recorded and run again: the array `numbers`,
// which paratrain/backends/cupy/updates.py fills before each step.
//     FACTOR     what gradients are multiplied by
//     CLIP       another factor, 1 unless `sum_totals` has found the gradient too large
//     LIMIT      the largest norm of a gradient; below 0 for none
//     UNSCALE    what its norm is multiplied by before it is compared with that (gradients of a scaled loss)
//     UNFIT      not 0: a loss or the gradient is not finite, and updates leave everything as it is; `note_losses` and
//                `sum_totals` set it
//     MET        not 0: an update has met a value of the gradient that is not finite, and left its parameter alone
//     NORM       of the gradient, as `sum_totals` has found it
//     LOSS ...   up to MOST_LOSSES numbers that `note_losses` has put there
//     RULE ...   of the rule, see there
//     RUNS ...   the rates of all runs, then their decays
constexpr int MOST_LOSSES = 4;
enum { FACTOR, CLIP, LIMIT, UNSCALE, UNFIT, MET, NORM, LOSS, RULE = LOSS + MOST_LOSSES, RUNS = RULE + 9 };

// Values travel in groups of 16 bytes, which one thread loads and stores at once.
constexpr int GROUP = 16 / sizeof(STORAGE);
struct alignas(16) Packed {
    STORAGE values[GROUP];
};
struct Group {
    ACCUMULATE values[GROUP];
};

// The values of `array` from `first` on, those of them that lie in [start, stop); a `whole` group lies there and is aligned.
__device__ __forceinline__ Group load_group(const STORAGE* array, int first, int start, int stop, bool whole) {
    Group group;
    if (whole) {
        const Packed packed = *reinterpret_cast<const Packed*>(array + first);
        for (int k = 0; k < GROUP; ++k) {
            group.values[k] = load(packed.values[k]);
        }
    } else {
        for (int k = 0; k < GROUP; ++k) {
            group.values[k] = first + k >= start && first + k < stop ? load(array[first + k]) : ACCUMULATE(0);
        }
    }
    return group;
}

__device__ __forceinline__ void store_group(STORAGE* array, const Group& group, int first, int start, int stop, bool whole) {
    if (whole) {
        Packed packed;
        for (int k = 0; k < GROUP; ++k) {
            store(packed.values[k], group.values[k]);
        }
        *reinterpret_cast<Packed*>(array + first) = packed;
    } else {
        for (int k = 0; k < GROUP; ++k) {
            if (first + k >= start && first + k < stop) {
                store(array[first + k], group.values[k]);
            }
        }
    }
}

// Infinity less itself, like what is not a number, is not 0.
__device__ __forceinline__ bool is_finite(ACCUMULATE value) { return value - value == 0; }

// Where the update stands: the run of the value at hand.
struct RunPlace {
    int run, stop;
    ACCUMULATE rate, decay;

    __device__ __forceinline__ void take(int number, const int* run_stops, int run_count, const ACCUMULATE* numbers) {
        run = number;
        stop = run_stops[number];
        rate = numbers[RUNS + number];
        decay = numbers[RUNS + run_count + number];
    }

    // To the run of value `index`, which is not before that of the last call.
    __device__ __forceinline__ void find(int index, const int* run_stops, int run_count, const ACCUMULATE* numbers) {
        int low = run, high = run_count - 1;
        while (low < high) {
            const int middle = (low + high) / 2;
            if (index < run_stops[middle]) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        take(low, run_stops, run_count, numbers);
    }
};

// The rules: what is subtracted from a value, given its gradient g, its histories h and the rate. `n` are a rule's numbers.

// h = momentum h + rate g; subtract h.
struct Sgd {
    static constexpr int HISTORIES = 1;
    ACCUMULATE momentum;
    __device__ __forceinline__ explicit Sgd(const ACCUMULATE* n) : momentum(n[0]) {}
    __device__ __forceinline__ ACCUMULATE operator()(ACCUMULATE g, ACCUMULATE& h, ACCUMULATE&, ACCUMULATE rate) const {
        h = momentum * h + rate * g;
        return h;
    }
};

// h' = momentum h + rate g; subtract (1 + momentum) h' - momentum h.
struct Nesterov {
    static constexpr int HISTORIES = 1;
    ACCUMULATE momentum, more;
    __device__ __forceinline__ explicit Nesterov(const ACCUMULATE* n) : momentum(n[0]), more(n[1]) {}
    __device__ __forceinline__ ACCUMULATE operator()(ACCUMULATE g, ACCUMULATE& h, ACCUMULATE&, ACCUMULATE rate) const {
        const ACCUMULATE kept = momentum * h;
        h = rate * g + kept;
        return more * h - kept;
    }
};

// h = h + g^2; subtract rate g / (sqrt(h) + delta).
struct AdaGrad {
    static constexpr int HISTORIES = 1;
    ACCUMULATE delta;
    __device__ __forceinline__ explicit AdaGrad(const ACCUMULATE* n) : delta(n[0]) {}
    __device__ __forceinline__ ACCUMULATE operator()(ACCUMULATE g, ACCUMULATE& h, ACCUMULATE&, ACCUMULATE rate) const {
        h = h + g * g;
        return rate * (g / (sqrt(h) + delta));
    }
};

// h = decay h + (1 - decay) g^2; subtract rate g / (sqrt(h) + delta).
struct RmsProp {
    static constexpr int HISTORIES = 1;
    ACCUMULATE kept, taken, delta;
    __device__ __forceinline__ explicit RmsProp(const ACCUMULATE* n) : kept(n[0]), taken(n[1]), delta(n[2]) {}
    __device__ __forceinline__ ACCUMULATE operator()(ACCUMULATE g, ACCUMULATE& h, ACCUMULATE&, ACCUMULATE rate) const {
        h = kept * h + taken * (g * g);
        return rate * (g / (sqrt(h) + delta));
    }
};

// h = momentum h + (1 - momentum) g^2; u = g sqrt(h2 + delta) / sqrt(h + delta); h2 = momentum h2 + (1 - momentum) u^2;
// subtract rate u.
struct AdaDelta {
    static constexpr int HISTORIES = 2;
    ACCUMULATE kept, taken, delta;
    __device__ __forceinline__ explicit AdaDelta(const ACCUMULATE* n) : kept(n[0]), taken(n[1]), delta(n[2]) {}
    __device__ __forceinline__ ACCUMULATE operator()(ACCUMULATE g, ACCUMULATE& h, ACCUMULATE& h2, ACCUMULATE rate) const {
        h = kept * h + taken * (g * g);
        const ACCUMULATE u = g / sqrt(h + delta) * sqrt(h2 + delta);
        h2 = kept * h2 + taken * (u * u);
        return rate * u;
    }
};

// h = momentum h + (1 - momentum) g; h2 = momentum2 h2 + (1 - momentum2) g^2; subtract rate correction h / (sqrt(h2) + delta).
struct Adam {
    static constexpr int HISTORIES = 2;
    ACCUMULATE kept, taken, kept2, taken2, correction, delta;
    __device__ __forceinline__ explicit Adam(const ACCUMULATE* n)
        : kept(n[0]), taken(n[1]), kept2(n[2]), taken2(n[3]), correction(n[4]), delta(n[5]) {}
    __device__ __forceinline__ ACCUMULATE operator()(ACCUMULATE g, ACCUMULATE& h, ACCUMULATE& h2, ACCUMULATE rate) const {
        h = kept * h + taken * g;
        h2 = kept2 * h2 + taken2 * (g * g);
        return rate * correction * (h / (sqrt(h2) + delta));
    }
};

// For every value i from start up to stop, w being `data`:
//     g = (diff [+ second_diff]) * FACTOR * CLIP;   where not decoupled: g += decay * (L1 ? sign(w) : w)
//     u = rule(g, history ...);                     where decoupled:     u += rate * decay * (L1 ? sign(w) : w)
//     w -= u;                                       kept[i] = u, unless kept is null
// second_diff may be null, kept may be diff. The arrays are those of the whole net: `count` is that of the groups of GROUP
// values which have some of the range, the first of them at the group of `start`. `is_aligned` says that all arrays begin at
// 16 bytes. Where `guarded`, a sum of diffs that is not finite leaves its value, histories and kept as they are, and sets MET.
// A group is the work of one thread, each value is read and written once, and none depends on how many threads there are.
template <class Rule>
__device__ __forceinline__ void update(
    int count, int start, int stop, STORAGE* data, const STORAGE* diff, const STORAGE* second_diff, STORAGE* history,
    STORAGE* history2, STORAGE* kept, const int* run_stops, int run_count, ACCUMULATE* numbers, int is_l1, int is_decoupled,
    int is_guarded, int is_aligned
) {
    if (numbers[UNFIT] != 0) {
        return;
    }
    const Rule rule(numbers + RULE);
    const ACCUMULATE factor = numbers[FACTOR] * numbers[CLIP];
    const int first_group = start / GROUP;
    RunPlace place;
    place.run = place.stop = 0;
    place.rate = place.decay = 0;
    FOR_EACH(i, count) {
        const int first = (first_group + static_cast<int>(i)) * GROUP;
        const bool whole = is_aligned && first >= start && first <= stop - GROUP;
        if (first >= place.stop) {
            place.find(first, run_stops, run_count, numbers);
        }
        Group w = load_group(data, first, start, stop, whole), u = load_group(diff, first, start, stop, whole);
        Group h = load_group(history, first, start, stop, whole), h2 = {};
        if (Rule::HISTORIES > 1) {
            h2 = load_group(history2, first, start, stop, whole);
        }
        if (second_diff) {
            const Group second = load_group(second_diff, first, start, stop, whole);
            for (int k = 0; k < GROUP; ++k) {
                u.values[k] += second.values[k];
            }
        }
        for (int k = 0; k < GROUP; ++k) {
            while (first + k >= place.stop && place.run + 1 < run_count) {
                place.take(place.run + 1, run_stops, run_count, numbers);
            }
            if (is_guarded && !is_finite(u.values[k])) {
                numbers[MET] = 1;
                continue;
            }
            ACCUMULATE penalty = 0;
            if (place.decay != 0) {
                const ACCUMULATE value = w.values[k];
                penalty = place.decay * (is_l1 ? ACCUMULATE((value > 0) - (value < 0)) : value);
            }
            const ACCUMULATE gradient = factor * u.values[k] + (is_decoupled ? ACCUMULATE(0) : penalty);
            ACCUMULATE step = rule(gradient, h.values[k], h2.values[k], place.rate);
            if (is_decoupled) {
                step += place.rate * penalty;
            }
            u.values[k] = step;
            w.values[k] -= step;
        }
        store_group(data, w, first, start, stop, whole);
        store_group(history, h, first, start, stop, whole);
        if (Rule::HISTORIES > 1) {
            store_group(history2, h2, first, start, stop, whole);
        }
        if (kept) {
            store_group(kept, u, first, start, stop, whole);
        }
    }
}

#define UPDATE_KERNEL(name, Rule)                                                                                            \
    extern "C" __global__ void name(                                                                                         \
        int count, int start, int stop, STORAGE* data, const STORAGE* diff, const STORAGE* second_diff, STORAGE* history,    \
        STORAGE* history2, STORAGE* kept, const int* run_stops, int run_count, ACCUMULATE* numbers, int is_l1,               \
        int is_decoupled, int is_guarded, int is_aligned                                                                     \
    ) {                                                                                                                      \
        update<Rule>(                                                                                                        \
            count, start, stop, data, diff, second_diff, history, history2, kept, run_stops, run_count, numbers, is_l1,      \
            is_decoupled, is_guarded, is_aligned                                                                             \
        );                                                                                                                   \
    }

UPDATE_KERNEL(update_sgd, Sgd)
UPDATE_KERNEL(update_nesterov, Nesterov)
UPDATE_KERNEL(update_adagrad, AdaGrad)
UPDATE_KERNEL(update_rmsprop, RmsProp)
UPDATE_KERNEL(update_adadelta, AdaDelta)
UPDATE_KERNEL(update_adam, Adam)

// Put the first value of up to MOST_LOSSES arrays into `numbers`, and set UNFIT if one of them is not finite. One block.
extern "C" __global__ void note_losses(
    int count, const STORAGE* first, const STORAGE* second, const STORAGE* third, const STORAGE* fourth, ACCUMULATE* numbers
) {
    const STORAGE* const losses[MOST_LOSSES] = {first, second, third, fourth};
    if (threadIdx.x == 0) {
        for (int k = 0; k < count; ++k) {
            const ACCUMULATE loss = load(losses[k][0]);
            numbers[LOSS + k] = loss;
            if (!is_finite(loss)) {
                numbers[UNFIT] = 1;
            }
        }
    }
}

// Sums are double, which no sum of squares of floats exceeds: one is finite just where all that was added is.
constexpr int SUM_THREADS = 256;

// As block_sum(), for doubles of a block of SUM_THREADS.
__device__ __forceinline__ double block_sum_double(double value, double* shared) {
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int width = SUM_THREADS / 2; width > 0; width /= 2) {
        if (threadIdx.x < width) {
            shared[threadIdx.x] += shared[threadIdx.x + width];
        }
        __syncthreads();
    }
    return shared[0];
}

// sums[b] = the sum of one * other over piece b, from bounds[2 b] up to bounds[2 b + 1]; one may be other. A block makes a piece:
// its threads take neighbouring groups, and then their sums are added in a fixed order. Not a number where a value is not finite.
extern "C" __global__ void sum_pieces(
    int piece_count, const int* bounds, const STORAGE* one, const STORAGE* other, double* sums, int is_aligned
) {
    __shared__ double shared[SUM_THREADS];
    for (int piece = blockIdx.x; piece < piece_count; piece += gridDim.x) {
        const int start = bounds[2 * piece], stop = bounds[2 * piece + 1];
        double sum = 0;
        ACCUMULATE trace = 0;  // not a number from the first value on that is not finite
        const unsigned end = stop;  // the step behind it may pass 2^31
        for (unsigned next = (start / GROUP + threadIdx.x) * GROUP; next < end; next += SUM_THREADS * GROUP) {
            const int first = next;
            const bool whole = is_aligned && first >= start && first <= stop - GROUP;
            const Group a = load_group(one, first, start, stop, whole);
            const Group b = one == other ? a : load_group(other, first, start, stop, whole);
            for (int k = 0; k < GROUP; ++k) {
                const ACCUMULATE x = a.values[k], y = b.values[k];
                const double wide = x;
                sum += wide * (one == other ? wide : static_cast<double>(y));
                trace += (x - x) + (y - y);
            }
        }
        const double total = block_sum_double(sum + trace, shared);
        if (threadIdx.x == 0) {
            sums[piece] = total;
        }
    }
}

// totals[r] = the sum of the sums of pieces first_piece[r] up to first_piece[r + 1]; a block makes each. With `numbers`, for
// which the first total is the square of the gradient's norm, it sets NORM, UNFIT and CLIP: LIMIT / norm where that is too large.
extern "C" __global__ void sum_totals(
    int total_count, const int* first_piece, const double* sums, double* totals, ACCUMULATE* numbers
) {
    __shared__ double shared[SUM_THREADS];
    for (int index = blockIdx.x; index < total_count; index += gridDim.x) {
        double sum = 0;
        for (int piece = first_piece[index] + threadIdx.x; piece < first_piece[index + 1]; piece += SUM_THREADS) {
            sum += sums[piece];
        }
        const double total = block_sum_double(sum, shared);
        if (threadIdx.x == 0) {
            totals[index] = total;
            if (numbers && index == 0) {
                const double norm = sqrt(total) * static_cast<double>(numbers[UNSCALE]);
                const double limit = numbers[LIMIT];
                numbers[NORM] = norm;
                if (total != total) {
                    numbers[UNFIT] = 1;  // not 0 otherwise: a loss may have set it
                }
                numbers[CLIP] = limit >= 0 && norm > limit ? limit / norm : 1.0;
            }
        }
    }
}
