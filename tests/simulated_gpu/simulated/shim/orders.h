// In which order blocks run, and the threads of a block between two barriers.
#pragma once

namespace simulated {

enum : int { DRAWN, UPWARDS, DOWNWARDS, SHUFFLED };
static int order_kind = DRAWN;
static unsigned long long order_state = 1;

extern "C" __attribute__((visibility("default"))) void simulated_set_order(int kind, unsigned long long seed) {
    order_kind = kind;
    order_state = seed * 0x9E3779B97F4A7C15ull + 1;
}

// The same numbers in each process, 32 bits of them.
static unsigned draw() {
    order_state = order_state * 6364136223846793005ull + 1442695040888963407ull;
    return unsigned(order_state >> 32);
}

// Of DRAWN a quarter are SHUFFLED; the others begin anywhere and go up or down from there.
static int draw_kind() { return order_kind == DRAWN && draw() >> 30 == 0 ? SHUFFLED : order_kind; }

// Place i of `count` blocks.
struct Order {
    unsigned long long first = 0, step = 1, count;
    explicit Order(unsigned long long of) : count(of) {
        const int kind = draw_kind();
        if (kind == DOWNWARDS || (kind == DRAWN && draw() >> 31)) step = count - 1, first = count - 1;
        if (kind == DRAWN || kind == SHUFFLED) first = draw() % count;
        if (kind == SHUFFLED) {
            do step = draw() % count; while (divisor(step, count) != 1);
        }
    }
    static unsigned long long divisor(unsigned long long a, unsigned long long b) {
        while (b) {
            const unsigned long long rest = a % b;
            a = b;
            b = rest;
        }
        return a;
    }
    unsigned long long operator[](unsigned long long i) const { return (first + i * step) % count; }
};

// The order of `count` threads.
static void draw_turns(int* turns, int count) {
    const int kind = draw_kind();
    if (kind == SHUFFLED) {
        for (int i = 0; i < count; ++i) {
            const int j = int(static_cast<unsigned long long>(draw()) * unsigned(i + 1) >> 32);
            turns[i] = turns[j];
            turns[j] = i;
        }
        return;
    }
    const bool is_upwards = kind == UPWARDS || (kind == DRAWN && draw() >> 31);
    int next = kind == DRAWN ? int(draw() % unsigned(count)) : is_upwards ? 0 : count - 1;
    for (int i = 0; i < count; ++i) {
        turns[i] = next;
        next = is_upwards ? (next + 1 == count ? 0 : next + 1) : (next == 0 ? count : next) - 1;
    }
}

}  // namespace simulated
