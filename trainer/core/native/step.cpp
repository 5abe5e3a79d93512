// One training step of a stack of multi-layer perceptrons, member by member: forward, backward, norms and update while
// the member lies in the cache. A member's numbers do not depend on its company. Called by trainer/core/native.
//
// Shapes: K member, B example, I in-feature, O out-feature, N example of the data set, P parameter.
#include <algorithm>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "layers.h"
#include "product.h"
#include "update.h"

constexpr double THREAD_FLOPS = 2e7;  // of a step: less does not repay the start of a thread

struct Dropout {  // of all members before one layer, in one batch
    const int16_t* noise;
    int64_t stride;            // from member to member
    const int16_t* threshold;  // (K,)
    const void* scale;         // (K,)
};

struct Network {  // what stays as it is for an epoch
    int64_t members, layers, parameters;
    const int64_t* sizes;  // features of the input, of each hidden layer, of the output
    int64_t activation, norm, loss;
    double smoothing;
    const void* x;                  // (N, I)
    void* const* weights;           // P, in the order of the module: (K, ...)
    void* const* running;           // mean and variance of every batch norm: (K, F)
    int64_t* const* batches_seen;   // (K,) each
    const double* max_norm;         // (K,), infinite where it is not clipped; null where nobody clips
    const int64_t* rows;            // (K, order): rows of x in the order of the epoch
    const void* targets;            // (K, order) classes, or (K, order, O) values
    int64_t order, has_classes;
};

struct Step {
    double number;         // from 1
    int64_t batches;
    const int64_t* edges;  // start and stop of every batch in the order
    const Dropout* drops;  // [batch][layer]: before it; noise is null where there is none
    void* measured;        // (M, K): loss, accuracy of classes, total norm, clipped total, P norms; or null
    int64_t threads;
};

template <class T> class Member {
    struct Parameter {
        T *value, *gradient;
        int64_t rows, columns, stride;  // of the gradient, which is padded to whole vectors
    };
    struct Layer {
        int64_t in, out;
        Parameter *weight, *bias;
        Parameter *gamma, *beta;
        BatchNorm<T> norm;
        T *x, *slope;  // its input (in, stride), and the slope of the activation that made it
    };
    const Network& net;
    const Step& step;
    const int64_t k;
    int64_t stride = 0, across = 0, most = 0;  // of (F, B) arrays; of (B, F) ones; examples of the largest batch
    std::vector<Parameter> parameters;
    std::vector<Layer> layers;
    T *output, *transposed, *gradient, *other;  // gradients by a layer's output and input, in turn

    // Memory for one member after the other; each array begins on a line of the cache.
    static T* arena(int64_t need) {
        static thread_local std::unique_ptr<T[]> memory;
        static thread_local int64_t size = 0;
        if (need > size) memory.reset(new T[need]), size = need;
        return memory.get();
    }

    int64_t lay_out(T* base) {  // the arrays from `base` on; how many numbers they take
        int64_t used = 0, widest = *std::max_element(net.sizes, net.sizes + net.layers + 1), p = 0;
        const auto array = [&](int64_t rows, int64_t row) {
            T* at = base + used;
            used += round_up(rows * row, 64 / sizeof(T));
            return at;
        };
        const auto parameter = [&](int64_t rows, int64_t columns) {
            const int64_t padded = rows == 1 ? columns : round_up(columns, W<T>);
            T* value = static_cast<T*>(net.weights[p++]) + k * rows * columns;
            parameters.push_back({value, array(rows, padded), rows, columns, padded});
            return &parameters.back();
        };
        parameters.clear(), layers.clear();
        parameters.reserve(net.parameters);
        for (int64_t l = 0; l < net.layers; ++l) {
            const bool hidden = l + 1 < net.layers, has_norm = hidden && net.norm != NONE;
            Layer layer{};
            layer.in = net.sizes[l], layer.out = net.sizes[l + 1];
            layer.weight = parameter(layer.out, layer.in);
            if (!has_norm || net.norm == AFTER) layer.bias = parameter(1, layer.out);
            if (has_norm) {
                layer.gamma = parameter(1, layer.out), layer.beta = parameter(1, layer.out);
                const auto running = [&](int i) { return static_cast<T*>(net.running[2 * l + i]) + k * layer.out; };
                layer.norm = {layer.gamma->value,        layer.beta->value, running(0), running(1),
                              array(layer.out, stride), array(1, layer.out)};
            }
            layer.x = array(round_up(layer.in, W<T>), stride);
            if (l) layer.slope = array(layer.in, stride);
            layers.push_back(layer);
        }
        output = array(layers.back().out, stride);
        transposed = array(round_up(most, W<T>), across);
        gradient = array(widest, stride), other = array(widest, stride);
        return used;
    }

    const Dropout* drop_before(int64_t batch, int64_t l) const {
        const Dropout* d = step.drops ? step.drops + batch * net.layers + l : nullptr;
        return d && d->noise ? d : nullptr;
    }
    void apply(const Dropout& d, T* x, int64_t rows, int64_t B) const {
        drop(x, rows, stride, B, d.noise + k * d.stride, d.threshold[k], static_cast<const T*>(d.scale)[k]);
    }

    void gather(const int64_t* rows, int64_t B) {
        const int64_t in = layers[0].in, end = round_up(B, W<T>);
        for (int64_t b = 0; b < end; ++b) {
            T* to = transposed + b * across;
            if (b < B)
                std::memcpy(to, static_cast<const T*>(net.x) + rows[b] * in, in * sizeof(T));
            else
                std::fill(to, to + in, T(0));
        }
        transpose(transposed, across, end, in, layers[0].x, stride);
    }

    void forward(int64_t batch, int64_t B) {
        const int64_t end = round_up(B, W<T>);
        for (int64_t l = 0; l < net.layers; ++l) {
            Layer& at = layers[l];
            if (const Dropout* d = drop_before(batch, l)) apply(*d, at.x, at.in, B);
            const bool hidden = l + 1 < net.layers;
            T* z = hidden ? layers[l + 1].x : output;  // z = W x + b
            const Product<T> product{at.out, end, at.in, at.weight->value, at.in, 1,
                                     at.x,   stride, z,  stride, at.bias ? at.bias->value : nullptr};
            at.bias ? multiply<T, Start::rows>(product) : multiply<T, Start::zero>(product);
            if (!hidden) continue;
            if (at.gamma && net.norm == BEFORE) at.norm.forward(z, at.out, stride, B);
            activate(net.activation, z, layers[l + 1].slope, at.out, stride, end);
            if (at.gamma && net.norm == AFTER) at.norm.forward(z, at.out, stride, B);
            if (at.gamma) ++net.batches_seen[l][k];
        }
    }

    void backward(int64_t batch, int64_t B, bool first) {
        const int64_t end = round_up(B, W<T>);
        T *dy = output, *dx = gradient;
        for (int64_t l = net.layers - 1; l >= 0; --l) {
            Layer& at = layers[l];
            if (at.bias)  // db = sum of dy over examples
                for (int64_t o = 0; o < at.out; ++o) at.bias->gradient[o] += sum_of(dy + o * stride, B);
            transpose(at.x, stride, at.in, end, transposed, across);
            const Product<T> by_weight{at.out, at.in, B, dy, stride, 1, transposed, across,  // dW = dy x^T
                                       at.weight->gradient, at.weight->stride};
            first ? multiply<T, Start::zero>(by_weight) : multiply<T, Start::go_on>(by_weight);
            if (l == 0) return;
            const Layer& below = layers[l - 1];
            multiply<T, Start::zero>({at.in, end, at.out, at.weight->value, 1, at.in, dy, stride, dx, stride});  // W^T dy
            if (const Dropout* d = drop_before(batch, l)) apply(*d, dx, at.in, B);
            if (below.gamma && net.norm == AFTER) normalise_back(below, dx, B);
            for (int64_t f = 0; f < at.in; ++f)
                for (int64_t b = f * stride; b < f * stride + end; ++b) dx[b] *= at.slope[b];
            if (below.gamma && net.norm == BEFORE) normalise_back(below, dx, B);
            dy = dx;
            dx = dx == gradient ? other : gradient;
        }
    }
    void normalise_back(const Layer& layer, T* dy, int64_t B) {
        layer.norm.backward(dy, layer.gamma->gradient, layer.beta->gradient, layer.out, stride, B);
    }

   public:
    Member(const Network& net, const Step& step, int64_t k) : net(net), step(step), k(k) {
        for (int64_t i = 0; i < step.batches; ++i) most = std::max(most, step.edges[2 * i + 1] - step.edges[2 * i]);
        const auto odd = [](int64_t n) { return ((n + W<T> - 1) / W<T> | 1) * W<T>; };  // no power of two: rows would
        stride = odd(most);                                                             // share places in the cache
        across = odd(*std::max_element(net.sizes, net.sizes + net.layers));
        T* base = arena(lay_out(arena(1)) + 64 / sizeof(T));
        lay_out(base + (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64 / sizeof(T));
    }

    void train(const Rule& rule, const Settings<T>& settings) {
        T loss = 0, correct = 0;
        int64_t examples = 0;
        for (int64_t i = 0; i < step.batches; ++i) examples += step.edges[2 * i + 1] - step.edges[2 * i];
        for (Parameter& p : parameters)
            if (p.rows == 1) std::fill(p.gradient, p.gradient + p.columns, T(0));
        for (int64_t i = 0; i < step.batches; ++i) {
            const int64_t start = step.edges[2 * i], B = step.edges[2 * i + 1] - start, place = k * net.order + start;
            const int64_t C = layers.back().out, *target = static_cast<const int64_t*>(net.targets) + place;
            gather(net.rows + place, B);
            forward(i, B);
            const T share = 1 / T(examples);
            if (net.loss == CROSS_ENTROPY)
                cross_entropy(output, C, stride, B, target, T(net.smoothing), share, loss, correct);
            else
                squared_error(output, C, stride, B,
                              net.has_classes ? nullptr : static_cast<const T*>(net.targets) + place * C,
                              net.has_classes ? target : nullptr, share, loss, correct);
            backward(i, B, i == 0);
        }
        T factor = 1;
        if (step.measured || net.max_norm) factor = measure(loss / T(examples), correct / T(examples));
        for (size_t p = 0; p < parameters.size(); ++p) update_parameter(rule, settings, p, factor);
    }

   private:
    // Write what is measured; the factor of clipping, as torch.nn.utils.clip_grad_norm_ has it.
    T measure(T loss, T correct) {
        std::vector<T> norms;
        T squares = 0, factor = 1;
        for (const Parameter& p : parameters) {
            T s = 0;
            if (p.stride == p.columns)
                s = sum_of_products(p.gradient, p.gradient, p.rows * p.columns);
            else
                for (int64_t r = 0; r < p.rows; ++r)
                    s += sum_of_products(p.gradient + r * p.stride, p.gradient + r * p.stride, p.columns);
            norms.push_back(std::sqrt(s));
            squares += s;
        }
        const T whole = std::sqrt(squares);
        if (net.max_norm && std::isfinite(net.max_norm[k])) {
            factor = T(net.max_norm[k]) / (whole + T(1e-6));
            if (factor > 1) factor = 1;  // NaN stays
        }
        if (T* out = static_cast<T*>(step.measured)) {
            out += k;
            const auto write = [&](T value) { *out = value, out += net.members; };
            write(loss);
            if (net.has_classes) write(correct);
            write(whole);
            if (net.max_norm) write(whole * factor);
            for (T norm : norms) write(norm);
        }
        return factor;
    }

    void update_parameter(const Rule& rule, const Settings<T>& settings, size_t index, T factor) {
        const Parameter& p = parameters[index];
        const bool whole = p.stride == p.columns;
        const int64_t n = whole ? p.rows * p.columns : p.columns, runs = whole ? 1 : p.rows;
        for (int64_t r = 0; r < runs; ++r) {
            T *g = p.gradient + r * p.stride, *state[STATES];
            for (int s = 0; s < STATES; ++s) {
                T* first = static_cast<T*>(rule.state[index * STATES + s]);
                state[s] = first ? first + (k - rule.start) * p.rows * p.columns + r * n : nullptr;
            }
            if (factor != 1)
                for (int64_t i = 0; i < n; ++i) g[i] *= factor;
            update(settings, p.value + r * n, g, state[0], state[1], state[2], n, rule.decay[index]);
        }
    }
};

template <class T> void take_step(const Network& net, const Rule* rules, int64_t count_of_rules, const Step& step) {
    const auto train = [&](int64_t from, int64_t to) {
        for (int64_t r = 0; r < count_of_rules; ++r) {
            const Settings<T> settings(rules[r], step.number);
            for (int64_t k = std::max(from, rules[r].start); k < std::min(to, rules[r].stop); ++k)
                Member<T>(net, step, k).train(rules[r], settings);
        }
    };
    double flops = 0;  // forward 2, backward 4 a weight and example
    for (int64_t l = 0; l < net.layers; ++l) flops += 6.0 * net.members * net.sizes[l] * net.sizes[l + 1];
    flops *= step.edges[2 * step.batches - 1] - step.edges[0];
    const int64_t threads = std::min({step.threads, net.members, 1 + int64_t(flops / THREAD_FLOPS)});
    std::vector<std::thread> others;
    for (int64_t i = 1; i < threads; ++i)
        others.emplace_back(train, net.members * i / threads, net.members * (i + 1) / threads);
    train(0, threads > 1 ? net.members / threads : net.members);
    for (std::thread& other : others) other.join();
    for (int64_t r = 0; r < count_of_rules; ++r) count(rules[r], net.parameters, step.number);
}

#define TEXT(x) #x
#define TEXT_OF(macro) TEXT(macro)
extern "C" {
int trainer_level() {  // the best of library.VERSIONS for this processor
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512cd");
    return avx2 ? 1 + avx512 : 0;
#else
    return 0;
#endif
}
const char* trainer_source() { return TEXT_OF(SOURCE); }  // a hash of these files: a library of others is not used
void trainer_step_float32(const Network* net, const Rule* rules, int64_t n, const Step* step) {
    take_step<float>(*net, rules, n, *step);
}
void trainer_step_float64(const Network* net, const Rule* rules, int64_t n, const Step* step) {
    take_step<double>(*net, rules, n, *step);
}
}
