// The threads of a block, one after another on one thread of the host, and how they wait for one another.
//
// A worker runs one thread after another as plain calls. Where a thread waits, its worker keeps the thread's stack and the
// next worker goes on with the threads that have not begun. When all have begun, those that may go on are resumed. Whenever
// threads have met they get on in another order: a kernel that counts on one lacks a barrier.
#pragma once
#include "orders.h"
#if !defined(__x86_64__)
#define SIMULATED_UCONTEXT 1
#include <ucontext.h>
#endif

extern "C" void* mmap(void*, size_t, int, int, int, long) noexcept;
extern "C" int snprintf(char*, size_t, const char*, ...) noexcept;

namespace simulated {

enum : int { MOST_THREADS = 1024, STACK_BYTES = 128 << 10 };
enum State : int { RUNNING, READY, AT_BLOCK, AT_WARP, DONE };

struct Kernel;
static void call(const Kernel* kernel, void** arguments);

#if SIMULATED_UCONTEXT
typedef ucontext_t Place;
static inline void jump(Place& from, Place& to) { swapcontext(&from, &to); }
#else
typedef void* Place;
extern "C" __attribute__((visibility("hidden"))) void simulated_jump(void** from, void* to);
asm(R"(
.text
.globl simulated_jump
.hidden simulated_jump
.type simulated_jump, @function
simulated_jump:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simulated_jump, .-simulated_jump
)");
static inline void jump(Place& from, Place& to) { simulated_jump(&from, to); }
#endif

struct Thread {
    State state;
    int worker, line;
    unsigned mask;
    unsigned long long value;
    Place place;
};
static Thread threads[MOST_THREADS];
static int thread_count, begun, done, current, worker, free_count, free_workers[MOST_THREADS], turns[MOST_THREADS];
static bool worker_ended;
static Place scheduler, beginnings[MOST_THREADS];
static char* stacks;
static const Kernel* kernel;
static void** arguments;
static char problem[200];
// For watch.h: `phase` counts up where threads have met and where a block begins; how many have called __threadfence() in it, and
// the last in which all had.
static unsigned phase = 1, block_phase, block_number, fences, full_fence;

static void select(int thread) {
    current = thread;
    threadIdx.x = thread % blockDim.x;
    threadIdx.y = thread / blockDim.x % blockDim.y;
    threadIdx.z = thread / (blockDim.x * blockDim.y);
}

static void work() {
    while (true) {
        while (begun < thread_count) {
            const int thread = turns[begun++];
            select(thread);
            call(kernel, arguments);
            threads[current].state = DONE;
            ++done;
        }
        worker_ended = true;
        jump(beginnings[worker], scheduler);
    }
}

static void start_worker() {
    worker = free_workers[--free_count];
    char* top = stacks + static_cast<size_t>(worker + 1) * STACK_BYTES;
#if SIMULATED_UCONTEXT
    getcontext(&beginnings[worker]);
    beginnings[worker].uc_stack.ss_sp = top - STACK_BYTES;
    beginnings[worker].uc_stack.ss_size = STACK_BYTES;
    beginnings[worker].uc_link = nullptr;
    makecontext(&beginnings[worker], work, 0);
#else
    void** frame = reinterpret_cast<void**>(top) - 8;  // six registers, the address to return to, and none above it
    for (int i = 0; i < 8; ++i) frame[i] = nullptr;
    frame[6] = reinterpret_cast<void*>(&work);
    beginnings[worker] = frame;
#endif
    worker_ended = false;
    jump(scheduler, beginnings[worker]);
    if (worker_ended) free_workers[free_count++] = worker;
}

static void resume(int thread) {
    select(thread);
    threads[thread].state = RUNNING;
    worker = threads[thread].worker;
    worker_ended = false;
    jump(scheduler, threads[thread].place);
    if (worker_ended) free_workers[free_count++] = worker;
}

__attribute__((noinline)) static void wait(State state, unsigned mask, int line) {
    const int thread = current;
    threads[thread].state = state;
    threads[thread].mask = mask;
    threads[thread].line = line;
    threads[thread].worker = worker;
    jump(threads[thread].place, scheduler);
}

// Let go of the lanes whose whole mask has come, or ended.
static bool release_warps() {
    static bool may_go[MOST_THREADS];
    bool any = false;
    for (int thread = 0; thread < thread_count; ++thread) {
        may_go[thread] = threads[thread].state == AT_WARP;
        for (int lane = 0; may_go[thread] && lane < 32; ++lane) {
            const int other = thread / 32 * 32 + lane;
            if (threads[thread].mask >> lane & 1 && other < thread_count) {
                may_go[thread] = threads[other].state == AT_WARP || threads[other].state == DONE;
            }
        }
    }
    for (int thread = 0; thread < thread_count; ++thread) {
        if (may_go[thread]) threads[thread].state = READY, any = true;
    }
    phase += any;
    return any;
}

static bool release_block() {
    int line = 0;
    for (int thread = 0; thread < thread_count; ++thread) {
        if (threads[thread].state == DONE) continue;
        if (threads[thread].state != AT_BLOCK) {
            snprintf(problem, sizeof problem, "thread %d waits for its warp on line %d, which never comes together", thread,
                     threads[thread].line);
            return false;
        }
        if (line && threads[thread].line != line) {
            snprintf(problem, sizeof problem, "threads of one block wait at different barriers: on line %d and on line %d", line,
                     threads[thread].line);
            return false;
        }
        line = threads[thread].line;
    }
    for (int thread = 0; thread < thread_count; ++thread) {
        if (threads[thread].state == AT_BLOCK) threads[thread].state = READY;
    }
    if (int(fences) == thread_count - done) full_fence = phase;
    fences = 0;
    ++phase;
    return true;
}

static bool run_block(const Kernel* of, void** with) {
    if (!stacks) {
        const int read_write = 3, private_anonymous_noreserve = 0x4022;
        stacks = static_cast<char*>(mmap(nullptr, size_t(MOST_THREADS) * STACK_BYTES, read_write,
                                         private_anonymous_noreserve, -1, 0));
    }
    kernel = of;
    arguments = with;
    begun = done = 0;
    block_phase = ++phase;
    thread_count = blockDim.x * blockDim.y * blockDim.z;
    free_count = MOST_THREADS;
    for (int i = 0; i < MOST_THREADS; ++i) free_workers[i] = MOST_THREADS - 1 - i;
    for (int i = 0; i < thread_count; ++i) threads[i].state = RUNNING;
    draw_turns(turns, thread_count);
    while (begun < thread_count) start_worker();
    while (done < thread_count) {
        if (problem[0] || (!release_warps() && !release_block())) return false;
        draw_turns(turns, thread_count);
        for (int i = 0; i < thread_count; ++i) {
            if (threads[turns[i]].state == READY) resume(turns[i]);
        }
    }
    return problem[0] == 0;
}

static int tally(int predicate, int line) {
    threads[current].value = predicate != 0;
    wait(AT_BLOCK, 0, line);
    int sum = 0;
    for (int thread = 0; thread < thread_count; ++thread) sum += threads[thread].state != DONE && threads[thread].value;
    wait(AT_BLOCK, 0, line);
    return sum;
}

static unsigned vote(unsigned mask, int predicate, int line) {
    const int first = current / 32 * 32;
    threads[current].value = predicate != 0;
    wait(AT_WARP, mask, line);
    unsigned lanes = 0;
    for (int lane = 0; lane < 32 && first + lane < thread_count; ++lane) {
        const Thread& other = threads[first + lane];
        if (mask >> lane & 1 && other.state != DONE && other.value) lanes |= 1u << lane;
    }
    wait(AT_WARP, mask, line);
    return lanes;
}

// The value of a lane; of one that takes no part nobody knows: here it is the thread's own.
template <typename T> static T fetch(unsigned mask, T value, int lane, int line) {
    static_assert(sizeof(T) <= 8, "at most 64 bits are exchanged");
    const int first = current / 32 * 32, self = current;
    threads[self].value = 0;
    __builtin_memcpy(&threads[self].value, &value, sizeof value);
    wait(AT_WARP, mask, line);
    const int other = first + lane;
    T result = value;
    if (lane >= 0 && lane < 32 && other < thread_count && mask >> lane & 1) {
        __builtin_memcpy(&result, &threads[other].value, sizeof result);
    }
    wait(AT_WARP, mask, line);
    return result;
}
static inline int lane() { return current % 32; }
template <typename T> static T shuffle(unsigned mask, T value, int source, int width, int line) {
    return fetch(mask, value, lane() / width * width + (source & (width - 1)), line);
}
template <typename T> static T shuffle_up(unsigned mask, T value, unsigned delta, int width, int line) {
    return fetch(mask, value, lane() % width >= int(delta) ? lane() - int(delta) : lane(), line);
}
template <typename T> static T shuffle_down(unsigned mask, T value, unsigned delta, int width, int line) {
    return fetch(mask, value, lane() % width + int(delta) < width ? lane() + int(delta) : lane(), line);
}
template <typename T> static T shuffle_xor(unsigned mask, T value, int bits, int width, int line) {
    const int other = lane() ^ bits;
    return fetch(mask, value, other / width <= lane() / width ? other : lane(), line);
}
template <typename T> static T warp_sum(unsigned mask, T value, int line) {
    T sum = 0;
    for (int other = 0; other < 32; ++other) {
        if (mask >> other & 1) sum += fetch(mask, value, other, line);
    }
    return sum;
}
static unsigned active_mask() {
    unsigned lanes = 0;
    for (int lane = 0, first = current / 32 * 32; lane < 32 && first + lane < thread_count; ++lane) {
        lanes |= unsigned(threads[first + lane].state != DONE) << lane;
    }
    return lanes;
}

// For a thread that cannot go on: it ends where it is, and the launch fails.
[[noreturn]] static void abandon() {
    threads[current].state = DONE;
    ++done;
    worker_ended = false;
    jump(threads[current].place, scheduler);
    __builtin_unreachable();
}

}  // namespace simulated

// Options that may be left out come last: the width of a shuffle, the mask of a warp.
#define __syncthreads() simulated::wait(simulated::AT_BLOCK, 0, __LINE__)
#define __syncthreads_count(predicate) simulated::tally(predicate, __LINE__)
#define __syncthreads_or(predicate) (simulated::tally(predicate, __LINE__) != 0)
#define __syncthreads_and(predicate) (simulated::tally(!(predicate), __LINE__) == 0)
#define SIMULATED_FIRST(first, ...) first
#define __syncwarp(...) simulated::wait(simulated::AT_WARP, SIMULATED_FIRST(__VA_ARGS__ __VA_OPT__(, ) 0xffffffffu), __LINE__)
#define SIMULATED_SHUFFLE(name, mask, value, where, width, ...) simulated::name(mask, value, where, width, __LINE__)
#define __shfl_sync(...) SIMULATED_SHUFFLE(shuffle, __VA_ARGS__, 32, 0)
#define __shfl_up_sync(...) SIMULATED_SHUFFLE(shuffle_up, __VA_ARGS__, 32, 0)
#define __shfl_down_sync(...) SIMULATED_SHUFFLE(shuffle_down, __VA_ARGS__, 32, 0)
#define __shfl_xor_sync(...) SIMULATED_SHUFFLE(shuffle_xor, __VA_ARGS__, 32, 0)
#define __ballot_sync(mask, predicate) simulated::vote(mask, predicate, __LINE__)
#define __any_sync(mask, predicate) (simulated::vote(mask, predicate, __LINE__) != 0)
#define __all_sync(mask, predicate) (simulated::vote(mask, !(predicate), __LINE__) == 0)
#define __reduce_add_sync(mask, value) simulated::warp_sum(mask, value, __LINE__)
#define __activemask() simulated::active_mask()
#define __trap() simulated::fail("__trap()", __LINE__)
#define assert(condition) ((condition) ? void() : simulated::fail("assert(" #condition ")", __LINE__))

namespace simulated {
// Noted, and raised when the launch ends.
static inline void fail(const char* what, int line) {
    if (!problem[0]) snprintf(problem, sizeof problem, "%s on line %d", what, line);
}
}  // namespace simulated

// What the compiler calls where an address is no multiple of what its type asks for, see compiler.py.
struct SimulatedMismatch {
    const char* file;
    unsigned line, column;
};
extern "C" __attribute__((visibility("hidden"), used, noinline)) void __ubsan_handle_type_mismatch_v1(SimulatedMismatch* where,
                                                                                                     size_t) {
    simulated::fail("misaligned address", where->line);
    simulated::abandon();
}
