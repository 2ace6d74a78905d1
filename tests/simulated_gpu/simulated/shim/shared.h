// The shared memory of a block: filled with what is no number when a block begins, and looked at beyond its arrays when it has ended.
#pragma once

namespace simulated {

enum : unsigned { MOST_SHARED = 232448, MOST_FIXED = 256 << 10, MOST_ARRAYS = 256, GUARD = 512, GAP = 32 };
__attribute__((aligned(128))) static char dynamic_shared[MOST_SHARED + GUARD], fixed_shared[MOST_FIXED];
static unsigned dynamic_bytes, fixed_bytes, array_count;
static struct {
    unsigned start, stop;
} arrays[MOST_ARRAYS];

// A value that is no number in any type.
SIMULATED_UNWATCHED static void poison(char* start, const char* stop) {
    for (; start < stop; start += 2) start[0] = static_cast<char>(0xFD), start[1] = static_cast<char>(0xFF);
}

SIMULATED_UNWATCHED static bool is_poisoned(const char* start, const char* stop) {
    for (; start < stop; ++start) {
        if (*start != static_cast<char>(reinterpret_cast<size_t>(start) % 2 ? 0xFF : 0xFD)) return false;
    }
    return true;
}

// Where an array of fixed size has its place: asked for once for each, when a thread first comes by.
template <typename T> SIMULATED_UNWATCHED static unsigned take_shared() {
    const unsigned start = (fixed_bytes + alignof(T) - 1) / alignof(T) * alignof(T);
    fixed_bytes = (start + sizeof(T) + GAP + 15) / 16 * 16;
    if (fixed_bytes > MOST_FIXED || array_count == MOST_ARRAYS) __builtin_trap();
    arrays[array_count++] = {start, static_cast<unsigned>(start + sizeof(T))};
    poison(fixed_shared + start / 2 * 2, fixed_shared + fixed_bytes);
    return start;
}

SIMULATED_UNWATCHED static void begin_shared() {
    poison(fixed_shared, fixed_shared + fixed_bytes);
    poison(dynamic_shared, dynamic_shared + dynamic_bytes + GUARD);
}

// Whether nothing was written beyond what a block has.
SIMULATED_UNWATCHED static bool end_shared() {
    for (unsigned i = 0; i < array_count; ++i) {
        if (!is_poisoned(fixed_shared + arrays[i].stop, fixed_shared + arrays[i].stop + GAP)) {
            snprintf(problem, sizeof problem, "it wrote beyond the %u bytes of a shared array", arrays[i].stop - arrays[i].start);
            return false;
        }
    }
    if (!is_poisoned(dynamic_shared + dynamic_bytes, dynamic_shared + dynamic_bytes + GUARD / 2)) {
        snprintf(problem, sizeof problem, "it wrote beyond the %u bytes of shared memory that it has", dynamic_bytes);
        return false;
    }
    return true;
}

}  // namespace simulated
