// Matrix products on the vector unit: a tile of C stays in registers while its sums are made.
#pragma once
#include "vector.h"

enum class Start { zero, rows, go_on };  // what C holds before: nothing, start[row] in each row, or itself

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 6, VECTORS = 4;  // of a tile: 24 of 32 registers hold sums
#else
constexpr int ROWS = 4, VECTORS = 2;  // 8 of 16
#endif

// A product C (m, n) = A (m, k) B (k, n). A has any strides; rows of B and C are read in whole vectors.
template <class T> struct Product {
    int64_t m, n, k;
    const T* a;
    int64_t a_row, a_column;
    const T* b;
    int64_t b_row;
    T* c;
    int64_t c_row;
    const T* start = nullptr;
};

template <class T, int M, int N, Start S> inline void tile(const Product<T>& p, int64_t i, int64_t j) {
    V<T> sums[M][N];
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) {
            if (S == Start::zero) sums[r][v] = V<T>{};
            if (S == Start::rows) sums[r][v] = all<T>(p.start[i + r]);
            if (S == Start::go_on) sums[r][v] = load(p.c + (i + r) * p.c_row + j + v * W<T>);
        }
    const T *a = p.a + i * p.a_row, *b = p.b + j;
    for (int64_t q = 0; q < p.k; ++q, a += p.a_column, b += p.b_row) {
        V<T> row[N];
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) row[v] = load(b + v * W<T>);
#pragma GCC unroll 8
        for (int r = 0; r < M; ++r) {
            const V<T> factor = all<T>(a[r * p.a_row]);
#pragma GCC unroll 4
            for (int v = 0; v < N; ++v) sums[r][v] += factor * row[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) store(p.c + (i + r) * p.c_row + j + v * W<T>, sums[r][v]);
}

template <class T, int N, Start S> void columns(const Product<T>& p, int64_t j) {
    int64_t i = 0;
    for (; i + ROWS <= p.m; i += ROWS) tile<T, ROWS, N, S>(p, i, j);
    switch (p.m - i) {
        case 5: return tile<T, 5, N, S>(p, i, j);
        case 4: return tile<T, 4, N, S>(p, i, j);
        case 3: return tile<T, 3, N, S>(p, i, j);
        case 2: return tile<T, 2, N, S>(p, i, j);
        case 1: return tile<T, 1, N, S>(p, i, j);
    }
}

template <class T, Start S> void multiply(const Product<T>& p) {
    int64_t j = 0, vectors = (p.n + W<T> - 1) / W<T>;
    for (; vectors >= VECTORS; vectors -= VECTORS, j += VECTORS * W<T>) columns<T, VECTORS, S>(p, j);
    switch (vectors) {
        case 3: return columns<T, 3, S>(p, j);
        case 2: return columns<T, 2, S>(p, j);
        case 1: return columns<T, 1, S>(p, j);
    }
}
