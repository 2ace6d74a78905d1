// From the bytes of images to the values that a net is given: Caffe's transform_param, but for the cropping.

// top = (pixel - mean) * scale, for pixels (N, C, height, width). Image n came from row windows[3 n], column windows[3 n + 1] of a
// larger one, and is turned left to right where windows[3 n + 2] is not 0. mean is null, or (C, mean_height, mean_width) as
// large as the uncropped images, or where mean_height is 0 one value for each channel. The first label_count threads copy a label.
extern "C" __global__ void transform(int count, const unsigned char* pixels, const int* windows, const ACCUMULATE* mean,
                                     STORAGE* top, int channels, int height, int width, int mean_height, int mean_width,
                                     ACCUMULATE scale, int channels_last, const float* labels, float* label_top,
                                     int label_count) {
    FOR_EACH(i, count) {
        if (i < label_count) label_top[i] = labels[i];
        const Place place = place_of(i, channels, height * width, channels_last);
        const int y = place.pixel / width, x = place.pixel - y * width;
        const int* window = windows + 3 * place.image;
        const int column = window[2] ? width - 1 - x : x;
        const int row = (place.image * channels + place.channel) * height + y;
        ACCUMULATE value = pixels[static_cast<long long>(row) * width + column];
        if (mean != nullptr) {
            value -= mean_height == 0 ? mean[place.channel]
                                      : mean[(place.channel * mean_height + window[0] + y) * mean_width + window[1] + column];
        }
        store(top[i], value * scale);
    }
}
