// SIMULATED_GPU_CHECKS=1: every access of a kernel to memory is looked at before it happens.
//
// Kernels are compiled with -fsanitize=thread, by which g++ calls a function before each access; here are these functions, in the
// place of those of its library. They find accesses outside of what a kernel was given, values that were never written,
// and races: two threads at one place, one of which writes there, without anything that says who comes first.
//
// What says so: a barrier of the block; between blocks, that all threads of the first have called __threadfence() before a barrier
// after which one of them did something atomic, and that a thread of the second did so too before another barrier, after which
// the thread at hand has called __threadfence(). Waiting within a warp counts as if the block had waited. Two threads
// that write the same number are let be, and atomic operations do not race with one another.
#pragma once

#if SIMULATED_CHECKS
extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[], _end[];

namespace simulated {

// Of one byte: who wrote it and read it last, and in which phase. A phase of 0 is none.
struct Cell {
    unsigned writer, write_phase, reader, read_phase, flags;
};
enum : unsigned { ATOMIC = 1, READ_BY_MANY = 2, READ_BY_BLOCKS = 4 };
// A block of memory; a kernel that was given arrays in it may use these, else all of it.
struct Memory {
    unsigned long long start, stop, first_part, part_count;
    Cell* cells;
};
struct Part {
    unsigned long long start, stop;
};
static const Memory *memories, *last;  // the last that was looked for
static unsigned long long memory_count;
static const Part* parts;
static unsigned* released;  // of each block, the last phase whose writes others may read
static unsigned first_phase, acquired, fence_phases[MOST_THREADS];
static Cell fixed_cells[MOST_FIXED], dynamic_cells[MOST_SHARED];

static struct {
    unsigned char* place;
    unsigned size;
    unsigned char before[16];
    const void* at;
} same_value;

// What watching.py finds the line of the source by.
SIMULATED_UNWATCHED static void accuse(const char* what, const void* at, unsigned size) {
    if (!problem[0]) {
        snprintf(problem, sizeof problem, "%s: %u bytes at [+%#llx]", what, size,
                 static_cast<unsigned long long>(static_cast<const char*>(at) - __ehdr_start) - 1);
    }
}

// Whether a second writer has written another value than the first.
SIMULATED_UNWATCHED static void compare_values() {
    if (same_value.place && __builtin_memcmp(same_value.place, same_value.before, same_value.size)) {
        accuse("two threads write different values to one place", same_value.at, same_value.size);
    }
    same_value.place = nullptr;
}

SIMULATED_UNWATCHED static void begin_block_watch() {
    acquired = fences = full_fence = 0;
    for (unsigned i = 0; i < MOST_THREADS; ++i) fence_phases[i] = 0;
}

SIMULATED_UNWATCHED static void fence() {
    fences += fence_phases[current] != phase;
    fence_phases[current] = phase;
}

SIMULATED_UNWATCHED static bool is_ordered(unsigned other, unsigned other_phase) {
    const unsigned block = other / thread_count;
    if (block == block_number) return other_phase != phase;
    return other_phase <= released[block] && acquired && fence_phases[current] > acquired;
}

SIMULATED_UNWATCHED static bool is_poison(const unsigned char* place, unsigned size, bool is_shared) {
    static const unsigned char global[] = {0xFD, 0xFF, 0xA0, 0x7F, 0xFD, 0xFF, 0xF4, 0x7F};  // as in memory.py
    const unsigned char* from = place;
    if (size == 1) from -= reinterpret_cast<size_t>(place) % 8, size = 8;
    for (unsigned i = 0; i < size; ++i) {
        const size_t address = reinterpret_cast<size_t>(from + i);
        if (from[i] != (is_shared ? global[address % 2] : global[address % 8])) return false;
    }
    return true;
}

SIMULATED_UNWATCHED static void look_at_cell(Cell& cell, unsigned since, unsigned self, bool is_write, bool is_atomic, unsigned char* place,
                                             unsigned size, const void* at) {
    const bool was_atomic = cell.flags & ATOMIC;
    if (cell.write_phase >= since && cell.writer != self && !(is_atomic && was_atomic) &&
        !is_ordered(cell.writer, cell.write_phase)) {
        if (!is_write || is_atomic || was_atomic || size > 16) {
            accuse(is_write ? "two threads write to one place" : "a thread reads what another writes", at, size);
        } else if (same_value.place != place) {
            same_value = {place, size, {}, at};
            __builtin_memcpy(same_value.before, place, size);
        }
    }
    const bool was_read = cell.read_phase >= since;
    if (is_write) {
        const bool others = was_read && !is_atomic &&
                            ((cell.flags & READ_BY_BLOCKS && !acquired) ||
                             (cell.reader != self && !is_ordered(cell.reader, cell.read_phase)) ||
                             (cell.flags & READ_BY_MANY && cell.read_phase == phase));
        if (others) accuse("a thread writes what another reads", at, size);
        cell.writer = self;
        cell.write_phase = phase;
        cell.flags = (cell.flags & ~ATOMIC) | (is_atomic ? ATOMIC : 0);
    } else {
        unsigned flags = cell.flags & ATOMIC;
        if (was_read) {
            flags |= cell.flags & READ_BY_BLOCKS;
            if (cell.reader / thread_count != block_number) flags |= READ_BY_BLOCKS;
            if (cell.read_phase == phase && (cell.reader != self || cell.flags & READ_BY_MANY)) flags |= READ_BY_MANY;
        }
        cell.reader = self;
        cell.read_phase = phase;
        cell.flags = flags;
    }
}

SIMULATED_UNWATCHED static void leave(const char* what, const void* at, unsigned size) {
    accuse(what, at, size);
    abandon();
}

SIMULATED_UNWATCHED static void look(void* address, unsigned size, bool is_write, bool is_atomic, const void* at) {
    const char* const frame = static_cast<const char*>(__builtin_frame_address(0));
    const char* const stacks_end = stacks + static_cast<size_t>(MOST_THREADS) * STACK_BYTES;
    char* const place = static_cast<char*>(address);
    if (!memories || frame < stacks || frame >= stacks_end || (place >= stacks && place < stacks_end)) return;
    compare_values();
    Cell* cells = nullptr;
    const bool is_fixed = place >= fixed_shared && place < fixed_shared + sizeof fixed_shared;
    const bool is_dynamic = place >= dynamic_shared && place < dynamic_shared + sizeof dynamic_shared;
    if (is_fixed) {
        const unsigned offset = static_cast<unsigned>(place - fixed_shared);
        bool is_inside = false;
        for (unsigned i = 0; i < array_count && !is_inside; ++i) {
            is_inside = offset >= arrays[i].start && offset + size <= arrays[i].stop;
        }
        if (!is_inside) leave("beyond a shared array", at, size);
        cells = fixed_cells + offset;
    } else if (is_dynamic) {
        const size_t offset = place - dynamic_shared;
        if (offset + size > dynamic_bytes) leave("beyond the shared memory that it has", at, size);
        cells = dynamic_cells + offset;
    } else if (place >= __ehdr_start && place < _end) {
        return;
    } else {
        const size_t start = reinterpret_cast<size_t>(place);
        if (!last || start < last->start || start + size > last->stop) {
            unsigned long long low = 0, high = memory_count;
            while (low < high) {
                const unsigned long long middle = (low + high) / 2;
                if (memories[middle].stop <= start) low = middle + 1; else high = middle;
            }
            last = memories + low;
            if (low == memory_count || start < last->start || start + size > last->stop) {
                last = nullptr;
                leave("no memory of an array", at, size);
            }
        }
        bool is_inside = !last->part_count;
        for (unsigned long long i = 0; i < last->part_count && !is_inside; ++i) {
            const Part& part = parts[last->first_part + i];
            is_inside = start >= part.start && start + size <= part.stop;
        }
        if (!is_inside) leave(is_write ? "writes outside of its arrays" : "reads outside of its arrays", at, size);
        cells = last->cells ? last->cells + (start - last->start) : nullptr;
    }
    if (!is_write && is_poison(reinterpret_cast<unsigned char*>(place), size, is_fixed || is_dynamic)) {
        accuse("reads what was never written", at, size);
    }
    const unsigned self = block_number * thread_count + current, since = is_fixed || is_dynamic ? block_phase : first_phase;
    for (unsigned i = 0; cells && i < size; ++i) {
        look_at_cell(cells[i], since, self, is_write, is_atomic, reinterpret_cast<unsigned char*>(place), size, at);
    }
}

// Of an atomic operation, before it is done.
SIMULATED_UNWATCHED static void look_at_atomic(void* place, unsigned size, const void* at) {
    look(place, size, true, true, at);
    if (released && full_fence) released[block_number] = full_fence;
    acquired = phase;
}

extern "C" __attribute__((visibility("default"))) void simulated_watch(const Memory* given, unsigned long long count,
                                                                       const Part* given_parts, unsigned* of_blocks,
                                                                       unsigned first) {
    memories = given;
    last = nullptr;
    memory_count = count;
    parts = given_parts;
    released = of_blocks;
    first_phase = phase = first;
    same_value.place = nullptr;
}
extern "C" __attribute__((visibility("default"))) unsigned simulated_end_watch() {
    compare_values();
    memories = nullptr;
    return phase;
}

}  // namespace simulated

#define WATCHED(name, size, is_write)                                                                     \
    extern "C" __attribute__((visibility("hidden"), used)) SIMULATED_UNWATCHED void __tsan_##name(void* place) { \
        simulated::look(place, size, is_write, false, __builtin_return_address(0));                       \
    }
WATCHED(read1, 1, false) WATCHED(read2, 2, false) WATCHED(read4, 4, false) WATCHED(read8, 8, false) WATCHED(read16, 16, false)
WATCHED(write1, 1, true) WATCHED(write2, 2, true) WATCHED(write4, 4, true) WATCHED(write8, 8, true) WATCHED(write16, 16, true)
WATCHED(unaligned_read2, 2, false) WATCHED(unaligned_read4, 4, false) WATCHED(unaligned_read8, 8, false)
WATCHED(unaligned_read16, 16, false) WATCHED(unaligned_write2, 2, true) WATCHED(unaligned_write4, 4, true)
WATCHED(unaligned_write8, 8, true) WATCHED(unaligned_write16, 16, true)
#undef WATCHED
#define WATCHED_RANGE(name, is_write)                                                                                          \
    extern "C" __attribute__((visibility("hidden"), used)) SIMULATED_UNWATCHED void __tsan_##name(void* place, size_t size) {  \
        simulated::look(place, static_cast<unsigned>(size), is_write, false, __builtin_return_address(0));                     \
    }
WATCHED_RANGE(read_range, false) WATCHED_RANGE(write_range, true)
#undef WATCHED_RANGE
extern "C" __attribute__((visibility("hidden"), used)) SIMULATED_UNWATCHED void __tsan_func_entry(void*) {}
extern "C" __attribute__((visibility("hidden"), used)) SIMULATED_UNWATCHED void __tsan_func_exit() {}
extern "C" __attribute__((visibility("hidden"), used)) SIMULATED_UNWATCHED void __tsan_init() {}

// What other parts of -fsanitize call; see compiler.py.
#define WRONG(name, what)                                                                                               \
    extern "C" __attribute__((visibility("hidden"), used)) SIMULATED_UNWATCHED void __ubsan_handle_##name(SimulatedMismatch* where, ...) { \
        simulated::fail(what, where->line);                                                                             \
    }
WRONG(add_overflow, "a sum of ints beyond 32 bits") WRONG(sub_overflow, "a difference of ints beyond 32 bits")
WRONG(mul_overflow, "a product of ints beyond 32 bits") WRONG(negate_overflow, "an int that has no negative")
WRONG(divrem_overflow, "a division by 0") WRONG(shift_out_of_bounds, "a shift by too many bits")
WRONG(out_of_bounds, "an index beyond an array") WRONG(float_cast_overflow, "a number too large for an int")
#undef WRONG
#endif
