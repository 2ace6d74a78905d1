// Numbers for layers that draw, and the keys that name them. Keys lie on the GPU so that a recorded pass can be run again with
// others: somebody writes them before.

#include "random.cuh"

extern "C" __global__ void write_key(unsigned long long* place, unsigned long long key) { *place = key; }

// out (rows, inner), count values: the numbers of whole rows, by the key at *place, or by `key` where there is no place.
extern "C" __global__ void uniform_rows(int count, STORAGE* out, const unsigned long long* place, unsigned long long key,
                                        int inner, int first_row, int row_step) {
    const unsigned long long stream = place ? *place : key;
    FOR_EACH(i, count) {
        const unsigned value = i, row = value / static_cast<unsigned>(inner), column = value - row * inner;
        store(out[i], uniform_at(stream, element_of(row, column, inner, first_row, row_step)));
    }
}
