// Dropout whose masks nobody stores: forward and backward draw the same numbers.

#include "random.cuh"

// y = x scale, or x 0 where the number of the value is below ratio; backward is the same from dy to dx. y may be x.
//
// The numbers belong to places of the plain array: value j of row i of (rows, inner), wherever it lies in memory.
extern "C" __global__ void dropout(int count, const STORAGE* x, STORAGE* y, const unsigned long long* key, ACCUMULATE ratio,
                                   ACCUMULATE scale, int inner, int first_row, int row_step, int channels, int pixels,
                                   int channels_last) {
    const unsigned long long stream = *key;
    FOR_EACH_FOUR(i, count) {
        const int present = count - i < 4 ? count - i : 4;
        ACCUMULATE values[4];
        load_four(x + i, values, present);
        const unsigned first = i, width = inner;
        unsigned row = first / width, column = first - row * width;
        for (int k = 0; k < 4; ++k) {
            unsigned long long element;
            if (channels_last) {
                const Place place = place_of(i + k, channels, pixels, 1);
                element = element_of(place.image, place.channel * pixels + place.pixel, inner, first_row, row_step);
            } else {
                element = element_of(row, column, inner, first_row, row_step);
                if (++column == width) {
                    column = 0;
                    ++row;
                }
            }
            values[k] *= uniform_at(stream, element) < ratio ? ACCUMULATE(0) : scale;
        }
        store_four(y + i, values, present);
    }
}
