// What CUDA C++ knows without an #include, for g++: kernels are functions of the host, blocks and threads two loops.
//
// No header of the system is read: a module compiles in a tenth of a second. How threads wait for one another is in threads.h.
#pragma once
#define __CUDACC__ 1
#define __CUDA_ARCH__ 900
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __constant__
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))
typedef __SIZE_TYPE__ size_t;
#define warpSize 32
#if SIMULATED_CHECKS
#define SIMULATED_UNWATCHED __attribute__((no_sanitize("thread"), noinline))  // see watch.h
#else
#define SIMULATED_UNWATCHED
#endif

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
};
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

#define VECTOR(type, name)                                                                       \
    struct name##2 {                                                                             \
        type x, y;                                                                               \
    } __attribute__((aligned(2 * sizeof(type))));                                                \
    struct name##3 {                                                                             \
        type x, y, z;                                                                            \
    };                                                                                           \
    struct name##4 {                                                                             \
        type x, y, z, w;                                                                         \
    } __attribute__((aligned(sizeof(type) == 8 ? 16 : 4 * sizeof(type))));                       \
    static inline name##2 make_##name##2(type x, type y) { return name##2{x, y}; }               \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return name##4{x, y, z, w}; }
VECTOR(float, float)
VECTOR(double, double)
VECTOR(int, int)
VECTOR(short, short)
VECTOR(unsigned short, ushort)
VECTOR(unsigned char, uchar)
VECTOR(signed char, char)
VECTOR(long long, longlong)
VECTOR(unsigned long long, ulonglong)
struct uint2 {
    unsigned x, y;
} __attribute__((aligned(8)));
struct uint4 {
    unsigned x, y, z, w;
} __attribute__((aligned(16)));
static inline uint2 make_uint2(unsigned x, unsigned y) { return uint2{x, y}; }
static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return uint3{x, y, z}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return uint4{x, y, z, w}; }
#undef VECTOR

#include "functions.h"
#include "threads.h"
#include "shared.h"
#include "watch.h"
#include "atomics.h"
#include "kernels.h"
