// Pooling as few nets need it: kernels of more than 255 places, whose marks take four bytes each, indices of maxima as a second
// top, and STOCHASTIC. In a file of its own, for compiling takes its time. How windows lie: windows.cuh.

#include "windows.cuh"

CHOOSING_KERNELS(_wide, 1, int)
UNPACKED_KERNELS(, unsigned char)
UNPACKED_KERNELS(_wide, int)
