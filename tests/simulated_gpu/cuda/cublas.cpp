// A library with the functions of cuBLAS that paratrain calls, for matrices in the host's memory.
//
// Arguments are checked as far as cuBLAS documents them; then the product goes to ``submit``, a function of Python's, which
// does it at once by simulated_run, or notes it where the stream captures.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum Type { FLOAT32 = 0, FLOAT64 = 1, FLOAT16 = 2, BFLOAT16 = 14 };
enum Compute { COMPUTE_FLOAT32 = 68, COMPUTE_FLOAT64 = 70, COMPUTE_TF32 = 77 };

struct Matrix {
    void* data;
    int64_t rows, columns, leading, stride;  // as it lies in memory, column by column
    int32_t type, is_transposed;
};

struct Product {
    Matrix a, b, c;
    int64_t k, batch;
    double alpha, beta;
    int32_t compute, has_workspace;
};

struct Handle {
    void* stream = nullptr;
    void* workspace = nullptr;
    int math_mode = 0, atomics_mode = 0;
    bool is_alive = true;
};

typedef int (*Submit)(void* stream, const Product* product);
typedef int (*Wait)();
static Submit submit = nullptr;
static Wait wait = nullptr;  // not 0 where nobody may wait for the device

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void simulated_use(Submit submit_product, Wait wait_for_device) {
    submit = submit_product;
    wait = wait_for_device;
}

EXPORT int cublasCreate_v2(void** handle) {
    if (handle == nullptr) return INVALID_VALUE;
    if (wait == nullptr || wait()) return NOT_INITIALIZED;
    *handle = new Handle;
    return SUCCESS;
}

EXPORT int cublasDestroy_v2(void* handle) {
    if (handle == nullptr || !static_cast<Handle*>(handle)->is_alive) return NOT_INITIALIZED;
    if (wait()) return EXECUTION_FAILED;
    static_cast<Handle*>(handle)->is_alive = false;  // and never freed: it tells who uses it again
    return SUCCESS;
}

static Handle* alive(void* handle) {
    return handle != nullptr && static_cast<Handle*>(handle)->is_alive ? static_cast<Handle*>(handle) : nullptr;
}

EXPORT int cublasSetStream_v2(void* handle, void* stream) {
    if (!alive(handle)) return NOT_INITIALIZED;
    alive(handle)->stream = stream;
    alive(handle)->workspace = nullptr;  // as documented
    return SUCCESS;
}

EXPORT int cublasSetWorkspace_v2(void* handle, void* workspace, size_t size) {
    if (!alive(handle)) return NOT_INITIALIZED;
    if (reinterpret_cast<uintptr_t>(workspace) % 256) return INVALID_VALUE;
    alive(handle)->workspace = size ? workspace : nullptr;
    return SUCCESS;
}

EXPORT int cublasSetMathMode(void* handle, int mode) {
    if (!alive(handle)) return NOT_INITIALIZED;
    if (mode & ~(1 | 2 | 3 | 16)) return INVALID_VALUE;
    alive(handle)->math_mode = mode;
    return SUCCESS;
}

EXPORT int cublasSetAtomicsMode(void* handle, int mode) {
    if (!alive(handle)) return NOT_INITIALIZED;
    if (mode != 0 && mode != 1) return INVALID_VALUE;
    alive(handle)->atomics_mode = mode;
    return SUCCESS;
}

static bool are_supported(int a, int b, int c, int compute) {
    if (a != b) return false;
    if (compute == COMPUTE_FLOAT64) return a == FLOAT64 && c == FLOAT64;
    if (compute == COMPUTE_TF32) return a == FLOAT32 && c == FLOAT32;
    if (compute != COMPUTE_FLOAT32) return false;
    return (a == FLOAT32 || a == FLOAT16 || a == BFLOAT16) && (c == a || c == FLOAT32);
}

EXPORT int cublasGemmStridedBatchedEx(void* handle, int transa, int transb, int m, int n, int k, const void* alpha, const void* a,
                                      int a_type, int lda, long long stride_a, const void* b, int b_type, int ldb,
                                      long long stride_b, const void* beta, void* c, int c_type, int ldc, long long stride_c,
                                      int batch, int compute, int algorithm) {
    if (!alive(handle)) return NOT_INITIALIZED;
    const int a_rows = transa ? k : m, b_rows = transb ? n : k;
    if (m < 0 || n < 0 || k < 0 || batch < 0 || (transa != 0 && transa != 1) || (transb != 0 && transb != 1)) return INVALID_VALUE;
    if (lda < (a_rows > 1 ? a_rows : 1) || ldb < (b_rows > 1 ? b_rows : 1) || ldc < (m > 1 ? m : 1)) return INVALID_VALUE;
    if (alpha == nullptr || beta == nullptr || algorithm != -1) return INVALID_VALUE;
    if (batch > 1 && stride_c < static_cast<long long>(ldc) * (n - 1) + m) return INVALID_VALUE;
    if (!are_supported(a_type, b_type, c_type, compute)) return NOT_SUPPORTED;
    if (m == 0 || n == 0 || batch == 0) return SUCCESS;
    Product product;
    product.a = Matrix{const_cast<void*>(a), a_rows, transa ? m : k, lda, stride_a, a_type, transa};
    product.b = Matrix{const_cast<void*>(b), b_rows, transb ? k : n, ldb, stride_b, b_type, transb};
    product.c = Matrix{c, m, n, ldc, stride_c, c_type, 0};
    product.k = k;
    product.batch = batch;
    const bool is_double = compute == COMPUTE_FLOAT64;
    product.alpha = is_double ? *static_cast<const double*>(alpha) : *static_cast<const float*>(alpha);
    product.beta = is_double ? *static_cast<const double*>(beta) : *static_cast<const float*>(beta);
    product.compute = compute;
    product.has_workspace = alive(handle)->workspace != nullptr;
    return submit(alive(handle)->stream, &product) ? EXECUTION_FAILED : SUCCESS;
}

EXPORT int cublasGemmEx(void* handle, int transa, int transb, int m, int n, int k, const void* alpha, const void* a, int a_type,
                        int lda, const void* b, int b_type, int ldb, const void* beta, void* c, int c_type, int ldc, int compute,
                        int algorithm) {
    return cublasGemmStridedBatchedEx(handle, transa, transb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type,
                                      ldc, 0, 1, compute, algorithm);
}

// -- arithmetic ----------------------------------------------------------------------------------------------------------------

static float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

static uint32_t to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

// Rounded to so many bits behind the point, to the nearest, ties to even; these are the upper bits of a float.
static float rounded(float value, int bits) {
    const uint32_t all = to_bits(value), dropped = 23 - bits;
    if (!std::isfinite(value)) return value;
    return from_bits((all + (1u << (dropped - 1)) - 1 + (all >> dropped & 1)) & ~((1u << dropped) - 1));
}

static float from_half(uint16_t half) {
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const float size = exponent == 31   ? (mantissa ? NAN : INFINITY)
                       : exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                       : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    return half & 0x8000 ? -size : size;
}

static uint16_t to_half(float value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const float size = std::fabs(value);
    if (std::isnan(size)) return 0x7fff;
    if (size >= 65520) return sign | 0x7c00;
    const int exponent = size < std::ldexp(1.0f, -14) ? -14 : std::ilogb(size);
    // In units of the last bit: from 1024 on with the leading one, fewer only below the least normal number.
    const int units = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
    return sign | static_cast<uint16_t>(((exponent + 14) << 10) + units);
}

template <typename SUM>
static SUM value_of(const Matrix& matrix, int64_t index) {
    switch (matrix.type) {
        case FLOAT32: return static_cast<SUM>(static_cast<const float*>(matrix.data)[index]);
        case FLOAT64: return static_cast<SUM>(static_cast<const double*>(matrix.data)[index]);
        case FLOAT16: return from_half(static_cast<const uint16_t*>(matrix.data)[index]);
        default: return from_bits(static_cast<uint32_t>(static_cast<const uint16_t*>(matrix.data)[index]) << 16);
    }
}

template <typename SUM>
static void set_value(const Matrix& matrix, int64_t index, SUM value) {
    switch (matrix.type) {
        case FLOAT32: static_cast<float*>(matrix.data)[index] = value; break;
        case FLOAT64: static_cast<double*>(matrix.data)[index] = value; break;
        case FLOAT16: static_cast<uint16_t*>(matrix.data)[index] = to_half(static_cast<float>(value)); break;
        default: static_cast<uint16_t*>(matrix.data)[index] = to_bits(rounded(static_cast<float>(value), 7)) >> 16;
    }
}

// A factor as a dense array, column by column, transposed if it is to be, its values rounded to TF32 if they are to be.
template <typename SUM>
static void unpack(const Matrix& matrix, int64_t number, bool is_tf32, std::vector<SUM>& dense) {
    dense.resize(matrix.rows * matrix.columns);
    for (int64_t column = 0; column < matrix.columns; ++column) {
        for (int64_t row = 0; row < matrix.rows; ++row) {
            SUM value = value_of<SUM>(matrix, number * matrix.stride + column * matrix.leading + row);
            if (is_tf32) value = rounded(static_cast<float>(value), 10);
            dense[matrix.is_transposed ? row * matrix.columns + column : column * matrix.rows + row] = value;
        }
    }
}

template <typename SUM>
static void run(const Product& product) {
    const int64_t m = product.c.rows, n = product.c.columns, k = product.k;
    std::vector<SUM> a, b, sums(m);
    for (int64_t number = 0; number < product.batch; ++number) {
        if (number == 0 || product.a.stride) unpack(product.a, number, product.compute == COMPUTE_TF32, a);
        if (number == 0 || product.b.stride) unpack(product.b, number, product.compute == COMPUTE_TF32, b);
        for (int64_t column = 0; column < n; ++column) {
            std::memset(sums.data(), 0, m * sizeof(SUM));
            for (int64_t p = 0; p < k; ++p) {
                const SUM factor = b[column * k + p];
                const SUM* __restrict values = a.data() + p * m;
                SUM* __restrict target = sums.data();
                for (int64_t row = 0; row < m; ++row) target[row] += values[row] * factor;
            }
            for (int64_t row = 0; row < m; ++row) {
                const int64_t index = number * product.c.stride + column * product.c.leading + row;
                SUM value = static_cast<SUM>(product.alpha) * sums[row];
                if (product.beta != 0) value += static_cast<SUM>(product.beta) * value_of<SUM>(product.c, index);
                set_value(product.c, index, value);
            }
        }
    }
}

EXPORT void simulated_run(const Product* product) {
    product->compute == COMPUTE_FLOAT64 ? run<double>(*product) : run<float>(*product);
}
