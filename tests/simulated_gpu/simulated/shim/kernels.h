// What Python learns of a kernel: its name, its parameters, and how it is called.
#pragma once

namespace simulated {

// What a type is: (i)nteger, (f)loat or double, (h)alf, (b)float16, (p)ointer, (s)tructure, (v)oid.
template <typename T> struct Code {
    static constexpr char kind = __is_enum(T) ? 'i' : 's';
    static constexpr int size = sizeof(T);
    static constexpr char target_kind = 'v';
    static constexpr int target_size = 0;
};
#define CODE(type, letter)                                    \
    template <> struct Code<type> {                           \
        static constexpr char kind = letter;                  \
        static constexpr int size = sizeof(type);             \
        static constexpr char target_kind = 'v';              \
        static constexpr int target_size = 0;                 \
    };
CODE(bool, 'i') CODE(char, 'i') CODE(signed char, 'i') CODE(unsigned char, 'i') CODE(short, 'i') CODE(unsigned short, 'i')
CODE(int, 'i') CODE(unsigned, 'i') CODE(long, 'i') CODE(unsigned long, 'i') CODE(long long, 'i')
CODE(unsigned long long, 'i') CODE(float, 'f') CODE(double, 'f')
template <> struct Code<void> {
    static constexpr char kind = 'v';
    static constexpr int size = 0;
};
template <typename T> struct Plain { typedef T type; };
template <typename T> struct Plain<const T> { typedef T type; };
template <typename T> struct Plain<volatile T> { typedef T type; };
template <typename T> struct Plain<const volatile T> { typedef T type; };
template <typename T> struct Code<T*> {
    static constexpr char kind = 'p';
    static constexpr int size = sizeof(T*);
    static constexpr char target_kind = Code<typename Plain<T>::type>::kind;
    static constexpr int target_size = Code<typename Plain<T>::type>::size;
};

struct Parameter {
    char kind, target_kind;
    int size, target_size;
};
struct Kernel {
    const char* name;
    void (*function)();
    void (*call)(void (*)(), void**);
    int parameter_count;
    const Parameter* parameters;
};
SIMULATED_UNWATCHED static void call(const Kernel* kernel, void** arguments) { kernel->call(kernel->function, arguments); }

template <int... I> struct Indices {};
template <typename... P> struct Signature {
    template <int... I> SIMULATED_UNWATCHED static void spread(void (*function)(P...), [[maybe_unused]] void** arguments, Indices<I...>) {
        function(*static_cast<P*>(arguments[I])...);
    }
    SIMULATED_UNWATCHED static void call(void (*function)(), void** arguments) {
        spread(reinterpret_cast<void (*)(P...)>(function), arguments, Indices<__integer_pack(sizeof...(P))...>());
    }
};
template <typename... P> struct List {
    static const Parameter parameters[sizeof...(P) + 1];
};
template <typename... P> const Parameter List<P...>::parameters[sizeof...(P) + 1] = {
    Parameter{Code<P>::kind, Code<P>::target_kind, Code<P>::size, Code<P>::target_size}..., Parameter{0, 0, 0, 0}};
template <typename... P> static Kernel describe(const char* name, void (*function)(P...)) {
    return Kernel{name, reinterpret_cast<void (*)()>(function), &Signature<P...>::call, int(sizeof...(P)), List<P...>::parameters};
}

// While it lives subnormal numbers are taken as zero, as CuPy has kernels compiled.
struct Flushing {
#if SIMULATED_ROUNDING && defined(__x86_64__)
    const unsigned before = __builtin_ia32_stmxcsr();
    Flushing() { __builtin_ia32_ldmxcsr(before | 0x8040); }
    ~Flushing() { __builtin_ia32_ldmxcsr(before); }
#endif
};

static bool is_last_only;
// Of each launch only the block of the highest number runs, until this is taken back: enough to see where large arrays end.
extern "C" __attribute__((visibility("default"))) void simulated_run_last_only(int is_wanted) { is_last_only = is_wanted; }

// 0, or -1 where `simulated_problem` then tells what went wrong.
extern "C" __attribute__((visibility("default"))) SIMULATED_UNWATCHED int simulated_launch(const Kernel* kernel, const unsigned* grid,
                                                                       const unsigned* block, unsigned shared_bytes,
                                                                       void** arguments) {
    gridDim = dim3{grid[0], grid[1], grid[2]};
    blockDim = dim3{block[0], block[1], block[2]};
    problem[0] = 0;
    [[maybe_unused]] const Flushing flushing;
    dynamic_bytes = shared_bytes;
    const unsigned long long row = grid[0], plane = row * grid[1];
    const Order order(plane * grid[2]);
    for (unsigned long long i = 0; i < order.count; ++i) {
        const unsigned long long block = is_last_only ? order.count - 1 : order[i];
        blockIdx = uint3{unsigned(block % row), unsigned(block % plane / row), unsigned(block / plane)};
#if SIMULATED_CHECKS
        block_number = unsigned(block);
        begin_block_watch();
#endif
        begin_shared();
        if (!run_block(kernel, arguments) || !end_shared()) return -1;
        if (is_last_only) break;
    }
    return 0;
}
extern "C" __attribute__((visibility("default"))) const char* simulated_problem() { return problem; }

}  // namespace simulated
