// Atomic operations: plain ones, since the threads of the simulation never run at the same time.
#pragma once

template <typename T> struct simulated_same {
    typedef T type;  // takes no part in deduction: atomicAdd(float*, int) is of floats
};

#if SIMULATED_CHECKS
#define SIMULATED_ATOMIC(place) simulated::look_at_atomic(place, sizeof *place, __builtin_return_address(0))
#define SIMULATED_FENCE() simulated::fence()
#else
#define SIMULATED_ATOMIC(place)
#define SIMULATED_FENCE()
#endif
#define ATOMIC(name, expression)                                                   \
    template <typename T> SIMULATED_UNWATCHED static inline T name(T* place, typename simulated_same<T>::type value) {  \
        SIMULATED_ATOMIC(place);                                                   \
        const T old = *place;                                                      \
        *place = expression;                                                       \
        return old;                                                                \
    }                                                                              \
    template <typename T> static inline T name##_block(T* place, typename simulated_same<T>::type value) { return name(place, value); } \
    template <typename T> static inline T name##_system(T* place, typename simulated_same<T>::type value) { return name(place, value); }
ATOMIC(atomicAdd, old + value)
ATOMIC(atomicSub, old - value)
ATOMIC(atomicExch, value)
ATOMIC(atomicMin, value < old ? value : old)
ATOMIC(atomicMax, value > old ? value : old)
ATOMIC(atomicAnd, old & value)
ATOMIC(atomicOr, old | value)
ATOMIC(atomicXor, old ^ value)
ATOMIC(atomicInc, old >= value ? T(0) : T(old + 1))
ATOMIC(atomicDec, old == 0 || old > value ? value : T(old - 1))
#undef ATOMIC
template <typename T>
SIMULATED_UNWATCHED static inline T atomicCAS(T* place, typename simulated_same<T>::type compare, typename simulated_same<T>::type value) {
    SIMULATED_ATOMIC(place);
    const T old = *place;
    if (old == compare) *place = value;
    return old;
}
static inline void __threadfence() { SIMULATED_FENCE(); }
static inline void __threadfence_block() {}
static inline void __threadfence_system() { SIMULATED_FENCE(); }
