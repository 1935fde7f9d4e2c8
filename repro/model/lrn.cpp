// Response normalisation over maps on a CPU, forward and backward, each in one pass over memory: `lrn.py` has the
// formulas, `lrn_cpu.py` compiles and calls this. Sums are fp32; beta is the paper's 0.75, two square roots.
//
// A dense tensor is (outer, maps, positions), where a window runs over the maps of one `outer`: (N columns, C, H W) for
// NCHW; (N H W columns, C, 1) for channels-last, whose maps lie side by side.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr long POSITIONS = 32;  // of NCHW at once, so that every map of them stays in the first-level cache
constexpr long NUMBERS = 2048;  // of channels-last at once, about

// 1 / sqrt(d), d > 0, to the last bit or two: a guess from the bits (Lomont 2003), and three of Newton's steps. Unlike the
// processor's own root and division it takes no longer than the memory does.
inline float inverse_root(float d) {
    uint32_t bits;
    std::memcpy(&bits, &d, sizeof bits);
    bits = 0x5f375a86 - (bits >> 1);
    float root;
    std::memcpy(&root, &bits, sizeof root);
    for (int step = 0; step < 3; step++) root *= 1.5f - 0.5f * d * root * root;
    return root;
}

struct BFloat16 {
    uint16_t bits;
    operator float() const {
        const uint32_t wide = uint32_t(bits) << 16;
        float value;
        std::memcpy(&value, &wide, sizeof value);
        return value;
    }
    BFloat16& operator=(float value) {  // to the nearest, ties to even; NaN stays NaN
        uint32_t wide;
        std::memcpy(&wide, &value, sizeof wide);
        bits = value != value ? 0x7fc0 : uint16_t((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
        return *this;
    }
};

// How a tensor is cut into tiles, and how a tile lies in the buffers: rows `pitch` apart, a map's neighbour `shift` away.
// A row of NCHW holds positions of one map; a row of channels-last holds the maps of one position, and zeros behind them.
struct Shape {
    long outer, maps, positions, n;

    bool side_by_side() const { return positions == 1; }
    long shift() const { return side_by_side() ? 1 : POSITIONS; }
    long margin() const { return n / 2 * shift(); }
    long pitch() const { return side_by_side() ? maps + margin() : POSITIONS; }
    long most_rows() const { return side_by_side() ? std::max(1L, NUMBERS / pitch()) : maps; }
    long count() const { return most_rows() * pitch(); }
    long blocks() const { return (positions + POSITIONS - 1) / POSITIONS; }
    long tiles() const { return side_by_side() ? (outer + most_rows() - 1) / most_rows() : outer * blocks(); }
};

struct Tile {
    long begin, rows, width, stride;  // in the tensor

    Tile(const Shape& shape, long index) {
        if (shape.side_by_side()) {
            const long first = index * shape.most_rows();
            *this = {first * shape.maps, std::min(shape.most_rows(), shape.outer - first), shape.maps, shape.maps};
        } else {
            const long first = index % shape.blocks() * POSITIONS;
            const long of_maps = index / shape.blocks() * shape.maps * shape.positions;
            *this = {of_maps + first, shape.maps, std::min(POSITIONS, shape.positions - first), shape.positions};
        }
    }
    Tile(long begin, long rows, long width, long stride) : begin(begin), rows(rows), width(width), stride(stride) {}
};

template <typename T>
void load(const Tile& tile, long pitch, const T* from, float* to) {
    for (long row = 0; row < tile.rows; row++)
        for (long i = 0; i < tile.width; i++) to[row * pitch + i] = from[tile.begin + row * tile.stride + i];
}

template <typename T>
void store(const Tile& tile, long pitch, const float* from, T* to) {
    for (long row = 0; row < tile.rows; row++)
        for (long i = 0; i < tile.width; i++) to[tile.begin + row * tile.stride + i] = from[row * pitch + i];
}

// sums[i] = values[i] + values[i + shift] + ..., n terms: `values` begins a margin of zeros earlier than `sums`.
void add_neighbours(const Shape& shape, const float* __restrict__ values, float* __restrict__ sums) {
    const long count = shape.count(), shift = shape.shift();
    if (shape.n == 5) {  // the paper's, without the loop's trips through the buffer
        for (long i = 0; i < count; i++)
            sums[i] = values[i] + values[i + shift] + values[i + 2 * shift] + values[i + 3 * shift] + values[i + 4 * shift];
        return;
    }
    std::copy(values, values + count, sums);
    for (long j = 1; j < shape.n; j++)
        for (long i = 0; i < count; i++) sums[i] += values[i + j * shift];
}

struct Buffers {
    std::vector<float> a, g, values, sums;
    explicit Buffers(const Shape& shape)
        : a(shape.count()), g(shape.count()), values(shape.count() + 2 * shape.margin()), sums(shape.count()) {}
};

void sum_squares(const Shape& shape, Buffers& buffers) {
    const long count = shape.count();
    const float* __restrict__ a = buffers.a.data();
    float* __restrict__ inner = buffers.values.data() + shape.margin();
    for (long i = 0; i < count; i++) inner[i] = a[i] * a[i];
    add_neighbours(shape, buffers.values.data(), buffers.sums.data());
}

template <typename T>
void forward(const T* x, T* y, const Shape& shape, float k, float alpha) {
#pragma omp parallel
    {
        Buffers buffers(shape);
#pragma omp for schedule(static)
        for (long index = 0; index < shape.tiles(); index++) {
            const Tile tile(shape, index);
            load(tile, shape.pitch(), x, buffers.a.data());
            sum_squares(shape, buffers);
            const long count = shape.count();
            float* __restrict__ a = buffers.a.data();
            const float* __restrict__ sums = buffers.sums.data();
            for (long i = 0; i < count; i++) {
                const float root = inverse_root(k + alpha * sums[i]);
                a[i] *= root * root * inverse_root(root);
            }
            store(tile, shape.pitch(), a, y);
        }
    }
}

template <typename T>
void backward(const T* x, const T* gradient, T* out, const Shape& shape, float k, float alpha) {
#pragma omp parallel
    {
        Buffers buffers(shape);
#pragma omp for schedule(static)
        for (long index = 0; index < shape.tiles(); index++) {
            const Tile tile(shape, index);
            load(tile, shape.pitch(), x, buffers.a.data());
            load(tile, shape.pitch(), gradient, buffers.g.data());
            sum_squares(shape, buffers);
            const long count = shape.count();
            const float* __restrict__ a = buffers.a.data();
            float* __restrict__ g = buffers.g.data();
            float* __restrict__ weighed = buffers.values.data() + shape.margin();
            float* __restrict__ sums = buffers.sums.data();
            for (long i = 0; i < count; i++) {
                const float root = inverse_root(k + alpha * sums[i]);
                g[i] *= root * root * inverse_root(root);
                weighed[i] = g[i] * a[i] * root * root;
            }
            add_neighbours(shape, buffers.values.data(), sums);
            for (long i = 0; i < count; i++) g[i] -= 2 * 0.75f * alpha * a[i] * sums[i];
            store(tile, shape.pitch(), g, out);
        }
    }
}

}  // namespace

#define EXPORT(NAME, T)                                                                                           \
    extern "C" void forward_##NAME(const T* x, T* y, long outer, long maps, long positions, long n, float k, float alpha) { \
        forward(x, y, {outer, maps, positions, n}, k, alpha);                                                     \
    }                                                                                                             \
    extern "C" void backward_##NAME(const T* x, const T* g, T* out, long outer, long maps, long positions, long n,   \
                                    float k, float alpha) {                                                       \
        backward(x, g, out, {outer, maps, positions, n}, k, alpha);                                               \
    }

EXPORT(float32, float)
EXPORT(bfloat16, BFloat16)
