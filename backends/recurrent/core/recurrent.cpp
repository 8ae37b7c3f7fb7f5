// One layer, in one direction, of an LSTM, a GRU or a plain recurrent net with int8 weights. It
// computes what ``reference`` of layer.py computes in torch: each row of activations is rounded to
// -127..127 with its own scale, products are summed in 32 bits, and gates are float. A product of
// two such numbers fits 15 bits, so the sum of two neighbours, which AVX2 keeps in 16 bits, never
// saturates.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

constexpr int64_t LANE = 32;          // integers in a vector; rows of activations are padded to it
constexpr int64_t PARALLEL = 1 << 18;  // products from which on threads pay
enum Kind { LSTM, GRU, TANH, RELU };

int64_t padded(int64_t size) { return (size + LANE - 1) / LANE * LANE; }

// exp to float rounding: 2^n * p(r), |r| <= ln(2) / 2, p the first eight terms of its series.
inline float exponential(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float n = std::nearbyint(x * 1.44269504f);
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }
inline float hyperbolic(float x) { return 1.0f - 2.0f / (1.0f + exponential(2.0f * x)); }

// Rows of activations as integers, each with its scale and the magnitude of its negative ones.
struct Rows {
  int64_t width, stride;
  std::vector<int8_t> integers;
  std::vector<float> scales;
  std::vector<int32_t> negative;

  Rows(int64_t rows, int64_t width)
      : width(width), stride(padded(width)), integers(rows * stride, 0), scales(rows),
        negative(rows) {}

  void set(int64_t row, const float* values) {
    float largest = 0.0f;
    for (int64_t k = 0; k < width; ++k) largest = std::max(largest, std::fabs(values[k]));
    float scale = largest / 127.0f;
    if (!(scale > 0.0f)) scale = 1.0f;
    int8_t* to = integers.data() + row * stride;
    int32_t below = 0;
    for (int64_t k = 0; k < width; ++k) {
      const float rounded = std::nearbyint(values[k] / scale);
      const auto x = static_cast<int32_t>(std::min(std::max(rounded, -127.0f), 127.0f));
      to[k] = static_cast<int8_t>(x);
      below -= std::min(x, 0);
    }
    scales[row] = scale;
    negative[row] = below;
  }
};

// sums[r * N + n] = a_r . w_n, for R rows of activations and N rows of weights.
#ifdef __AVX2__
inline __m256i add_products(__m256i sum, __m256i magnitude, __m256i signed_weight) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpbusd_epi32(sum, magnitude, signed_weight);
#elif defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(sum, magnitude, signed_weight);
#else
  const __m256i pairs = _mm256_maddubs_epi16(magnitude, signed_weight);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

inline int32_t total(__m256i v) {
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
  return _mm_cvtsi128_si32(half);
}

// The totals of four vectors, in order.
inline __m128i totals(const __m256i* v) {
  const __m256i pairs =
      _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
  return _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
}

// x w is |x| w, or |x| (~w + 1) for a negative x. Magnitudes of negative x, which the 1 adds, are
// in `negative` for each row. `end` is the end of the weights: a vector may reach beyond its row,
// where activations are 0.
template <int R, int N>
void dots(const int8_t* a, int64_t a_stride, const int32_t* negative, const int8_t* w,
          const int8_t* end, int64_t width, int32_t* sums) {
  __m256i acc[R][N];
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) acc[r][n] = _mm256_setr_epi32(negative[r], 0, 0, 0, 0, 0, 0, 0);
  const auto add = [&](const __m256i* weights, int64_t k) {
    for (int r = 0; r < R; ++r) {
      const __m256i x =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + r * a_stride + k));
      const __m256i magnitude = _mm256_abs_epi8(x);
      const __m256i below = _mm256_cmpgt_epi8(_mm256_setzero_si256(), x);
      for (int n = 0; n < N; ++n)
        acc[r][n] = add_products(acc[r][n], magnitude, _mm256_xor_si256(weights[n], below));
    }
  };
  __m256i weights[N];
  const int64_t whole = width / LANE * LANE;
  for (int64_t k = 0; k < whole; k += LANE) {
    for (int n = 0; n < N; ++n)
      weights[n] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + n * width + k));
    add(weights, k);
  }
  if (whole < width) {
    for (int n = 0; n < N; ++n) {
      const int8_t* from = w + n * width + whole;
      alignas(32) int8_t rest[LANE] = {};
      if (end - from < LANE) from = static_cast<int8_t*>(std::memcpy(rest, from, width - whole));
      weights[n] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    }
    add(weights, whole);
  }
  const __m256i* all = &acc[0][0];
  constexpr int FOURS = R * N / 4 * 4;
  for (int k = 0; k < FOURS; k += 4)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + k), totals(all + k));
  for (int k = FOURS; k < R * N; ++k) sums[k] = total(all[k]);
}
#else
template <int R, int N>
void dots(const int8_t* a, int64_t a_stride, const int32_t*, const int8_t* w, const int8_t*,
          int64_t width, int32_t* sums) {
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) {
      int32_t sum = 0;
      for (int64_t k = 0; k < width; ++k)
        sum += static_cast<int32_t>(a[r * a_stride + k]) * w[n * width + k];
      sums[r * N + n] = sum;
    }
}
#endif

// int8 weights (channels x width), a scale for each channel, and an optional bias.
struct Weight {
  const int8_t* integers;
  const float* scales;
  const float* bias;
  int64_t channels;
};

template <int R, int N>
void block(const Weight& w, const Rows& a, int64_t row, int64_t channel, float* y) {
  int32_t sums[R * N];
  dots<R, N>(a.integers.data() + row * a.stride, a.stride, a.negative.data() + row,
             w.integers + channel * a.width, w.integers + w.channels * a.width, a.width, sums);
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) {
      const int64_t c = channel + n;
      const float value = static_cast<float>(sums[r * N + n]) * (a.scales[row + r] * w.scales[c]);
      y[(row + r) * w.channels + c] = w.bias ? value + w.bias[c] : value;
    }
}

template <int R>
void stripe(const Weight& w, const Rows& a, int64_t row, int64_t first, int64_t last, float* y) {
  int64_t channel = first;
  constexpr int N = 4;
  for (; channel + N <= last; channel += N) block<R, N>(w, a, row, channel, y);
  for (; channel < last; ++channel) block<R, 1>(w, a, row, channel, y);
}

// y (rows x channels) = a w' + bias.
void product(const Weight& w, const Rows& a, int64_t rows, float* y, int threads) {
  constexpr int64_t PART = 64;  // channels that a thread takes at once
  const int64_t parts = (w.channels + PART - 1) / PART;
  const int64_t groups = (rows + 1) / 2;
  const bool parallel = threads > 1 && rows * w.channels * a.width >= PARALLEL;
#pragma omp parallel for collapse(2) num_threads(threads) if (parallel)
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = part * PART, last = std::min(first + PART, w.channels);
      const int64_t row = group * 2;
      if (row + 2 <= rows) {
        stripe<2>(w, a, row, first, last, y);
      } else {
        stripe<1>(w, a, row, first, last, y);
      }
    }
}

void lstm(const float* x, const float* g, float* c, float* h, int64_t n) {
  for (int64_t k = 0; k < n; ++k) {
    const float input = sigmoid(x[k] + g[k]), forget = sigmoid(x[n + k] + g[n + k]);
    const float cell = hyperbolic(x[2 * n + k] + g[2 * n + k]);
    const float output = sigmoid(x[3 * n + k] + g[3 * n + k]);
    c[k] = forget * c[k] + input * cell;
    h[k] = output * hyperbolic(c[k]);
  }
}

void gru(const float* x, const float* g, float* h, int64_t n) {
  for (int64_t k = 0; k < n; ++k) {
    const float reset = sigmoid(x[k] + g[k]), update = sigmoid(x[n + k] + g[n + k]);
    const float fresh = hyperbolic(x[2 * n + k] + reset * g[2 * n + k]);
    h[k] = fresh + update * (h[k] - fresh);
  }
}

void plain(const float* x, const float* g, float* h, int64_t n, bool relu) {
  for (int64_t k = 0; k < n; ++k) {
    const float sum = x[k] + g[k];
    h[k] = relu ? std::max(sum, 0.0f) : hyperbolic(sum);
  }
}

}  // namespace

extern "C" {

// The place of a tensor of (steps, batch, width); its rows are contiguous.
struct qfx_place {
  int64_t step, batch;
};

// sizes: steps, batch, width of x, hidden, width of h (less than hidden where it is projected).
// weights: w_ih, w_hh, w_hr or null, each with its scales; biases b_ih and b_hh or null.
// h (batch x width of h) and c (batch x hidden, of an LSTM alone) hold the first state, then the
// last.
void qfx_recurrent(int kind, const int64_t* sizes, const float* x, qfx_place x_at,
                   const int8_t* const* weights, const float* const* scales,
                   const float* const* biases, int reverse, float* out, qfx_place out_at, float* h,
                   float* c, int threads) {
  const int64_t steps = sizes[0], batch = sizes[1], inputs = sizes[2], hidden = sizes[3];
  const int64_t width = sizes[4];
  const int64_t gates = hidden * (kind == LSTM ? 4 : kind == GRU ? 3 : 1);
  const Weight from_input{weights[0], scales[0], biases[0], gates};
  const Weight from_state{weights[1], scales[1], biases[1], gates};
  const Weight projection{weights[2], scales[2], nullptr, width};

  Rows read(steps * batch, inputs), state(batch, width), whole(batch, hidden);
  const std::unique_ptr<float[]> of_input(new float[steps * batch * gates]);
  std::vector<float> of_state(batch * gates);
  std::vector<float> fresh(batch * hidden);
  for (int64_t t = 0; t < steps; ++t)
    for (int64_t b = 0; b < batch; ++b)
      read.set(t * batch + b, x + t * x_at.step + b * x_at.batch);
  product(from_input, read, steps * batch, of_input.get(), threads);

  for (int64_t step = 0; step < steps; ++step) {
    const int64_t t = reverse ? steps - 1 - step : step;
    for (int64_t b = 0; b < batch; ++b) state.set(b, h + b * width);
    product(from_state, state, batch, of_state.data(), threads);
    float* made = weights[2] ? fresh.data() : h;
    for (int64_t b = 0; b < batch; ++b) {
      const float* from = of_input.get() + (t * batch + b) * gates;
      const float* own = of_state.data() + b * gates;
      float* to = made + b * hidden;
      if (kind == LSTM) {
        lstm(from, own, c + b * hidden, to, hidden);
      } else if (kind == GRU) {
        gru(from, own, to, hidden);
      } else {
        plain(from, own, to, hidden, kind == RELU);
      }
    }
    if (weights[2]) {
      for (int64_t b = 0; b < batch; ++b) whole.set(b, fresh.data() + b * hidden);
      product(projection, whole, batch, h, threads);
    }
    for (int64_t b = 0; b < batch; ++b)
      std::memcpy(out + t * out_at.step + b * out_at.batch, h + b * width, width * sizeof(float));
  }
}

}  // extern "C"
