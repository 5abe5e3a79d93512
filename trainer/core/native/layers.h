// What stands between the products of a network: activations, batch norm, dropout, losses.
// Shapes: F feature, B example, C class. Arrays are (F, stride): examples in a row, which are padded to whole vectors.
#pragma once
#include "vector.h"

enum Activation : int64_t { RELU, TANH, SIGMOID, GELU, SILU };
enum Norm : int64_t { NONE, BEFORE, AFTER };
enum Loss : int64_t { CROSS_ENTROPY, SQUARED };

// z -> a in place, and the slope da/dz where there is room for it.
template <class T, class F> void each(T* z, T* slope, int64_t rows, int64_t stride, int64_t columns, F f) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = r * stride; i < r * stride + columns; i += W<T>) {
            V<T> a = load(z + i), d;
            f(a, d);
            store(z + i, a);
            if (slope) store(slope + i, d);
        }
}
template <class T> void activate(int64_t kind, T* z, T* slope, int64_t rows, int64_t stride, int64_t columns) {
    const auto with = [&](auto f) { each<T>(z, slope, rows, stride, columns, f); };
    const V<T> zero{}, one = all<T>(1);
    switch (kind) {
        case RELU:
            return with([&](V<T>& a, V<T>& d) {
                d = a <= 0 ? zero : one;  // NaN passes, as in torch
                a = a <= 0 ? zero : a;
            });
        case TANH:  // (e^2z - 1) / (e^2z + 1)
            return with([&](V<T>& a, V<T>& d) {
                const V<T> e = Exponential<T>(2 * a).minus_one();
                a = e / (e + 2);
                d = 1 - a * a;
            });
        case SIGMOID:
            return with([&](V<T>& a, V<T>& d) {
                a = 1 / (1 + exp<T>(-a));
                d = a * (1 - a);
            });
        case GELU:  // z Phi(z), Phi the normal distribution; slope Phi(z) + z phi(z)
            return with([&](V<T>& a, V<T>& d) {
                const V<T> share = (1 + erf<T>(a * T(M_SQRT1_2))) / 2;
                d = share + a * exp<T>(a * a / T(-2)) * T(M_2_SQRTPI * M_SQRT1_2 / 2);
                a *= share;
            });
        case SILU:  // z s(z), s the sigmoid; slope s + z s (1 - s)
            return with([&](V<T>& a, V<T>& d) {
                const V<T> s = 1 / (1 + exp<T>(-a));
                d = s * (1 + a * (1 - s));
                a *= s;
            });
    }
}

// Where an activation hardly has a slope: up to the input `limit`, or if it saturates where its output is farther than
// that from `middle`. A unit is flat where it is so on `share` of the examples.
struct Flat {
    int64_t saturates;
    double middle, limit, share;
};

// Of activations a = f(z): their mean; their standard deviation over examples, root mean square over units; the share
// of units that are flat. They are written `step` doubles apart; z is used up.
template <class T>
void look(const Flat& flat, T* z, const T* a, int64_t rows, int64_t stride, int64_t B, double* to, int64_t step) {
    const T middle = T(flat.middle), limit = T(flat.limit);
    const float enough = float(flat.share * double(B));
    double means = 0, squares = 0, count = 0;
    for (int64_t r = 0; r < rows; ++r, z += stride, a += stride) {
        const T mean = sum_of(a, B) / T(B);
        int64_t flats = 0;
        for (int64_t i = 0; i < B; ++i) flats += flat.saturates ? std::abs(a[i] - middle) > limit : z[i] <= limit;
        for (int64_t i = 0; i < B; ++i) z[i] = a[i] - mean;
        means += mean;
        squares += sum_of_products(z, z, B);
        count += float(flats) >= enough;
    }
    to[0] = means / double(rows);
    to[step] = std::sqrt(squares / double(rows * B));
    to[2 * step] = count / double(rows);
}

template <class T> void clear_padding(T* x, int64_t rows, int64_t stride, int64_t used) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = used; i < round_up(used, W<T>); ++i) x[r * stride + i] = 0;
}

// x * [noise >= threshold] * scale. noise (F, B): one number an example; see StackedDropout.
template <class T>
void drop(T* x, int64_t rows, int64_t stride, int64_t B, const int16_t* noise, int16_t threshold, T scale) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < B; ++i) x[r * stride + i] *= noise[r * B + i] >= threshold ? scale : T(0);
}

// Batch normalisation (Ioffe and Szegedy 2015, algorithm 1) as nn.BatchNorm1d: y = gamma xhat + beta,
// xhat = (x - mean) / sqrt(var + eps); running statistics move by a tenth, the variance by B - 1.
template <class T> struct BatchNorm {
    T *gamma, *beta, *dgamma, *dbeta, *mean, *var;  // (F,) each
    T *xhat, *inverse;                              // of the batch: (F, stride) and 1 / sqrt(var + eps), (F,)

    void forward(T* x, int64_t rows, int64_t stride, int64_t B, bool training) const {
        for (int64_t r = 0; r < rows; ++r) {
            T *row = x + r * stride, *hat = xhat + r * stride;
            if (!training) {  // by the running statistics
                const T scale = gamma[r] / std::sqrt(var[r] + T(1e-5)), shift = beta[r] - mean[r] * scale;
                for (int64_t i = 0; i < B; ++i) row[i] = scale * row[i] + shift;
                continue;
            }
            const T mu = sum_of(row, B) / T(B);
            for (int64_t i = 0; i < B; ++i) hat[i] = row[i] - mu;
            const T squares = sum_of_products(hat, hat, B);
            inverse[r] = 1 / std::sqrt(squares / T(B) + T(1e-5));
            for (int64_t i = 0; i < B; ++i) row[i] = gamma[r] * (hat[i] *= inverse[r]) + beta[r];
            mean[r] = T(0.9) * mean[r] + T(0.1) * mu;
            var[r] = T(0.9) * var[r] + T(0.1) * (squares / T(B - 1));
        }
    }

    // dy -> dx in place: dx = gamma / sqrt(var + eps) (dy - mean(dy) - xhat mean(dy xhat)); adds to dgamma, dbeta.
    void backward(T* dy, int64_t rows, int64_t stride, int64_t B) const {
        for (int64_t r = 0; r < rows; ++r) {
            T *row = dy + r * stride, *hat = xhat + r * stride;
            const T sum_dy = sum_of(row, B), sum_hat = sum_of_products(row, hat, B);
            dbeta[r] += sum_dy;
            dgamma[r] += sum_hat;
            const T factor = gamma[r] * inverse[r], m1 = sum_dy / T(B), m2 = sum_hat / T(B);
            for (int64_t i = 0; i < B; ++i) row[i] = factor * (row[i] - m1 - hat[i] * m2);
        }
    }
};

// Outputs (C, stride) -> their gradient times `share`, in place; adds the losses of B examples, the correct ones, and
// where there is room for it how often each class is predicted (C,).
// Cross-entropy -sum_c q_c log p_c, p = softmax, q = (1 - s) onehot + s / C: its gradient is p - q.
template <class T>
void cross_entropy(T* z, int64_t C, int64_t stride, int64_t B, const int64_t* target, T smoothing, T share, T& loss,
                   T& correct, int64_t* predicted) {
    const T even = smoothing / T(C);
    for (int64_t b = 0; b < B; b += W<T>) {
        V<T> top = load(z + b), best = {}, sum = {}, all_z = {};  // best: the first largest class, or the first NaN
        for (int64_t c = 1; c < C; ++c) {
            const V<T> now = load(z + c * stride + b);
            const I<T> more = (now > top) | ((now != now) & (top == top));
            top = more ? now : top;
            best = more ? all<T>(T(c)) : best;
        }
        T at_target[W<T>];  // before z becomes p
        for (int i = 0; i < W<T>; ++i) at_target[i] = b + i < B ? z[target[b + i] * stride + b + i] : T(0);
        for (int64_t c = 0; c < C; ++c) {
            const V<T> shifted = load(z + c * stride + b) - top, p = exp<T>(shifted);
            all_z += shifted;
            sum += p;
            store(z + c * stride + b, p);
        }
        const V<T> scale = share / sum;
        for (int64_t c = 0; c < C; ++c) store(z + c * stride + b, load(z + c * stride + b) * scale - even * share);
        for (int i = 0; i < W<T> && b + i < B; ++i) {
            const int64_t y = target[b + i];
            const T log_sum = std::log(sum[i]);
            z[y * stride + b + i] -= (1 - smoothing) * share;
            loss += (1 - smoothing) * (log_sum - (at_target[i] - top[i]));
            if (smoothing != 0) loss += even * (T(C) * log_sum - all_z[i]);
            correct += T(int64_t(best[i]) == y);
            if (predicted) ++predicted[int64_t(best[i])];
        }
    }
    clear_padding(z, C, stride, B);
}

// Mean over outputs of d^2, d = output - target: its gradient is 2 d / C. Targets are values (B, C), or classes.
template <class T>
void squared_error(T* z, int64_t C, int64_t stride, int64_t B, const T* values, const int64_t* target, T share, T& loss,
                   T& correct, int64_t* predicted) {
    for (int64_t b = 0; b < B; ++b) {
        T squares = 0, top = z[b];
        int64_t best = 0;
        for (int64_t c = 0; c < C; ++c) {
            T& out = z[c * stride + b];
            if (out > top || (out != out && top == top)) top = out, best = c;
            const T d = out - (values ? values[b * C + c] : T(c == target[b]));
            squares += d * d;
            out = 2 * d / T(C) * share;
        }
        loss += squares / T(C);
        if (target) correct += T(best == target[b]);
        if (predicted) ++predicted[best];
    }
    clear_padding(z, C, stride, B);
}
