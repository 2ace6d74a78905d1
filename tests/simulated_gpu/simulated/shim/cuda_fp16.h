// __half: 16 bits of IEEE 754. Rounded to nearest, ties to even; arithmetic in float and then rounded, as exact as on a GPU.
#pragma once

struct __attribute__((aligned(2))) __half {
    unsigned short bits;
    __half() = default;
    inline __half(float value);
    inline __half(double value);
    inline __half(int value);
    inline operator float() const;
};
typedef __half half;
namespace simulated {
CODE(__half, 'h')
}

static inline unsigned short __simulated_half_bits(float value) {
    const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return 0x7fffu;                       // no number
    if (size >= 0x477ff000u) return sign | 0x7c00u;               // from 65520 on infinite
    if (size < 0x33000001u) return sign;                          // half of the least one, or less
    const int exponent = int(size >> 23) - 127;
    const unsigned mantissa = (size & 0x7fffffu) | 0x800000u;
    const int shift = exponent < -14 ? -1 - exponent : 13;        // subnormal ones have fewer bits
    unsigned half = mantissa >> shift;
    const unsigned rest = mantissa & ((1u << shift) - 1u), middle = 1u << (shift - 1);
    half += rest > middle || (rest == middle && (half & 1u));
    return sign | (exponent < -14 ? half : half + (unsigned(exponent + 14) << 10));
}
static inline float __simulated_half_value(unsigned short bits) {
    const unsigned sign = unsigned(bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, mantissa = bits & 0x3ffu;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
    const float size = mantissa * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -size : size;
}
static inline __half __ushort_as_half(unsigned short bits) {
    __half result;
    result.bits = bits;
    return result;
}
static inline unsigned short __half_as_ushort(__half value) { return value.bits; }
static inline float __half2float(__half value) { return __simulated_half_value(value.bits); }
static inline __half __float2half_rn(float value) { return __ushort_as_half(__simulated_half_bits(value)); }
static inline __half __float2half(float value) { return __float2half_rn(value); }
static inline __half __int2half_rn(int value) { return __float2half_rn(static_cast<float>(value)); }
static inline __half __double2half(double value) {  // to odd first, so that it is rounded once
    float nearest = static_cast<float>(value);
    const double difference = value - nearest;
    unsigned bits = __float_as_uint(nearest);
    if (nearest != 0 && (difference < 0 || difference > 0) && !(bits & 1u)) bits += (difference > 0) == (nearest > 0) ? 1 : -1;
    return __float2half_rn(__uint_as_float(bits));
}
inline __half::__half(float value) : bits(__simulated_half_bits(value)) {}
inline __half::__half(double value) : bits(__double2half(value).bits) {}
inline __half::__half(int value) : bits(__simulated_half_bits(static_cast<float>(value))) {}
inline __half::operator float() const { return __simulated_half_value(bits); }

#define HALF_TYPE __half
#define HALF_TO_FLOAT __half2float
#define FLOAT_TO_HALF __float2half_rn
#define HALF_PAIR __half2
#include "half_arithmetic.h"
static inline __half2 __floats2half2_rn(float x, float y) { return __half2{__float2half_rn(x), __float2half_rn(y)}; }
static inline __half2 __float22half2_rn(float2 value) { return __floats2half2_rn(value.x, value.y); }
static inline __half2 __float2half2_rn(float value) { return __floats2half2_rn(value, value); }
static inline float2 __half22float2(__half2 value) { return make_float2(value.x, value.y); }
static inline __half2 __halves2half2(__half x, __half y) { return __half2{x, y}; }
static inline __half2 make_half2(__half x, __half y) { return __half2{x, y}; }
static inline __half2 __half2half2(__half x) { return __half2{x, x}; }
typedef __half2 half2;
