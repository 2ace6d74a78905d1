// The windows of a convolution as columns and back, over three spatial axes (those that are missing have size, kernel, stride
// and dilation 1), for images (images, channels, size0, size1, size2) with channels second.
//
// Columns hold, for channel c, offset (k0, k1, k2) in the kernel, an image and an output pixel, what the kernel's value meets:
// pixel output * stride - pad + k * dilation of channel c, 0 outside the image. With depth = (c, k0, k1, k2) in row order the
// value lies at depth * depth_step + image * image_step + (output pixel in row order).

#define AXES                                                                                                               \
    int size0, int size1, int size2, int kernel0, int kernel1, int kernel2, int stride0, int stride1, int stride2, int pad0, \
        int pad1, int pad2, int dilation0, int dilation1, int dilation2, int output0, int output1, int output2

// Write the columns. A thread has a channel, an image and an output pixel, these in the order of the columns, and writes a value
// for each offset. count = channels * images * output pixels.
extern "C" __global__ void im2col(int count, const STORAGE* image, STORAGE* columns, int images, int channels, int depth_step,
                                  int image_step, AXES) {
    const unsigned pixels = output0 * output1 * output2;
    STORAGE zero;
    store(zero, 0);
    FOR_EACH(i, count) {
        const unsigned index = i, outer = index / pixels, pixel = index - outer * pixels;
        const int channel = outer / images, number = outer - channel * images;
        const int row = pixel / output2, out2 = pixel - row * output2, out0 = row / output1, out1 = row - out0 * output1;
        const int begin0 = out0 * stride0 - pad0, begin1 = out1 * stride1 - pad1, begin2 = out2 * stride2 - pad2;
        const STORAGE* const plane = image + static_cast<long long>(number * channels + channel) * size0 * size1 * size2;
        const int kernel_count = kernel0 * kernel1 * kernel2;
        STORAGE* target = columns + static_cast<long long>(channel) * kernel_count * depth_step +
                          static_cast<long long>(number) * image_step + pixel;
        for (int k0 = 0; k0 < kernel0; ++k0) {
            const int at0 = begin0 + k0 * dilation0;
            for (int k1 = 0; k1 < kernel1; ++k1) {
                const int at1 = begin1 + k1 * dilation1;
                const bool is_row_inside = at0 >= 0 && at0 < size0 && at1 >= 0 && at1 < size1;
                for (int k2 = 0; k2 < kernel2; ++k2) {
                    const int at2 = begin2 + k2 * dilation2;
                    const bool is_inside = is_row_inside && at2 >= 0 && at2 < size2;
                    *target = is_inside ? plane[(at0 * size1 + at1) * size2 + at2] : zero;
                    target += depth_step;
                }
            }
        }
    }
}

// image = for each pixel the sum, in the order of the offsets, of all the columns' values that were copied from it. A thread has
// a pixel. count = images * channels * pixels.
extern "C" __global__ void col2im(int count, const STORAGE* columns, STORAGE* image, int images, int channels, int depth_step,
                                  int image_step, AXES) {
    FOR_EACH(i, count) {
        const unsigned index = i;
        const int line = index / size2, at2 = index - line * size2 + pad2, slab = line / size1, at1 = line - slab * size1 + pad1;
        const int plane = slab / size0, at0 = slab - plane * size0 + pad0;
        const int number = plane / channels, channel = plane - number * channels;
        const STORAGE* source = columns + static_cast<long long>(channel) * kernel0 * kernel1 * kernel2 * depth_step +
                                static_cast<long long>(number) * image_step;
        ACCUMULATE sum = 0;
        for (int k0 = 0; k0 < kernel0; ++k0) {
            const int from0 = at0 - k0 * dilation0, out0 = from0 / stride0;
            const bool is_slab_met = from0 >= 0 && out0 * stride0 == from0 && out0 < output0;
            for (int k1 = 0; k1 < kernel1; ++k1) {
                const int from1 = at1 - k1 * dilation1, out1 = from1 / stride1;
                if (!is_slab_met || from1 < 0 || out1 * stride1 != from1 || out1 >= output1) {
                    source += static_cast<long long>(kernel2) * depth_step;
                    continue;
                }
                for (int k2 = 0; k2 < kernel2; ++k2) {
                    const int from2 = at2 - k2 * dilation2, out2 = from2 / stride2;
                    if (from2 >= 0 && out2 * stride2 == from2 && out2 < output2) {
                        sum += load(source[(out0 * output1 + out1) * output2 + out2]);
                    }
                    source += depth_step;
                }
            }
        }
        store(image[i], sum);
    }
}

// target (columns, rows, pixels) = source (rows, columns, pixels) + bias of the row, if there is a bias, and where has_relu then
// value where value > 0, else slope value. count = rows * columns * pixels; threads follow the order of what is written.
extern "C" __global__ void turn(int count, const STORAGE* source, STORAGE* target, int rows, int columns, int pixels,
                                const ACCUMULATE* bias, int has_relu, ACCUMULATE slope) {
    FOR_EACH(i, count) {
        const unsigned index = i, outer = index / pixels, pixel = index - outer * pixels;
        const unsigned column = outer / rows, row = outer - column * rows;
        ACCUMULATE value = load(source[(row * columns + column) * pixels + pixel]);
        if (bias != nullptr) {
            value += bias[row];
        }
        store(target[i], has_relu && !(value > 0) ? slope * value : value);
    }
}
