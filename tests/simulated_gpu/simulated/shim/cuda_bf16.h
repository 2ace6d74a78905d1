// __nv_bfloat16: the upper half of a float. Rounded to nearest, ties to even; arithmetic in float and then rounded.
#pragma once

struct __attribute__((aligned(2))) __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    inline __nv_bfloat16(float value);
    inline __nv_bfloat16(double value);
    inline __nv_bfloat16(int value);
    inline operator float() const;
};
typedef __nv_bfloat16 nv_bfloat16;
namespace simulated {
CODE(__nv_bfloat16, 'b')
}

static inline unsigned short __simulated_bfloat16_bits(float value) {
    const unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
    __nv_bfloat16 result;
    result.bits = bits;
    return result;
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
static inline float __bfloat162float(__nv_bfloat16 value) { return __uint_as_float(unsigned(value.bits) << 16); }
static inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    return __ushort_as_bfloat16(__simulated_bfloat16_bits(value));
}
static inline __nv_bfloat16 __float2bfloat16(float value) { return __float2bfloat16_rn(value); }
static inline __nv_bfloat16 __double2bfloat16(double value) {  // to odd first, so that it is rounded once
    float nearest = static_cast<float>(value);
    const double difference = value - nearest;
    unsigned bits = __float_as_uint(nearest);
    if (nearest != 0 && (difference < 0 || difference > 0) && !(bits & 1u)) bits += (difference > 0) == (nearest > 0) ? 1 : -1;
    return __float2bfloat16_rn(__uint_as_float(bits));
}
inline __nv_bfloat16::__nv_bfloat16(float value) : bits(__simulated_bfloat16_bits(value)) {}
inline __nv_bfloat16::__nv_bfloat16(double value) : bits(__double2bfloat16(value).bits) {}
inline __nv_bfloat16::__nv_bfloat16(int value) : bits(__simulated_bfloat16_bits(static_cast<float>(value))) {}
inline __nv_bfloat16::operator float() const { return __bfloat162float(*this); }

#define HALF_TYPE __nv_bfloat16
#define HALF_TO_FLOAT __bfloat162float
#define FLOAT_TO_HALF __float2bfloat16_rn
#define HALF_PAIR __nv_bfloat162
#include "half_arithmetic.h"
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return __nv_bfloat162{__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 value) { return __floats2bfloat162_rn(value.x, value.y); }
static inline __nv_bfloat162 __float2bfloat162_rn(float value) { return __floats2bfloat162_rn(value, value); }
static inline float2 __bfloat1622float2(__nv_bfloat162 value) { return make_float2(value.x, value.y); }
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return __nv_bfloat162{x, y}; }
static inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return __nv_bfloat162{x, x}; }
typedef __nv_bfloat162 nv_bfloat162;
