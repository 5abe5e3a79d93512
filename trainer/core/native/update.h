// Optimizers: w (n,) by its gradient g, as the classes of torch.optim have it. g may be changed.
#pragma once
#include <algorithm>

#include "vector.h"

enum Kind : int64_t { SGD, ADAM, RMSPROP, NADAM };  // AdamW is Adam, decoupled

constexpr int STATES = 3;  // tensors like a parameter that an optimizer keeps, at most

// Members [start, stop) that share an optimizer and its settings; pointers are those of the first of them.
struct Rule {
    int64_t kind, start, stop, nesterov, amsgrad, centered, decoupled;
    double lr, momentum, dampening, beta1, beta2, alpha, eps, momentum_decay;
    const double* decay;       // weight decay of every parameter
    void* const* state;        // [parameter][STATES]
    float* const* step;        // one counter a parameter, as torch has it; null for SGD
    float* const* mu_product;  // NAdam's, in 32 bits as torch has it
};

// Whatever of a step does not depend on the weight, in 64 bits until it is ready: 1 - 0.999f is 1e-5 off.
template <class T> struct Settings {
    const Rule& rule;
    bool first;  // step of all
    T lr, momentum, fresh, beta2, alpha, eps, new1, new2, new_alpha, scale1, root2, towards_g, towards_m;

    Settings(const Rule& r, double t) : rule(r), first(t == 1) {  // t: the number of the step, from 1
        const double correction1 = 1 - std::pow(r.beta1, t), correction2 = 1 - std::pow(r.beta2, t);
        lr = T(r.lr), momentum = T(r.momentum), fresh = T(1 - r.dampening);
        beta2 = T(r.beta2), alpha = T(r.alpha), eps = T(r.eps);
        new1 = T(1 - r.beta1), new2 = T(1 - r.beta2), new_alpha = T(1 - r.alpha);
        scale1 = T(r.lr / correction1), root2 = T(std::sqrt(correction2));
        if (r.kind == NADAM) {  // Dozat 2016: mu_t = beta1 (1 - 0.96^(t decay) / 2)
            const auto mu = [&](double s) { return r.beta1 * (1 - 0.5 * std::pow(0.96, s * r.momentum_decay)); };
            const float product = r.mu_product[0][0] * float(mu(t));
            towards_g = T(r.lr * (1 - mu(t)) / (1 - double(product)));
            towards_m = T(r.lr * mu(t + 1) / (1 - double(product) * mu(t + 1)));
        }
    }
};

// g + decay w, or w (1 - lr decay) where decoupled.
template <class T> inline void decay_all(T* w, T* g, int64_t n, double decay, double lr, bool decoupled) {
    if (decay == 0) return;
    const T factor = T(decoupled ? 1 - lr * decay : decay);
    for (int64_t i = 0; i < n; ++i) decoupled ? w[i] *= factor : g[i] += factor * w[i];
}

template <class T>
void update(const Settings<T>& s, T* __restrict w, T* __restrict g, T* __restrict m, T* __restrict v, T* __restrict x,
            int64_t n, double decay) {
    const Rule& r = s.rule;
    decay_all(w, g, n, decay, r.lr, r.decoupled);
    const T lr = s.lr, momentum = s.momentum, fresh = s.fresh, eps = s.eps;
    const bool first = s.first, nesterov = r.nesterov, amsgrad = r.amsgrad;
    switch (r.kind) {
        case SGD:  // m = momentum m + (1 - dampening) g; w -= lr m, or lr (g + momentum m) with Nesterov
            if (r.momentum == 0) {
                for (int64_t i = 0; i < n; ++i) w[i] -= lr * g[i];
                return;
            }
            for (int64_t i = 0; i < n; ++i) m[i] = first ? g[i] : momentum * m[i] + fresh * g[i];
            for (int64_t i = 0; i < n; ++i) w[i] -= lr * (nesterov ? g[i] + momentum * m[i] : m[i]);
            return;
        case ADAM: {  // m, v: running means of g and g^2; w -= lr / c1 m / (sqrt(v / c2) + eps), c = 1 - beta^t
            const T beta2 = s.beta2, new1 = s.new1, new2 = s.new2, scale = s.scale1, root = s.root2;
            for (int64_t i = 0; i < n; ++i) {
                m[i] += new1 * (g[i] - m[i]);
                v[i] = beta2 * v[i] + new2 * g[i] * g[i];
                if (amsgrad) x[i] = x[i] < v[i] || v[i] != v[i] ? v[i] : x[i];  // the largest v (Reddi et al. 2018)
                w[i] -= scale * m[i] / (std::sqrt(amsgrad ? x[i] : v[i]) / root + eps);
            }
            return;
        }
        case RMSPROP: {  // m: momentum, v: running mean of g^2, x: of g (centered)
            const T alpha = s.alpha, new_alpha = s.new_alpha;
            for (int64_t i = 0; i < n; ++i) v[i] = alpha * v[i] + new_alpha * g[i] * g[i];
            if (r.centered)
                for (int64_t i = 0; i < n; ++i) {
                    x[i] += new_alpha * (g[i] - x[i]);
                    g[i] /= std::sqrt(v[i] - x[i] * x[i]) + eps;
                }
            else
                for (int64_t i = 0; i < n; ++i) g[i] /= std::sqrt(v[i]) + eps;
            if (r.momentum != 0)
                for (int64_t i = 0; i < n; ++i) g[i] = m[i] = momentum * m[i] + g[i];
            for (int64_t i = 0; i < n; ++i) w[i] -= lr * g[i];
            return;
        }
        case NADAM: {
            const T beta2 = s.beta2, new1 = s.new1, new2 = s.new2, root = s.root2, a = s.towards_g, b = s.towards_m;
            for (int64_t i = 0; i < n; ++i) {
                m[i] += new1 * (g[i] - m[i]);
                v[i] = beta2 * v[i] + new2 * g[i] * g[i];
                w[i] -= (a * g[i] + b * m[i]) / (std::sqrt(v[i]) / root + eps);
            }
            return;
        }
    }
}

// Count the step in the tensors that torch keeps for it.
inline void count_step(const Rule& r, int64_t parameters, double t) {
    for (int64_t p = 0; p < parameters; ++p) {
        if (r.step) *r.step[p] += 1;
        if (r.kind == NADAM) *r.mu_product[p] *= float(r.beta1 * (1 - 0.5 * std::pow(0.96, t * r.momentum_decay)));
    }
}
