// Vectors of T as wide as the machine has them, by GCC's and Clang's vector extensions; elementary functions of them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;  // SSE2, NEON
#endif

template <class T> constexpr int W = BYTES / int(sizeof(T));  // numbers in a vector

template <class T> struct Types {
    using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    typedef T V __attribute__((vector_size(BYTES)));
    typedef Int I __attribute__((vector_size(BYTES)));
    typedef T Loose __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias));  // anywhere in memory
};
template <class T> using V = typename Types<T>::V;
template <class T> using I = typename Types<T>::I;

template <class T> inline V<T> load(const T* p) { return *reinterpret_cast<const typename Types<T>::Loose*>(p); }
template <class T> inline void store(T* p, V<T> v) { *reinterpret_cast<typename Types<T>::Loose*>(p) = v; }
template <class T> inline V<T> all(T x) { return V<T>{} + x; }
template <class T> inline T total(V<T> v) {
    T sum = 0;
    for (int i = 0; i < W<T>; ++i) sum += v[i];
    return sum;
}
inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

template <class T> struct Float;  // of IEEE 754
template <> struct Float<float> {
    static constexpr int mantissa = 23, bias = 127, terms = 8;
    static constexpr float low = -87.0f, high = 88.0f;  // whose exponentials are normal numbers
    static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
};
template <> struct Float<double> {
    static constexpr int mantissa = 52, bias = 1023, terms = 14;
    static constexpr double low = -708.0, high = 709.0;
    static constexpr double ln2_high = 0x1.62e42fefap-1, ln2_low = 0x1.cf79abc9e3b3ap-40;
};

// e^x = 2^n (1 + p): n = round(x / ln 2), p = e^r - 1 by its Taylor series in r = x - n ln 2, |r| <= ln(2) / 2
template <class T> struct Exponential {
    V<T> power, p;
    explicit Exponential(V<T> x) {
        using F = Float<T>;
        x = x < F::low ? all<T>(F::low) : x > F::high ? all<T>(F::high) : x;  // NaN stays
        const V<T> magic = all<T>(T(1.5) * T(int64_t(1) << F::mantissa));  // adding it rounds to whole numbers
        const V<T> shifted = x * T(1.4426950408889634) + magic, n = shifted - magic;
        const V<T> r = (x - n * F::ln2_high) - n * F::ln2_low;
        T factorial = 1;
        for (int k = 2; k <= F::terms; ++k) factorial *= T(k);
        p = all<T>(1 / factorial);
        for (int k = F::terms - 1; k >= 1; --k) {
            factorial /= T(k + 1);
            p = p * r + 1 / factorial;
        }
        p *= r;
        const I<T> exponent = (I<T>)shifted - (I<T>)magic + typename Types<T>::Int(F::bias);
        power = (V<T>)(exponent << F::mantissa);
    }
    V<T> value() const { return power + power * p; }
    V<T> minus_one() const { return (power - 1) + power * p; }  // to all digits near x = 0
};
template <class T> inline V<T> exp(V<T> x) { return Exponential<T>(x).value(); }

// erfc(z) = t e^(f(t) - z^2), t = 2 / (2 + z), for 0 <= z <= Z: f is smooth, and so a short Chebyshev series in t
struct Erfc {
    static constexpr int N = 24;
    static constexpr double Z = 6, start = 2 / (2 + Z);
    double c[N];
    Erfc() {
        const double pi = std::acos(-1.0);
        for (int j = 0; j < N; ++j) {
            c[j] = 0;
            for (int i = 0; i < N; ++i) {
                const double angle = pi * (i + 0.5) / N, t = start + (1 - start) * (std::cos(angle) + 1) / 2;
                const double z = 2 / t - 2, f = std::log(std::erfc(z) / t) + z * z;
                c[j] += (j ? 2.0 : 1.0) / N * f * std::cos(j * angle);
            }
        }
    }
};
template <class T> inline V<T> erf(V<T> x) {
    static const Erfc series;
    const V<T> size = x < 0 ? -x : x, z = size > T(Erfc::Z) ? all<T>(T(Erfc::Z)) : size;
    const V<T> t = 2 / (2 + z), u = (t - T(Erfc::start)) * T(2 / (1 - Erfc::start)) - 1;
    V<T> now = all<T>(0), before = now;  // Clenshaw's recurrence
    for (int j = Erfc::N - 1; j >= 1; --j) {
        const V<T> next = 2 * u * now - before + T(series.c[j]);
        before = now;
        now = next;
    }
    const V<T> y = 1 - t * exp<T>(u * now - before + T(series.c[0]) - z * z);
    return x < 0 ? -y : y;
}

// Transpose a (W, W) tile by log2(W) perfect shuffles: rows r and r + W/2 are interleaved each time.
template <class T> inline void transpose_tile(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
#if defined(__clang__)
    for (int i = 0; i < W<T>; ++i)
        for (int j = 0; j < W<T>; ++j) to[j * to_stride + i] = from[i * from_stride + j];
#else
    constexpr int N = W<T>;
    V<T> rows[N], mixed[N];
    I<T> low{}, high{};
    for (int i = 0; i < N; ++i) {
        low[i] = i / 2 + i % 2 * N;
        high[i] = low[i] + N / 2;
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) rows[i] = load(from + i * from_stride);
#pragma GCC unroll 4
    for (int round = 1; round < N; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < N / 2; ++i) {
            mixed[2 * i] = __builtin_shuffle(rows[i], rows[i + N / 2], low);
            mixed[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + N / 2], high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) rows[i] = mixed[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) store(to + i * to_stride, rows[i]);
#endif
}

// from (rows, columns) -> to (columns, rows); both have room for whole tiles.
template <class T>
void transpose(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to, int64_t to_stride) {
    for (int64_t i = 0; i < rows; i += W<T>)
        for (int64_t j = 0; j < columns; j += W<T>)
            transpose_tile<T>(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
}

// Sums over n numbers, four vectors at a time: of f(0), f(W), ... and of tail(i) for what is left.
template <class T, class F, class G> inline T sum(int64_t n, F f, G tail) {
    V<T> s[4] = {};
    int64_t i = 0;
    for (; i + 4 * W<T> <= n; i += 4 * W<T>)
        for (int j = 0; j < 4; ++j) s[j] += f(i + j * W<T>);
    for (; i + W<T> <= n; i += W<T>) s[0] += f(i);
    T out = total<T>((s[0] + s[1]) + (s[2] + s[3]));
    for (; i < n; ++i) out += tail(i);
    return out;
}
template <class T> T sum_of(const T* a, int64_t n) {
    return sum<T>(n, [&](int64_t i) { return load(a + i); }, [&](int64_t i) { return a[i]; });
}
template <class T> T sum_of_products(const T* a, const T* b, int64_t n) {
    return sum<T>(n, [&](int64_t i) { return load(a + i) * load(b + i); }, [&](int64_t i) { return a[i] * b[i]; });
}
