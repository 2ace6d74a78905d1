// The functions of CUDA's mathematics, by those of the C library. The fast ones (__expf ...) are as exact as the others here.
#pragma once

// A GPU's functions, but for the exact ones below, are up to some units in the last place off those of the C library.
static inline float simulated_near(float y) {
#if SIMULATED_ROUNDING
    unsigned bits;
    __builtin_memcpy(&bits, &y, sizeof bits);
    const unsigned size = bits & 0x7fffffffu;
    if (size >= 0x01000000u && size < 0x7f000000u && y != 1.0f) {
        bits += (bits * 2654435761u >> 30) - 2;
        __builtin_memcpy(&y, &bits, sizeof bits);
    }
#endif
    return y;
}
#define EXACT(name)                                  \
    extern "C" float name##f(float);                 \
    extern "C" double name(double);                  \
    static inline float name(float x) { return name##f(x); }
#define ONE(name)                                    \
    extern "C" float name##f(float);                 \
    extern "C" double name(double);                  \
    static inline float name(float x) { return simulated_near(name##f(x)); }
#define TWO(name)                                    \
    extern "C" float name##f(float, float);          \
    extern "C" double name(double, double);          \
    static inline float name(float x, float y) { return name##f(x, y); }
ONE(acos) ONE(acosh) ONE(asin) ONE(asinh) ONE(atan) ONE(atanh) ONE(cbrt) ONE(cos) ONE(cosh) ONE(erf) ONE(erfc) ONE(exp)
ONE(exp2) ONE(expm1) ONE(lgamma) ONE(log) ONE(log10) ONE(log1p) ONE(log2) ONE(sin) ONE(sinh) ONE(tan) ONE(tanh) ONE(tgamma)
EXACT(ceil) EXACT(fabs) EXACT(floor) EXACT(nearbyint) EXACT(rint) EXACT(round) EXACT(sqrt) EXACT(trunc)
TWO(atan2) TWO(copysign) TWO(fmax) TWO(fmin) TWO(fmod) TWO(hypot) TWO(nextafter) TWO(remainder)
extern "C" float powf(float, float);
extern "C" double pow(double, double);
static inline float pow(float x, float y) { return simulated_near(powf(x, y)); }
#undef EXACT
#undef ONE
#undef TWO
extern "C" float fmaf(float, float, float);
extern "C" double fma(double, double, double);
extern "C" float ldexpf(float, int);
extern "C" double ldexp(double, int);
extern "C" float frexpf(float, int*);
extern "C" double frexp(double, int*);
extern "C" void sincosf(float, float*, float*);
extern "C" void sincos(double, double*, double*);
static inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
static inline float pow(float x, int n) { return powf(x, n); }
static inline double pow(double x, int n) { return pow(x, static_cast<double>(n)); }
static inline bool isnan(float x) { return __builtin_isnan(x); }
static inline bool isnan(double x) { return __builtin_isnan(x); }
static inline bool isinf(float x) { return __builtin_isinf(x); }
static inline bool isinf(double x) { return __builtin_isinf(x); }
static inline bool isfinite(float x) { return __builtin_isfinite(x); }
static inline bool isfinite(double x) { return __builtin_isfinite(x); }
static inline bool signbit(float x) { return __builtin_signbit(x); }
static inline bool signbit(double x) { return __builtin_signbit(x); }

static inline float rsqrtf(float x) { return simulated_near(1.0f / sqrtf(x)); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline float fdividef(float x, float y) { return x / y; }
static inline float exp10f(float x) { return powf(10.0f, x); }
static inline float fdimf(float x, float y) { return x > y ? x - y : 0.0f; }
static inline float __expf(float x) { return expf(x); }
static inline float __exp10f(float x) { return exp10f(x); }
static inline float __logf(float x) { return logf(x); }
static inline float __log2f(float x) { return log2f(x); }
static inline float __log10f(float x) { return log10f(x); }
static inline float __powf(float x, float y) { return powf(x, y); }
static inline float __sinf(float x) { return sinf(x); }
static inline float __cosf(float x) { return cosf(x); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __frsqrt_rn(float x) { return rsqrtf(x); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dmul_rn(double x, double y) { return x * y; }

// Of a number and one that is none, the number, as on a GPU.
static inline float max(float x, float y) { return fmaxf(x, y); }
static inline float min(float x, float y) { return fminf(x, y); }
static inline double max(double x, double y) { return fmax(x, y); }
static inline double min(double x, double y) { return fmin(x, y); }
static inline double max(float x, double y) { return fmax(static_cast<double>(x), y); }
static inline double max(double x, float y) { return fmax(x, static_cast<double>(y)); }
static inline double min(float x, double y) { return fmin(static_cast<double>(x), y); }
static inline double min(double x, float y) { return fmin(x, static_cast<double>(y)); }
#define EXTREMES(result, first, second)                                                           \
    static inline result max(first a, second b) { result x = a, y = b; return x > y ? x : y; }    \
    static inline result min(first a, second b) { result x = a, y = b; return x < y ? x : y; }
EXTREMES(int, int, int)
EXTREMES(unsigned, unsigned, unsigned)
EXTREMES(unsigned, int, unsigned)
EXTREMES(unsigned, unsigned, int)
EXTREMES(long, long, long)
EXTREMES(unsigned long, unsigned long, unsigned long)
EXTREMES(unsigned long, long, unsigned long)
EXTREMES(unsigned long, unsigned long, long)
EXTREMES(long long, long long, long long)
EXTREMES(unsigned long long, unsigned long long, unsigned long long)
EXTREMES(unsigned long long, long long, unsigned long long)
EXTREMES(unsigned long long, unsigned long long, long long)
#undef EXTREMES
static inline unsigned umin(unsigned x, unsigned y) { return min(x, y); }
static inline unsigned umax(unsigned x, unsigned y) { return max(x, y); }
static inline int abs(int x) { return x < 0 ? -x : x; }
static inline long abs(long x) { return x < 0 ? -x : x; }
static inline long long abs(long long x) { return x < 0 ? -x : x; }
static inline long long llabs(long long x) { return x < 0 ? -x : x; }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }

template <typename To, typename From> static inline To simulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits of one size");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
static inline int __float_as_int(float x) { return simulated_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return simulated_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return simulated_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return simulated_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return simulated_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return simulated_bits<double>(x); }
// Beyond the range the nearest end of it, and 0 for what is no number, as on a GPU.
static inline int __float2int_rn(float x) {
    return x >= 2147483648.0f ? 2147483647 : x < -2147483648.0f ? -2147483647 - 1 : isnan(x) ? 0 : static_cast<int>(rintf(x));
}
static inline int __float2int_rz(float x) { return __float2int_rn(truncf(x)); }
static inline int __float2int_rd(float x) { return __float2int_rn(floorf(x)); }
static inline int __float2int_ru(float x) { return __float2int_rn(ceilf(x)); }
static inline unsigned __float2uint_rz(float x) {
    return x >= 4294967296.0f ? 4294967295u : x > 0.0f ? static_cast<unsigned>(x) : 0u;
}
static inline unsigned __float2uint_rn(float x) { return __float2uint_rz(rintf(x)); }
static inline float __int2float_rn(int x) { return static_cast<float>(x); }
static inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
static inline float __ull2float_rn(unsigned long long x) { return static_cast<float>(x); }
static inline float __double2float_rn(double x) { return static_cast<float>(x); }

static inline unsigned __umulhi(unsigned x, unsigned y) { return (static_cast<unsigned long long>(x) * y) >> 32; }
static inline int __mulhi(int x, int y) { return (static_cast<long long>(x) * y) >> 32; }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (static_cast<unsigned __int128>(x) * y) >> 64;
}
static inline int __mul24(int x, int y) { return x * y; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) reversed |= ((x >> bit) & 1u) << (31 - bit);
    return reversed;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    shift &= 31;
    return shift ? (high << shift) | (low >> (32 - shift)) : high;
}

template <typename T> static inline T __ldg(const T* place) { return *place; }
template <typename T> static inline T __ldcs(const T* place) { return *place; }
template <typename T> static inline T __ldcg(const T* place) { return *place; }
template <typename T> static inline T __ldca(const T* place) { return *place; }
template <typename T> static inline void __stcs(T* place, T value) { *place = value; }
template <typename T> static inline void __stcg(T* place, T value) { *place = value; }
template <typename T> static inline void __stwt(T* place, T value) { *place = value; }
