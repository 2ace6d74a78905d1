// From the bytes of images to the values that a net is given: Caffe's transform_param, but for the cropping.

// So many channels of a pixel are read before the first is written.
enum { EACH = 3 };

// top = (pixel - mean) * scale, for pixels (N, C, height, width). Image n came from row windows[3 n], column windows[3 n + 1] of a
// larger one, and is turned left to right where windows[3 n + 2] is not 0. mean is null, or (C, mean_height, mean_width) as
// large as the uncropped images, or where mean_height is 0 one value for each channel. A thread makes all channels of a pixel,
// which it finds by divisions that take longer than the rest; count = N * height * width. The first of them copy the labels.
extern "C" __global__ void transform(int count, const unsigned char* pixels, const int* windows, const ACCUMULATE* mean,
                                     STORAGE* top, int channels, int height, int width, int mean_height, int mean_width,
                                     ACCUMULATE scale, int channels_last, const float* labels, float* label_top,
                                     int label_count) {
    const unsigned area = height * width;
    FOR_EACH(i, count) {
        for (long long k = i; k < label_count; k += count) label_top[k] = labels[k];
        const unsigned index = i, image = index / area, pixel = index - image * area;
        const int y = pixel / static_cast<unsigned>(width), x = pixel - y * width;
        const int* window = windows + 3 * image;
        const int column = window[2] ? width - 1 - x : x, mean_row = window[0] + y, mean_column = window[1] + column;
        for (int first = 0; first < channels; first += EACH) {
            ACCUMULATE values[EACH];
#pragma unroll
            for (int k = 0; k < EACH; ++k) {
                if (first + k < channels) {
                    const long long plane = static_cast<long long>(image) * channels + first + k;
                    values[k] = pixels[plane * area + y * width + column];
                }
            }
#pragma unroll
            for (int k = 0; k < EACH; ++k) {
                const int channel = first + k;
                if (mean != nullptr && channel < channels) {
                    values[k] -= mean_height == 0 ? mean[channel]
                                                  : mean[(channel * mean_height + mean_row) * mean_width + mean_column];
                }
            }
#pragma unroll
            for (int k = 0; k < EACH; ++k) {
                if (first + k < channels) {
                    const long long place = index_of(image, first + k, pixel, channels, area, channels_last);
                    store(top[place], values[k] * scale);
                }
            }
        }
    }
}
