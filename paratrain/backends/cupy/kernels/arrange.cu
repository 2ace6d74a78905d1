// From one order and type to another: (N, C, pixels) with channels second or last, stored as float32, half, bfloat16.
//
// The plain side is always the type of the net's blobs (PLAIN: float, or double where STORAGE is double).

#if defined(STORAGE_IS_DOUBLE)
typedef double PLAIN;
#else
typedef float PLAIN;
#endif

// arranged = plain, converted. count = images * channels * pixels. Threads follow the order of what is written.
extern "C" __global__ void to_arranged(int count, const PLAIN* plain, STORAGE* arranged, int channels, int pixels,
                                       int channels_last) {
    FOR_EACH(i, count) {
        const Place place = place_of(i, channels, pixels, channels_last);
        store(arranged[i], plain[index_of(place.image, place.channel, place.pixel, channels, pixels, 0)]);
    }
}

// plain = arranged, or plain += arranged, converted. Threads follow the order of what is written.
extern "C" __global__ void to_plain(int count, const STORAGE* arranged, PLAIN* plain, int channels, int pixels,
                                    int channels_last, int accumulate) {
    FOR_EACH(i, count) {
        const Place place = place_of(i, channels, pixels, 0);
        const PLAIN value = load(arranged[index_of(place.image, place.channel, place.pixel, channels, pixels, channels_last)]);
        plain[i] = accumulate ? plain[i] + value : value;
    }
}

// target = source, both stored as STORAGE, with channels second in one of them and last in the other.
extern "C" __global__ void exchange_order(int count, const STORAGE* source, STORAGE* target, int channels, int pixels,
                                          int target_channels_last) {
    FOR_EACH(i, count) {
        const Place place = place_of(i, channels, pixels, target_channels_last);
        target[i] = source[index_of(place.image, place.channel, place.pixel, channels, pixels, !target_channels_last)];
    }
}
