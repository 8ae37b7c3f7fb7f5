// One float row times int8 or int4 rows: a token that is decoded, alone.
//
// Weights and results are those of weight_only.cpp. There, each weight is converted to a float, of
// which eight are multiplied at once; with one row that conversion is most of the work. Here the row
// becomes integers, and AVX2 multiplies and adds sixteen pairs of 16 bits in one instruction. Two
// numbers of 16 bits stand for each x, 31 bits below the largest of the row, so that the result is
// that of floats to their rounding. Each byte of the weight is read once, in order.
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t STEP = 32;     // values multiplied at once
constexpr int64_t SPAN = 2048;   // values in a sum: each lane adds 256 products below 128 * 32767
constexpr int64_t AHEAD = 4096;  // bytes that memory is asked for ahead
constexpr int CHANNELS = 4;      // of two sums each, half of the registers
constexpr float HIGH = 32767, LOW = 32768;

struct Step {
    __m256i first, second;  // of 16 bits
};

inline Step load(const int16_t* from) {
    return {_mm256_loadu_si256((const __m256i*)from), _mm256_loadu_si256((const __m256i*)(from + 16))};
}

inline void add_products(__m256i& sum, Step x, Step y) {
    __m256i both = _mm256_add_epi32(_mm256_madd_epi16(x.first, y.first),
                                    _mm256_madd_epi16(x.second, y.second));
    sum = _mm256_add_epi32(sum, both);
}

// A group of a channel's weights.
template <int BITS>
struct Group {
    const uint8_t* at;
    __m256i zero;  // of 4 bits: what is subtracted, in each lane

    Step values(int64_t k) const {
        const __m128i* from = (const __m128i*)(at + k * BITS / 8);
        __m128i bytes = _mm_loadu_si128(from);
        if (BITS == 8) return {_mm256_cvtepi8_epi16(bytes), _mm256_cvtepi8_epi16(_mm_loadu_si128(from + 1))};
        // The lower lane keeps the low halves of the bytes in place, the upper one the high halves.
        __m256i halves = _mm256_srlv_epi32(_mm256_broadcastsi128_si256(bytes),
                                           _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
        __m256i low = _mm256_set1_epi16(15);
        return {_mm256_sub_epi16(_mm256_and_si256(halves, low), zero),
                _mm256_sub_epi16(_mm256_and_si256(_mm256_srli_epi16(halves, 8), low), zero)};
    }

    // Where ``values`` has value k of a step: of 4 bits, the values of even bytes come first.
    static int64_t position(int64_t k) {
        return BITS == 8 ? k : k % 2 * 16 + k / 16 * 8 + k % 16 / 2;
    }
};

// Of 8 bits: the last values of a row, from k on, which fill no step; zeros behind them.
inline Step rest(const uint8_t* row, int64_t k, int64_t width) {
    uint8_t copy[STEP] = {};
    std::memcpy(copy, row + k, width - k);
    return Group<8>{copy, _mm256_setzero_si256()}.values(0);
}

inline __m256 add_sums(__m256 total, __m256i high, __m256i low, float scale) {
    __m256 sums = _mm256_fmadd_ps(_mm256_cvtepi32_ps(low), _mm256_set1_ps(1 / LOW),
                                  _mm256_cvtepi32_ps(high));
    return _mm256_fmadd_ps(sums, _mm256_set1_ps(scale), total);
}

// The row as integers: x = scale * (high + low / 2^15), in the order of ``Group::values``.
struct Row {
    std::vector<int16_t> high, low;
    float scale;

    // Whether integers can stand for x: not if a value is no finite number, or all are tiny.
    template <int BITS>
    bool fill(const float* x, int64_t inputs) {
        float largest = 0;
        bool is_nan = false;
        for (int64_t k = 0; k < inputs; ++k) {
            float size = std::fabs(x[k]);
            largest = size > largest ? size : largest;
            is_nan |= size != size;
        }
        scale = largest / HIGH;
        float inverse = largest > 0 ? HIGH / largest : 0;
        if (is_nan || !std::isfinite(largest) || !std::isfinite(inverse)) return false;
        int64_t padded = (inputs + STEP - 1) / STEP * STEP;
        high.assign(padded, 0);
        low.assign(padded, 0);
        for (int64_t from = 0; from < inputs; from += STEP) {
            int64_t count = inputs - from < STEP ? inputs - from : STEP;
            for (int64_t k = 0; k < count; ++k) {
                float exact = x[from + k] * inverse, whole = std::nearbyint(exact);
                int64_t at = from + Group<BITS>::position(k);
                high[at] = (int16_t)whole;
                low[at] = (int16_t)std::nearbyint((exact - whole) * LOW);  // half of LOW at most
            }
        }
        return true;
    }
};

inline float sum(__m256 x) {
    float lanes[8], total = 0;
    _mm256_storeu_ps(lanes, x);
    for (float each : lanes) total += each;
    return total;
}

struct Weight {
    const uint8_t* values;
    const float* scales;        // (channels, groups)
    const int8_t* zero_points;  // the same; null: none
    int64_t groups, width;
};

// SHORT: groups are one step, so that the compiler leaves out the loop and the sums in it.
template <int BITS, bool SHORT, int COUNT>
void product(const Weight& w, const Row& x, const float* bias, float* y, int64_t channel) {
    __m256 total[COUNT];
    for (auto& each : total) each = _mm256_setzero_ps();
    const int64_t width = SHORT ? STEP : w.width, steps = width / STEP * STEP;
    for (int64_t g = 0; g < w.groups; ++g) {
        Group<BITS> group[COUNT];
        for (int c = 0; c < COUNT; ++c) {
            int64_t place = (channel + c) * w.groups + g;
            int zero = 8 + (w.zero_points ? w.zero_points[place] : 0);
            group[c] = {w.values + place * width * BITS / 8, _mm256_set1_epi16((int16_t)zero)};
        }
        const int16_t *high = x.high.data() + g * width, *low = x.low.data() + g * width;
        for (int64_t from = 0; from < steps; from += SPAN) {
            int64_t to = from + SPAN < steps ? from + SPAN : steps;
            __m256i highs[COUNT], lows[COUNT];
            for (int c = 0; c < COUNT; ++c) highs[c] = lows[c] = _mm256_setzero_si256();
            for (int64_t k = from; k < to; k += STEP) {
                Step x_high = load(high + k), x_low = load(low + k);
#pragma GCC unroll 8
                for (int c = 0; c < COUNT; ++c) {
                    if (k * BITS / 8 % 64 == 0)
                        _mm_prefetch((const char*)(group[c].at + k * BITS / 8 + AHEAD), _MM_HINT_T0);
                    Step values = group[c].values(k);
                    add_products(highs[c], values, x_high);
                    add_products(lows[c], values, x_low);
                }
            }
            for (int c = 0; c < COUNT; ++c)
                total[c] = add_sums(total[c], highs[c], lows[c], w.scales[(channel + c) * w.groups + g]);
        }
    }
    if (BITS == 8 && steps < width) {  // of one group, as groups are whole steps
        for (int c = 0; c < COUNT; ++c) {
            __m256i highs = _mm256_setzero_si256(), lows = highs;
            Step values = rest(w.values + (channel + c) * width, steps, width);
            add_products(highs, values, load(x.high.data() + steps));
            add_products(lows, values, load(x.low.data() + steps));
            total[c] = add_sums(total[c], highs, lows, w.scales[channel + c]);
        }
    }
    for (int c = 0; c < COUNT; ++c)
        y[channel + c] = sum(total[c]) * x.scale + (bias ? bias[channel + c] : 0.0f);
}

template <int BITS, bool SHORT>
bool one_row(const Weight& w, int64_t channels, const float* x, const float* bias, float* y,
             int threads) {
    Row row;
    if (!row.fill<BITS>(x, w.groups * w.width)) return false;
    int64_t whole = channels / CHANNELS * CHANNELS;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t n = 0; n < whole; n += CHANNELS) product<BITS, SHORT, CHANNELS>(w, row, bias, y, n);
    for (int64_t n = whole; n < channels; ++n) product<BITS, SHORT, 1>(w, row, bias, y, n);
    return true;
}

}  // namespace

extern "C" {

// False, with nothing written, if no integers can stand for x.
bool qfx_weight_one_row(int bits, const uint8_t* values, const float* scales,
                        const int8_t* zero_points, int64_t channels, int64_t groups, int64_t width,
                        int threads, const float* x, const float* bias, float* y) {
    Weight w{values, scales, zero_points, groups, width};
    auto of_8 = width == STEP ? one_row<8, true> : one_row<8, false>;
    auto of_4 = width == STEP ? one_row<4, true> : one_row<4, false>;
    return (bits == 8 ? of_8 : of_4)(w, channels, x, bias, y, threads);
}

}  // extern "C"
