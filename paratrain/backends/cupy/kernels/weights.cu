// The parameters of a layer as a product wants them: in the type and order of activations, made anew after each update.

// prepared = weights, converted, and prepared_bias = bias, converted. weights are (outputs, channels, pixels) with channels second,
// prepared the same with channels last if so. bias may be null. count = weights_count, and with a bias the number of outputs more.
// Threads follow the order of what is written.
extern "C" __global__ void prepare_weights(int count, const ACCUMULATE* weights, STORAGE* prepared, int weights_count, int channels,
                                           int pixels, int channels_last, const ACCUMULATE* bias, STORAGE* prepared_bias) {
    FOR_EACH(i, count) {
        if (i < weights_count) {
            const Place place = place_of(i, channels, pixels, channels_last);
            store(prepared[i], weights[index_of(place.image, place.channel, place.pixel, channels, pixels, 0)]);
        } else {
            store(prepared_bias[i - weights_count], bias[i - weights_count]);
        }
    }
}
