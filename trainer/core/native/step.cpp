// Training steps of a stack of multi-layer perceptrons, member by member: forward, backward, norms and update while the
// member lies in the cache; and the evaluation of a split. A member's numbers depend on neither company nor threads.
//
// Shapes: K member, B example, I in-feature, O out-feature, N example of the data set, P parameter.
#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

#include "layers.h"
#include "product.h"
#include "update.h"

constexpr double THREAD_FLOPS = 2e7;  // less does not repay the start of a thread

struct Dropout {  // of all members before one layer, in one batch
    const int16_t *noise, *threshold;  // threshold: (K,)
    const void* scale;                 // (K,)
    int64_t stride;                    // of the noise from member to member
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
    const int64_t* rows;            // (K, order): rows of x in the order of the epoch, or of a split
    const void* targets;            // (K, order) classes, or (K, order, O) values
    int64_t order, has_classes, bits;  // of a number: 32 or 64
};

struct Step {
    double number;         // from 1
    int64_t batches, examples, most;  // of all its batches, of the largest
    const int64_t* edges;  // start and stop of every batch in the order
    const Dropout* drops;  // [batch][layer]: before it; noise is null where there is none
    void* measured;        // (M, K): loss, accuracy of classes, total norm, clipped total, P norms; or null
    void* moved;           // (3, P, K): norms of the weights before, of their change, of the weights after; or null
    const Rule* rules;     // with the learning rates of this step
};

struct Evaluation {
    int64_t batch;      // examples that pass at a time; of the first ones the activations are looked at
    const Flat* flat;   // what of an activation is flat; null: nothing is looked at
    void* outputs;      // (K, order, O); or null
    double* measured;   // (M, K): loss, accuracy of classes; then, if looked at: mean, spread and share of flat units
    int64_t threads;    // of each activation; share of the class predicted most
};

template <class T> class Member {
    struct Parameter {
        T *value, *gradient;
        int64_t rows, columns, stride;  // of the gradient, which is padded to whole vectors
        int64_t runs() const { return stride == columns ? 1 : rows; }  // of numbers without padding between them
        int64_t run() const { return rows * columns / runs(); }
    };
    struct Layer {
        int64_t in, out;
        Parameter *weight, *bias;
        Parameter *gamma, *beta;
        BatchNorm<T> norm;
        T *x, *slope;  // its input (in, stride), and the slope of the activation that made it
    };
    const Network& net;
    const int64_t k, most;           // examples of the largest batch
    int64_t stride = 0, across = 0;  // of (F, B) arrays; of (B, F) ones
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
                layer.norm = {layer.gamma->value, layer.beta->value, layer.gamma->gradient, layer.beta->gradient,
                              running(0), running(1), array(layer.out, stride), array(1, layer.out)};
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

    void apply(const Dropout* drops, int64_t l, T* x, int64_t rows, int64_t B) const {
        if (!drops || !drops[l].noise) return;
        const Dropout& d = drops[l];
        drop(x, rows, stride, B, d.noise + k * d.stride, d.threshold[k], static_cast<const T*>(d.scale)[k]);
    }

    void gather(const int64_t* rows, int64_t B) {
        const int64_t in = layers[0].in, end = round_up(B, W<T>);
        for (int64_t b = 0; b < B; ++b)
            std::memcpy(transposed + b * across, static_cast<const T*>(net.x) + rows[b] * in, in * sizeof(T));
        std::fill(transposed + B * across, transposed + end * across, T(0));
        transpose(transposed, across, end, in, layers[0].x, stride);
    }

    // seen: in evaluation, where to write what was seen of the activations, if at all.
    void forward(int64_t B, bool training, const Dropout* drops, const Flat* flat = nullptr, double* seen = nullptr) {
        const int64_t end = round_up(B, W<T>);
        for (int64_t l = 0; l < net.layers; ++l) {
            Layer& at = layers[l];
            apply(drops, l, at.x, at.in, B);
            const bool hidden = l + 1 < net.layers;
            T* z = hidden ? layers[l + 1].x : output;  // z = W x + b
            const Product<T> product{at.out, end, at.in, at.weight->value, at.in, 1,
                                     at.x,   stride, z,  stride, at.bias ? at.bias->value : nullptr};
            at.bias ? multiply<T, Start::rows>(product) : multiply<T, Start::zero>(product);
            if (!hidden) continue;
            T* slope = layers[l + 1].slope;
            if (at.gamma && net.norm == BEFORE) at.norm.forward(z, at.out, stride, B, training);
            if (flat) std::copy(z, z + at.out * stride, slope);  // which nobody wants in evaluation
            activate(net.activation, z, training ? slope : nullptr, at.out, stride, end);
            if (flat) look(*flat, slope, z, at.out, stride, B, seen + 3 * l * net.members, net.members);
            if (at.gamma && net.norm == AFTER) at.norm.forward(z, at.out, stride, B, training);
            if (at.gamma && training) ++net.batches_seen[l][k];
        }
    }

    void backward(int64_t B, bool first, const Dropout* drops) {
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
            apply(drops, l, dx, at.in, B);
            if (below.gamma && net.norm == AFTER) below.norm.backward(dx, at.in, stride, B);
            for (int64_t f = 0; f < at.in; ++f)
                for (int64_t b = f * stride; b < f * stride + end; ++b) dx[b] *= at.slope[b];
            if (below.gamma && net.norm == BEFORE) below.norm.backward(dx, at.in, stride, B);
            dy = dx;
            dx = dx == gradient ? other : gradient;
        }
    }

    // Outputs -> their gradient times `share`; adds losses, correct ones, and if wanted the predictions of each class.
    void score(int64_t place, int64_t B, T share, T& loss, T& correct, int64_t* predicted = nullptr) {
        const int64_t C = layers.back().out, *target = static_cast<const int64_t*>(net.targets) + place;
        if (net.loss == CROSS_ENTROPY)
            cross_entropy(output, C, stride, B, target, T(net.smoothing), share, loss, correct, predicted);
        else
            squared_error(output, C, stride, B,
                          net.has_classes ? nullptr : static_cast<const T*>(net.targets) + place * C,
                          net.has_classes ? target : nullptr, share, loss, correct, predicted);
    }

   public:
    Member(const Network& net, int64_t k, int64_t most) : net(net), k(k), most(most) {
        const auto odd = [](int64_t n) { return ((n + W<T> - 1) / W<T> | 1) * W<T>; };  // no power of two: rows would
        stride = odd(most);                                                             // share places in the cache
        across = odd(*std::max_element(net.sizes, net.sizes + net.layers));
        T* base = arena(lay_out(arena(1)) + 64 / sizeof(T));
        lay_out(base + (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64 / sizeof(T));
    }

    void train(const Step& step, const Settings<T>& settings) {
        const T examples = T(step.examples);
        T loss = 0, correct = 0;
        for (Parameter& p : parameters)
            if (p.rows == 1) std::fill(p.gradient, p.gradient + p.columns, T(0));
        for (int64_t i = 0; i < step.batches; ++i) {
            const int64_t start = step.edges[2 * i], B = step.edges[2 * i + 1] - start, place = k * net.order + start;
            const Dropout* drops = step.drops ? step.drops + i * net.layers : nullptr;
            gather(net.rows + place, B);
            forward(B, true, drops);
            score(place, B, 1 / examples, loss, correct);
            backward(B, i == 0, drops);
        }
        T factor = 1;
        if (step.measured || net.max_norm)
            factor = measure(loss / examples, correct / examples, static_cast<T*>(step.measured));
        for (size_t p = 0; p < parameters.size(); ++p)
            step.moved ? move(settings, p, factor, static_cast<T*>(step.moved)) : update_parameter(settings, p, factor);
    }

    // Losses and correct ones of a batch in evaluation mode; of the first also what is seen.
    void evaluate(const Evaluation& how, int64_t start, double& losses, double& corrects) {
        const int64_t B = std::min(how.batch, net.order - start), place = k * net.order + start, C = layers.back().out;
        const Flat* flat = start == 0 ? how.flat : nullptr;
        double* seen = how.measured + k + (net.has_classes ? 2 : 1) * net.members;
        std::vector<int64_t> predicted(C);
        T loss = 0, correct = 0;
        gather(net.rows + place, B);
        forward(B, false, nullptr, flat, seen);
        if (T* out = static_cast<T*>(how.outputs))
            for (int64_t i = 0; i < B * C; ++i) out[place * C + i] = output[i % C * stride + i / C];
        score(place, B, 1, loss, correct, predicted.data());
        const auto top = double(*std::max_element(predicted.begin(), predicted.end()));
        if (flat && net.has_classes) seen[3 * (net.layers - 1) * net.members] = top / double(B);
        losses = loss, corrects = correct;
    }

   private:
    // Write what is measured; the factor of clipping, as torch.nn.utils.clip_grad_norm_ has it.
    T measure(T loss, T correct, T* out) {
        std::vector<T> norms;
        T squares = 0, factor = 1;
        for (const Parameter& p : parameters) {
            T s = 0;
            for (const T* g = p.gradient; g < p.gradient + p.runs() * p.stride; g += p.stride)
                s += sum_of_products(g, g, p.run());
            norms.push_back(std::sqrt(s));
            squares += s;
        }
        const T whole = std::sqrt(squares);
        if (net.max_norm && std::isfinite(net.max_norm[k])) {
            factor = T(net.max_norm[k]) / (whole + T(1e-6));
            if (factor > 1) factor = 1;  // NaN stays
        }
        if (out) {
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

    // Update a parameter, and write how far it went.
    void move(const Settings<T>& settings, size_t index, T factor, T* out) {
        const T* w = parameters[index].value;
        const int64_t n = parameters[index].rows * parameters[index].columns, size = net.parameters * net.members;
        const auto norm = [n](const T* a) { return std::sqrt(sum_of_products(a, a, n)); };
        std::vector<T> change(w, w + n);
        out += index * net.members + k;
        out[0] = norm(change.data());
        update_parameter(settings, index, factor);
        for (int64_t i = 0; i < n; ++i) change[i] = w[i] - change[i];
        out[size] = norm(change.data()), out[2 * size] = norm(w);
    }

    void update_parameter(const Settings<T>& settings, size_t index, T factor) {
        const Parameter& p = parameters[index];
        const int64_t n = p.run();
        for (int64_t r = 0; r < p.runs(); ++r) {
            T *g = p.gradient + r * p.stride, *state[STATES];
            for (int s = 0; s < STATES; ++s) {
                T* first = static_cast<T*>(settings.rule.state[index * STATES + s]);
                state[s] = first ? first + (k - settings.rule.start) * p.rows * p.columns + r * n : nullptr;
            }
            if (factor != 1)
                for (int64_t i = 0; i < n; ++i) g[i] *= factor;
            update(settings, p.value + r * n, g, state[0], state[1], state[2], n, settings.rule.decay[index]);
        }
    }
};

// work(from, to) for all of `count` members or batches, by as many threads as repay their start. examples: of a member,
// three times those that pass backward too, which is twice a forward pass of 2 flops a weight.
template <class F> void share_out(const Network& net, int64_t count, int64_t threads, double examples, F work) {
    double flops = 0;
    for (int64_t l = 0; l < net.layers; ++l) flops += 2 * examples * net.members * net.sizes[l] * net.sizes[l + 1];
    threads = std::min({threads, count, 1 + int64_t(flops / THREAD_FLOPS)});
    std::vector<std::thread> others;
    for (int64_t i = 1; i < threads; ++i) others.emplace_back(work, count * i / threads, count * (i + 1) / threads);
    work(0, threads > 1 ? count / threads : count);
    for (std::thread& other : others) other.join();
}

// Every member takes all steps before the next one does, while it lies in the cache.
template <class T> void take_steps(const Network& net, int64_t rules, const Step* steps, int64_t n, int64_t threads) {
    int64_t most = 0, examples = 0;
    std::vector<Settings<T>> settings;  // [step][rule]
    for (const Step* step = steps; step < steps + n; ++step) {
        most = std::max(most, step->most), examples += step->examples;
        for (const Rule* rule = step->rules; rule < step->rules + rules; ++rule) {
            settings.emplace_back(*rule, step->number);
            count_step(*rule, net.parameters, step->number);
        }
    }
    share_out(net, net.members, threads, 3.0 * double(examples), [&](int64_t from, int64_t to) {
        for (int64_t r = 0; r < rules; ++r)
            for (int64_t k = std::max(from, steps->rules[r].start); k < std::min(to, steps->rules[r].stop); ++k) {
                Member<T> member(net, k, most);
                for (int64_t s = 0; s < n; ++s) member.train(steps[s], settings[s * rules + r]);
            }
    });
}

template <class T> void evaluate(const Network& net, const Evaluation& how) {
    const int64_t batches = (net.order + how.batch - 1) / how.batch;
    std::vector<double> losses(net.members * batches), corrects(losses);  // added up in order, whoever makes them
    share_out(net, net.members * batches, how.threads, double(net.order), [&](int64_t from, int64_t to) {
        for (int64_t k = from / batches; k * batches < to; ++k) {
            Member<T> member(net, k, std::min(how.batch, net.order));
            for (int64_t i = std::max(from, k * batches); i < std::min(to, (k + 1) * batches); ++i)
                member.evaluate(how, i % batches * how.batch, losses[i], corrects[i]);
        }
    });
    for (int64_t k = 0; k < net.members; ++k) {
        double loss = 0, correct = 0;
        for (int64_t i = k * batches; i < (k + 1) * batches; ++i) loss += losses[i], correct += corrects[i];
        how.measured[k] = loss / double(net.order);
        if (net.has_classes) how.measured[net.members + k] = correct / double(net.order);
    }
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
void trainer_steps(const Network* net, int64_t rules, const Step* steps, int64_t count, int64_t threads) {
    (net->bits == 32 ? take_steps<float> : take_steps<double>)(*net, rules, steps, count, threads);
}
void trainer_evaluate(const Network* net, const Evaluation* how) {
    (net->bits == 32 ? evaluate<float> : evaluate<double>)(*net, *how);
}
}
