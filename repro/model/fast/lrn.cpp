// Response normalisation on a CPU, forward and backward, each in one pass over memory: `lrn.py` has the formulas,
// `lrn_cpu.py` compiles and calls this. Sums are fp32; beta is the paper's 0.75.
//
// A tile of the tensor is copied into a buffer in which a neighbour is a fixed distance away. Beyond the edges lie
// zeros; where rows are as short as those of maps side by side, masks take their place. So every loop runs over plain
// numbers, whatever the layout and the window.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

// What a tile holds at once, so that its buffers stay in the near caches.
constexpr long POSITIONS = 32;  // of every map of a column, in NCHW
constexpr long NUMBERS = 512;   // about, of maps that lie side by side
constexpr long MAPS = 32;       // of every position, for windows over pixels in channels-last

constexpr float BETA = 0.75f;

// As many numbers at once as a register holds.
#if defined(__AVX512F__)
constexpr long LANES = 16;
#elif defined(__AVX2__)
constexpr long LANES = 8;
#else
constexpr long LANES = 4;
#endif
typedef float Lanes __attribute__((vector_size(LANES * 4)));
typedef uint32_t Bits __attribute__((vector_size(LANES * 4)));

template <typename T>
inline T at(const void* from) {
    T values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

inline Lanes at(const float* from) { return at<Lanes>(from); }

inline void put(float* to, Lanes values) { std::memcpy(to, &values, sizeof values); }

// 1 / sqrt(d), d > 0, to the last bit or two: a guess, and Newton's steps. The processor's own root and division take
// longer than the memory does.
inline Lanes inverse_root(Lanes d) {
#ifdef __AVX512F__
    constexpr int STEPS = 1;  // the guess is good to 14 bits
    Lanes root = (Lanes)_mm512_rsqrt14_ps((__m512)d);
#elif defined(__AVX2__)
    constexpr int STEPS = 2;  // to 11 bits
    Lanes root = (Lanes)_mm256_rsqrt_ps((__m256)d);
#else
    constexpr int STEPS = 3;  // a guess from the bits (Lomont 2003)
    Lanes root = (Lanes)(0x5f375a86 - ((Bits)d >> 1));
#endif
    for (int step = 0; step < STEPS; step++) root *= 1.5f - 0.5f * d * root * root;
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
    long wrap = 0;                          // where neighbours lie in rows of so many without zeros between; 0: nowhere

    long blocks() const { return (whole + block - 1) / block; }
    long tiles() const { return outer * blocks(); }
    long count() const { return (lines * line_pitch + LANES - 1) / LANES * LANES; }
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

Shape over_maps_side_by_side(long outer, long maps, long n) {  // a row holds all the maps of some positions
    const long block = std::max(1L, NUMBERS / maps) * maps;
    return {.outer = 1, .outer_stride = 0,
            .whole = outer * maps, .block = block, .block_stride = 1, .cuts_rows = false,
            .lines = 1, .line_stride = 0, .line_pitch = block,
            .rows = 1, .row_stride = 0, .pitch = 0,
            .width = block, .n = n, .shifts = {1, 0}, .wrap = maps};
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

// The sums over the neighbourhoods of a tile's numbers.
class Sums {
    const long n, near, far, count, margin;
    std::vector<float> values, lines;
    std::vector<uint32_t> within;  // all bits set where neighbour j of number i lies in the row of number i; or empty

    // They take `n` once more: where the caller has a constant, as for the paper's five, the loop comes apart.
    Lanes window(const float* first, long shift, long n) const {
        Lanes sum = at(first);
        for (long j = 1; j < n; j++) sum += at(first + j * shift);
        return sum;
    }

    Lanes window_in_row(long i, long n) const {
        Lanes sum = {};
        for (long j = 0; j < n; j++) sum += (Lanes)(at<Bits>(&values[i + j]) & at<Bits>(&within[j * count + i]));
        return sum;
    }

    Lanes window(const float* first, long shift) const {
        return n == 5 ? window(first, shift, 5) : window(first, shift, n);
    }

public:
    explicit Sums(const Shape& shape)
        : n(shape.n), near(shape.shifts[0]), far(shape.shifts[1]), count(shape.count()), margin(shape.margin()),
          values(count + 2 * margin + LANES), lines(far ? values.size() : 0), within(shape.wrap ? n * count : 0) {
        for (size_t i = 0; i < within.size(); i++) {
            const long place = long(i) % count % shape.wrap + long(i) / count - n / 2;
            within[i] = place < 0 || place >= shape.wrap ? 0 : ~0u;
        }
    }

    float* numbers() { return values.data() + margin; }  // around them are zeros

    // To be called when the numbers are there: of two axes, adds up along the first.
    void ready() {
        if (far == 0) return;
        for (long i = 0; i < count + n / 2 * 2 * far; i += LANES) put(&lines[i], window(&values[i], near));
    }

    // Those of the number i and of the next.
    Lanes from(long i) const {
        if (!within.empty()) return n == 5 ? window_in_row(i, 5) : window_in_row(i, n);
        return far ? window(&lines[i], far) : window(&values[i], near);
    }
};

void square(const std::vector<float>& numbers, float* __restrict__ squares) {
    for (size_t i = 0; i < numbers.size(); i++) squares[i] = numbers[i] * numbers[i];
}

template <typename T>
void forward(const T* x, T* y, const Shape& shape, float k, float alpha) {
#pragma omp parallel
    {
        std::vector<float> a(shape.count()), b(shape.count());
        Sums squares(shape);
#pragma omp for schedule(static)
        for (long index = 0; index < shape.tiles(); index++) {
            const Tile tile = shape.tile(index);
            load(shape, tile, x, a.data());
            square(a, squares.numbers());
            squares.ready();
            for (size_t i = 0; i < a.size(); i += LANES) {
                const Lanes root = inverse_root(k + alpha * squares.from(i));
                put(&b[i], at(&a[i]) * root * root * inverse_root(root));
            }
            store(shape, tile, b.data(), y);
        }
    }
}

template <typename T>
void backward(const T* x, const T* gradient, T* out, const Shape& shape, float k, float alpha, bool after_relu) {
    const Bits always = Bits{} - !after_relu;
#pragma omp parallel
    {
        std::vector<float> a(shape.count()), g(shape.count()), scaled(shape.count());
        Sums squares(shape), weighed(shape);
#pragma omp for schedule(static)
        for (long index = 0; index < shape.tiles(); index++) {
            const Tile tile = shape.tile(index);
            load(shape, tile, x, a.data());
            load(shape, tile, gradient, g.data());
            square(a, squares.numbers());
            squares.ready();
            for (size_t i = 0; i < a.size(); i += LANES) {
                const Lanes root = inverse_root(k + alpha * squares.from(i));
                const Lanes less = at(&g[i]) * root * root * inverse_root(root);
                put(&scaled[i], less);
                put(weighed.numbers() + i, less * at(&a[i]) * root * root);
            }
            weighed.ready();
            for (size_t i = 0; i < a.size(); i += LANES) {
                const Lanes x = at(&a[i]), passed = at(&scaled[i]) - 2 * BETA * alpha * x * weighed.from(i);
                put(&scaled[i], (Lanes)((Bits)passed & (always | ~(Bits)(x <= 0))));
            }
            store(shape, tile, scaled.data(), out);
        }
    }
}

}  // namespace

// (N, C, H, W); a window runs over `maps` = C / columns, or over the pixels of one map. After ReLU no gradient goes to
// numbers that are not positive.
struct Window {
    long count, columns, maps, height, width, n, pixels, channels_last, after_relu;
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
    backward(x, gradient, out, window->shape(), window->k, window->alpha, window->after_relu);
}
void backward_bfloat16(const Window* window, const BFloat16* x, const BFloat16* gradient, BFloat16* out) {
    backward(x, gradient, out, window->shape(), window->k, window->alpha, window->after_relu);
}
}
