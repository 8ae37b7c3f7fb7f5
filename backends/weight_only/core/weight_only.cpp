// Linears with only the weight quantized: float rows times int8 or int4 rows. A weight is stored by
// rows, one for each output channel. 8 bits: a signed byte per value. 4 bits: two values per byte,
// each q + 8; 16 bytes hold 32 values, the first 16 in the low halves. A row has ``groups`` groups
// of ``width`` values, each with a scale and, of 4 bits, a zero point:
//
//     y[m, n] = bias[n] + sum_g scale[n, g] * sum_k x[m, k] * (q[n, k] - zero[n, g])
// For few rows of x, such as tokens decoded one by one, time goes into reading the weight, which is
// read once, in order. For many rows the caller dequantizes some channels at a time and multiplies
// them. Needs AVX2 with FMA; takes twice as wide registers where AVX512 is there.
#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int64_t LANES = 16;   // values converted at once: two registers of AVX2, one of AVX512
constexpr int64_t AHEAD = 4096;  // bytes that memory is asked for ahead

#ifdef __AVX512F__
struct Floats {
    __m512 all;
};
inline Floats nothing() { return {_mm512_setzero_ps()}; }
inline Floats load(const float* from) { return {_mm512_loadu_ps(from)}; }
inline void store(float* to, Floats x) { _mm512_storeu_ps(to, x.all); }
inline Floats broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline Floats multiply(Floats x, Floats y) { return {_mm512_mul_ps(x.all, y.all)}; }
inline Floats multiply_add(Floats x, Floats y, Floats z) {
    return {_mm512_fmadd_ps(x.all, y.all, z.all)};
}
inline Floats widen(__m128i bytes) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))}; }
#else
struct Floats {
    __m256 low, high;
};
inline Floats nothing() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Floats load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline void store(float* to, Floats x) {
    _mm256_storeu_ps(to, x.low);
    _mm256_storeu_ps(to + 8, x.high);
}
inline Floats broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Floats multiply(Floats x, Floats y) {
    return {_mm256_mul_ps(x.low, y.low), _mm256_mul_ps(x.high, y.high)};
}
inline Floats multiply_add(Floats x, Floats y, Floats z) {
    return {_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high)};
}
inline Floats widen(__m128i bytes) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)))};
}
#endif

inline float sum(Floats x) {
    float lanes[LANES], total = 0;
    store(lanes, x);
    for (float each : lanes) total += each;
    return total;
}

// A group of a row.
template <int BITS>
struct Group {
    const uint8_t* at;
    int zero;

    // Values [k, k + LANES) minus the zero point; k is a multiple of LANES.
    Floats values(int64_t k) const {
        if (BITS == 8) return widen(_mm_loadu_si128((const __m128i*)(at + k)));
        __m128i bytes = _mm_loadu_si128((const __m128i*)(at + k / (2 * LANES) * LANES));
        if (k / LANES % 2) bytes = _mm_srli_epi16(bytes, 4);
        bytes = _mm_and_si128(bytes, _mm_set1_epi8(15));
        return widen(_mm_sub_epi8(bytes, _mm_set1_epi8((char)(8 + zero))));
    }

    // 8 bits: one of the last values of a row, which do not fill a register.
    float value(int64_t k) const { return (float)(int8_t)at[k]; }
};

struct Weight {
    const uint8_t* values;
    const float* scales;       // (channels, groups)
    const int8_t* zero_points;  // the same; null: none
    int64_t channels, groups, width;

    int64_t inputs() const { return groups * width; }

    template <int BITS>
    Group<BITS> group(int64_t channel, int64_t index) const {
        int64_t place = channel * groups + index;
        return {values + place * width * BITS / 8, zero_points ? zero_points[place] : 0};
    }

    float scale(int64_t channel, int64_t index) const { return scales[channel * groups + index]; }
};

// ROWS of x times CHANNELS from ``first`` on; each piece of the weight is converted once.
template <int BITS, int ROWS, int CHANNELS>
void product(const Weight& w, const float* x, const float* bias, float* y, int64_t first) {
    Floats total[CHANNELS][ROWS];
    int64_t whole = w.width / LANES * LANES;
    for (auto& channel : total)
        for (auto& each : channel) each = nothing();
    for (int64_t g = 0; g < w.groups; ++g) {
        const float* from = x + g * w.width;
        Group<BITS> group[CHANNELS];
        Floats part[CHANNELS][ROWS];
        for (int c = 0; c < CHANNELS; ++c) {
            group[c] = w.group<BITS>(first + c, g);
            for (auto& each : part[c]) each = nothing();
        }
        auto step = [&](int64_t k) {
#pragma GCC unroll 8
            for (int c = 0; c < CHANNELS; ++c) {
                Floats values = group[c].values(k);
#pragma GCC unroll 8
                for (int m = 0; m < ROWS; ++m)
                    part[c][m] = multiply_add(values, load(from + m * w.inputs() + k), part[c][m]);
            }
        };
        int64_t k = 0;
        for (; k + 2 * LANES <= w.width; k += 2 * LANES) {
            for (int c = 0; c < CHANNELS && k % 64 == 0; ++c)
                _mm_prefetch((const char*)(group[c].at + k * BITS / 8 + AHEAD), _MM_HINT_T0);
            step(k);
            step(k + LANES);
        }
        if (BITS == 8 && k < whole) step(k);
        for (int c = 0; c < CHANNELS; ++c)
            for (int m = 0; m < ROWS; ++m)
                total[c][m] =
                    multiply_add(part[c][m], broadcast(w.scale(first + c, g)), total[c][m]);
    }
    for (int c = 0; c < CHANNELS; ++c)
        for (int m = 0; m < ROWS; ++m) {
            float result = sum(total[c][m]) + (bias ? bias[first + c] : 0.0f);
            // A row that fills no register at its end is one group.
            for (int64_t k = whole; BITS == 8 && k < w.width; ++k)
                result += w.scale(first + c, 0) * w.group<BITS>(first + c, 0).value(k) *
                          x[m * w.inputs() + k];
            y[m * w.channels + first + c] = result;
        }
}

template <int BITS, int ROWS, int CHANNELS>
void rows(const Weight& w, const float* x, const float* bias, float* y, int threads) {
    int64_t whole = w.channels / CHANNELS * CHANNELS;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t n = 0; n < whole; n += CHANNELS) product<BITS, ROWS, CHANNELS>(w, x, bias, y, n);
    for (int64_t n = whole; n < w.channels; ++n) product<BITS, ROWS, 1>(w, x, bias, y, n);
}

// Sums of sixteen registers at most: 4 channels by 1 row, 2 by 2, 1 by 4.
template <int BITS>
void linear(const Weight& w, const float* x, int64_t count, const float* bias, float* y,
            int threads) {
    int64_t m = 0;
    auto from = [&] { return x + m * w.inputs(); };
    auto to = [&] { return y + m * w.channels; };
    for (; m + 4 <= count; m += 4) rows<BITS, 4, 1>(w, from(), bias, to(), threads);
    for (; m + 2 <= count; m += 2) rows<BITS, 2, 2>(w, from(), bias, to(), threads);
    for (; m < count; ++m) rows<BITS, 1, 4>(w, from(), bias, to(), threads);
}

template <int BITS>
void dequantize(const Weight& w, int64_t first, int64_t count, float* y, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t n = 0; n < count; ++n)
        for (int64_t g = 0; g < w.groups; ++g) {
            Group<BITS> group = w.group<BITS>(first + n, g);
            float scale = w.scale(first + n, g), *to = y + n * w.inputs() + g * w.width;
            int64_t k = 0;
            for (; k + LANES <= w.width; k += LANES)
                store(to + k, multiply(group.values(k), broadcast(scale)));
            for (; BITS == 8 && k < w.width; ++k) to[k] = group.value(k) * scale;
        }
}

}  // namespace

extern "C" {

void qfx_weight_linear(int bits, const uint8_t* values, const float* scales,
                       const int8_t* zero_points, int64_t channels, int64_t groups, int64_t width,
                       int threads, const float* x, int64_t count, const float* bias, float* y) {
    Weight w{values, scales, zero_points, channels, groups, width};
    (bits == 8 ? linear<8> : linear<4>)(w, x, count, bias, y, threads);
}

// Channels [first, first + count), float32, by rows.
void qfx_weight_dequantize(int bits, const uint8_t* values, const float* scales,
                           const int8_t* zero_points, int64_t channels, int64_t groups,
                           int64_t width, int threads, int64_t first, int64_t count, float* y) {
    Weight w{values, scales, zero_points, channels, groups, width};
    (bits == 8 ? dequantize<8> : dequantize<4>)(w, first, count, y, threads);
}

}  // extern "C"
