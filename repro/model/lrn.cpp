// Response normalisation on a CPU, forward and backward, each in one pass over memory: `lrn.py` has the formulas,
// `lrn_cpu.py` compiles and calls this. Sums are fp32; beta is the paper's 0.75.
//
// A tile of the tensor is copied into a buffer in which a neighbour is a fixed distance away and zeros lie beyond the
// edges, so that every loop runs over plain numbers, whatever the layout and the window.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// What a tile holds at once, so that its buffers stay in the near caches.
constexpr long POSITIONS = 32;  // of every map of a column, in NCHW
constexpr long NUMBERS = 2048;  // about, of maps that lie side by side
constexpr long MAPS = 32;       // of every position, for windows over pixels in channels-last

// 1 / sqrt(d), d > 0, to the last bit or two: a guess from the bits (Lomont 2003), and three of Newton's steps.
// The processor's own root and division take longer than the memory does.
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

struct Tile {
    long begin, rows, width;
};

// How a tensor is cut into tiles, and where the numbers of a tile lie: in the tensor (strides), in a buffer (pitches).
// A tile is `lines` of `rows` of `width` numbers that are next to each other in both.
struct Shape {
    long outer, outer_stride;               // tiles come from `outer` equal parts,
    long whole, block, block_stride;        // each cut along an axis of `whole` into blocks,
    bool cuts_rows;                         // which is that of the rows or that of the width
    long lines, line_stride, line_pitch;
    long rows, row_stride, pitch;
    long width, n;
    long shifts[2];                         // from a number to its neighbour, along one axis or two; 0: no second

    long blocks() const { return (whole + block - 1) / block; }
    long tiles() const { return outer * blocks(); }
    long count() const { return lines * line_pitch; }
    long margin() const { return n / 2 * (shifts[0] + shifts[1]); }

    Tile tile(long index) const {
        const long first = index % blocks() * block, length = std::min(block, whole - first);
        const long begin = index / blocks() * outer_stride + first * block_stride;
        return cuts_rows ? Tile{begin, length, width} : Tile{begin, rows, length};
    }
};

Shape over_maps_apart(long outer, long maps, long positions, long n) {  // NCHW: a row holds positions of one map
    return {.outer = outer, .outer_stride = maps * positions,
            .whole = positions, .block = POSITIONS, .block_stride = 1, .cuts_rows = false,
            .lines = 1, .line_stride = 0, .line_pitch = maps * POSITIONS,
            .rows = maps, .row_stride = positions, .pitch = POSITIONS,
            .width = POSITIONS, .n = n, .shifts = {POSITIONS, 0}};
}

Shape over_maps_side_by_side(long outer, long maps, long n) {  // a row holds the maps of one position, and zeros behind
    const long pitch = maps + n / 2, rows = std::max(1L, NUMBERS / pitch);
    return {.outer = 1, .outer_stride = 0,
            .whole = outer, .block = rows, .block_stride = maps, .cuts_rows = true,
            .lines = 1, .line_stride = 0, .line_pitch = rows * pitch,
            .rows = rows, .row_stride = maps, .pitch = pitch,
            .width = maps, .n = n, .shifts = {1, 0}};
}

Shape over_pixels_apart(long count, long maps, long height, long width, long n) {  // a row holds some maps of a pixel
    const long line = (width + n / 2) * MAPS;
    return {.outer = count, .outer_stride = height * width * maps,
            .whole = maps, .block = MAPS, .block_stride = 1, .cuts_rows = false,
            .lines = height, .line_stride = width * maps, .line_pitch = line,
            .rows = width, .row_stride = maps, .pitch = MAPS,
            .width = MAPS, .n = n, .shifts = {MAPS, line}};
}

Shape over_pixels_side_by_side(long outer, long height, long width, long n) {  // NCHW: a line is a row of one map
    const long line = width + n / 2;
    return {.outer = outer, .outer_stride = height * width,
            .whole = width, .block = width, .block_stride = 1, .cuts_rows = false,
            .lines = height, .line_stride = width, .line_pitch = line,
            .rows = 1, .row_stride = 0, .pitch = 0,
            .width = width, .n = n, .shifts = {1, line}};
}

template <typename T>
void load(const Shape& shape, const Tile& tile, const T* from, float* to) {
    for (long line = 0; line < shape.lines; line++)
        for (long row = 0; row < tile.rows; row++) {
            const T* source = from + tile.begin + line * shape.line_stride + row * shape.row_stride;
            float* target = to + line * shape.line_pitch + row * shape.pitch;
            for (long i = 0; i < tile.width; i++) target[i] = source[i];
        }
}

template <typename T>
void store(const Shape& shape, const Tile& tile, const float* from, T* to) {
    for (long line = 0; line < shape.lines; line++)
        for (long row = 0; row < tile.rows; row++) {
            const float* source = from + line * shape.line_pitch + row * shape.pitch;
            T* target = to + tile.begin + line * shape.line_stride + row * shape.row_stride;
            for (long i = 0; i < tile.width; i++) target[i] = source[i];
        }
}

// sums[i] = values[i] + values[i + shift] + ..., n terms.
void add(const float* __restrict__ values, float* __restrict__ sums, long count, long shift, long n) {
    if (n == 5) {  // the paper's, without the other loop's trips through the buffer
        const float *one = values + shift, *two = one + shift, *three = two + shift, *four = three + shift;
        for (long i = 0; i < count; i++) sums[i] = values[i] + one[i] + two[i] + three[i] + four[i];
        return;
    }
    std::copy(values, values + count, sums);
    for (long j = 1; j < n; j++)
        for (long i = 0; i < count; i++) sums[i] += values[i + j * shift];
}

struct Buffers {
    const Shape& shape;
    std::vector<float> a, g, values, lines, sums;

    explicit Buffers(const Shape& shape)
        : shape(shape), a(shape.count()), g(shape.count()), values(shape.count() + 2 * shape.margin()),
          lines(shape.shifts[1] ? values.size() : 0), sums(shape.count()) {}

    float* inner() { return values.data() + shape.margin(); }  // around it are zeros

    void add_neighbours() {
        const long n = shape.n, over = shape.shifts[1];
        if (over == 0) return add(values.data(), sums.data(), shape.count(), shape.shifts[0], n);
        add(values.data(), lines.data(), shape.count() + n / 2 * 2 * over, shape.shifts[0], n);
        add(lines.data(), sums.data(), shape.count(), over, n);
    }

    void sum_squares() {
        const long count = shape.count();
        const float* __restrict__ from = a.data();
        float* __restrict__ to = inner();
        for (long i = 0; i < count; i++) to[i] = from[i] * from[i];
        add_neighbours();
    }
};

template <typename T>
void forward(const T* x, T* y, const Shape& shape, float k, float alpha) {
#pragma omp parallel
    {
        Buffers buffers(shape);
#pragma omp for schedule(static)
        for (long index = 0; index < shape.tiles(); index++) {
            const Tile tile = shape.tile(index);
            load(shape, tile, x, buffers.a.data());
            buffers.sum_squares();
            const long count = shape.count();
            float* __restrict__ a = buffers.a.data();
            const float* __restrict__ sums = buffers.sums.data();
            for (long i = 0; i < count; i++) {
                const float root = inverse_root(k + alpha * sums[i]);
                a[i] *= root * root * inverse_root(root);
            }
            store(shape, tile, a, y);
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
            const Tile tile = shape.tile(index);
            load(shape, tile, x, buffers.a.data());
            load(shape, tile, gradient, buffers.g.data());
            buffers.sum_squares();
            const long count = shape.count();
            const float* __restrict__ a = buffers.a.data();
            float* __restrict__ g = buffers.g.data();
            float* __restrict__ weighed = buffers.inner();
            const float* __restrict__ sums = buffers.sums.data();
            for (long i = 0; i < count; i++) {
                const float root = inverse_root(k + alpha * sums[i]);
                g[i] *= root * root * inverse_root(root);
                weighed[i] = g[i] * a[i] * root * root;
            }
            buffers.add_neighbours();
            for (long i = 0; i < count; i++) g[i] -= 2 * 0.75f * alpha * a[i] * sums[i];
            store(shape, tile, g, out);
        }
    }
}

}  // namespace

// (N, C, H, W); a window runs over `maps` = C / columns, or over the pixels of one map
struct Window {
    long count, columns, maps, height, width, n, pixels, channels_last;
    float k, alpha;

    Shape shape() const {
        const long area = height * width;
        if (pixels && channels_last) return over_pixels_apart(count, columns * maps, height, width, n);
        if (pixels) return over_pixels_side_by_side(count * columns * maps, height, width, n);
        if (channels_last) return over_maps_side_by_side(count * area * columns, maps, n);
        return over_maps_apart(count * columns, maps, area, n);
    }
};

extern "C" {
void forward_float32(const Window* window, const float* x, float* y) {
    forward(x, y, window->shape(), window->k, window->alpha);
}
void forward_bfloat16(const Window* window, const BFloat16* x, BFloat16* y) {
    forward(x, y, window->shape(), window->k, window->alpha);
}
void backward_float32(const Window* window, const float* x, const float* gradient, float* out) {
    backward(x, gradient, out, window->shape(), window->k, window->alpha);
}
void backward_bfloat16(const Window* window, const BFloat16* x, const BFloat16* gradient, BFloat16* out) {
    backward(x, gradient, out, window->shape(), window->k, window->alpha);
}
}
