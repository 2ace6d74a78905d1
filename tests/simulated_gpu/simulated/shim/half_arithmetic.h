// Included once for each of the two types of 16 bits.

struct __attribute__((aligned(4))) HALF_PAIR {
    HALF_TYPE x, y;
};
#define OPERATION(sign, name)                                                                                         \
    static inline HALF_TYPE operator sign(HALF_TYPE a, HALF_TYPE b) {                                                 \
        return FLOAT_TO_HALF(HALF_TO_FLOAT(a) sign HALF_TO_FLOAT(b));                                                 \
    }                                                                                                                 \
    static inline HALF_TYPE& operator sign##=(HALF_TYPE& a, HALF_TYPE b) { return a = a sign b; }                     \
    static inline HALF_TYPE name(HALF_TYPE a, HALF_TYPE b) { return a sign b; }                                       \
    static inline HALF_PAIR name##2(HALF_PAIR a, HALF_PAIR b) { return HALF_PAIR{a.x sign b.x, a.y sign b.y}; }
OPERATION(+, __hadd)
OPERATION(-, __hsub)
OPERATION(*, __hmul)
OPERATION(/, __hdiv)
#undef OPERATION
#define COMPARISON(sign, name)                                                                                        \
    static inline bool operator sign(HALF_TYPE a, HALF_TYPE b) { return HALF_TO_FLOAT(a) sign HALF_TO_FLOAT(b); }     \
    static inline bool name(HALF_TYPE a, HALF_TYPE b) { return a sign b; }
COMPARISON(<, __hlt)
COMPARISON(<=, __hle)
COMPARISON(>, __hgt)
COMPARISON(>=, __hge)
COMPARISON(==, __heq)
COMPARISON(!=, __hne)
#undef COMPARISON
static inline HALF_TYPE operator-(HALF_TYPE a) { return FLOAT_TO_HALF(-HALF_TO_FLOAT(a)); }
static inline HALF_TYPE __hneg(HALF_TYPE a) { return -a; }
static inline HALF_TYPE __habs(HALF_TYPE a) { return FLOAT_TO_HALF(fabsf(HALF_TO_FLOAT(a))); }
static inline HALF_TYPE __hfma(HALF_TYPE a, HALF_TYPE b, HALF_TYPE c) {
    return FLOAT_TO_HALF(HALF_TO_FLOAT(a) * HALF_TO_FLOAT(b) + HALF_TO_FLOAT(c));
}
static inline HALF_TYPE __hmax(HALF_TYPE a, HALF_TYPE b) { return FLOAT_TO_HALF(fmaxf(HALF_TO_FLOAT(a), HALF_TO_FLOAT(b))); }
static inline HALF_TYPE __hmin(HALF_TYPE a, HALF_TYPE b) { return FLOAT_TO_HALF(fminf(HALF_TO_FLOAT(a), HALF_TO_FLOAT(b))); }
static inline bool __hisnan(HALF_TYPE a) { return isnan(HALF_TO_FLOAT(a)); }
static inline HALF_TYPE __low2half(HALF_PAIR a) { return a.x; }
static inline HALF_TYPE __high2half(HALF_PAIR a) { return a.y; }
static inline float __low2float(HALF_PAIR a) { return HALF_TO_FLOAT(a.x); }
static inline float __high2float(HALF_PAIR a) { return HALF_TO_FLOAT(a.y); }
#undef HALF_TYPE
#undef HALF_TO_FLOAT
#undef FLOAT_TO_HALF
#undef HALF_PAIR
