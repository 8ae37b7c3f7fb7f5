// All layers of an LSTM, a GRU or a plain recurrent net with int8 weights. It computes what
// ``reference`` of layer.py computes in torch: each row of activations is rounded to
// -127..127 with its own scale, products are summed in 32 bits, and gates are float. A product of
// two such numbers fits 15 bits, so the sum of two neighbours, which AVX2 keeps in 16 bits, never
// saturates.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

constexpr int64_t LANE = 32;          // integers in a vector; rows of activations are padded to it
constexpr int64_t CHUNK = 16;         // steps that a thread does before it tells others
constexpr int64_t PARALLEL = 1 << 18;  // products from which on threads pay
constexpr int64_t NEAR = 1 << 19;      // bytes of weights that a core keeps in its own cache
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
#pragma omp simd reduction(max : largest)
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
      const float scale = a.scales[row + r] * w.scales[c];
      // Rounded once whatever R and N are: where threads divide a batch changes no bit.
      y[(row + r) * w.channels + c] =
          std::fma(static_cast<float>(sums[r * N + n]), scale, w.bias ? w.bias[c] : 0.0f);
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

// The vectors of one row do not overlap, which a compiler cannot know.
void lstm(const float* x, const float* g, float* c, float* h, int64_t n) {
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) {
    const float input = sigmoid(x[k] + g[k]), forget = sigmoid(x[n + k] + g[n + k]);
    const float cell = hyperbolic(x[2 * n + k] + g[2 * n + k]);
    const float output = sigmoid(x[3 * n + k] + g[3 * n + k]);
    c[k] = forget * c[k] + input * cell;
    h[k] = output * hyperbolic(c[k]);
  }
}

void gru(const float* x, const float* g, float* h, int64_t n) {
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) {
    const float reset = sigmoid(x[k] + g[k]), update = sigmoid(x[n + k] + g[n + k]);
    const float fresh = hyperbolic(x[2 * n + k] + reset * g[2 * n + k]);
    h[k] = fresh + update * (h[k] - fresh);
  }
}

void plain(const float* x, const float* g, float* h, int64_t n, bool relu) {
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) {
    const float sum = x[k] + g[k];
    h[k] = relu ? std::max(sum, 0.0f) : hyperbolic(sum);
  }
}

// The place of a tensor of (steps, batch, width); its rows are contiguous.
struct Place {
  int64_t step, batch;
};

struct Sizes {
  int64_t steps, batch, hidden;
  int64_t width;  // of the state: less than hidden where it is projected
  int64_t layers, directions;
};

// One layer in one direction. Weights: w_ih, w_hh, w_hr or null; biases b_ih and b_hh or null. The
// states h (batch x width) and c (batch x hidden, of an LSTM alone) are the first, then the last.
struct Layer {
  const int8_t* weights[3];
  const float* scales[3];
  const float* biases[2];
  const float* x;
  float* out;
  float* h;
  float* c;
  Place x_at, out_at;
  int64_t inputs;
  int64_t reverse;
};

struct Span {
  int64_t first, last;
  int64_t size() const { return last - first; }
};

// Some steps of a layer, for some rows of the batch.
void advance(Kind kind, const Sizes& sizes, const Layer& layer, Span steps, Span rows,
             int threads) {
  const int64_t hidden = sizes.hidden, width = sizes.width, batch = rows.size();
  const int64_t gates = hidden * (kind == LSTM ? 4 : kind == GRU ? 3 : 1);
  const Weight from_input{layer.weights[0], layer.scales[0], layer.biases[0], gates};
  const Weight from_state{layer.weights[1], layer.scales[1], layer.biases[1], gates};
  const Weight projection{layer.weights[2], layer.scales[2], nullptr, width};
  float* h = layer.h + rows.first * width;
  float* c = layer.c + (layer.c ? rows.first * hidden : 0);
  const auto time = [&](int64_t step) { return layer.reverse ? sizes.steps - 1 - step : step; };

  Rows read(steps.size() * batch, layer.inputs), state(batch, width), whole(batch, hidden);
  const std::unique_ptr<float[]> of_input(new float[steps.size() * batch * gates]);
  const std::unique_ptr<float[]> of_state(new float[batch * gates]);
  const std::unique_ptr<float[]> fresh(new float[batch * hidden]);
  for (int64_t step = steps.first; step < steps.last; ++step)
    for (int64_t b = 0; b < batch; ++b)
      read.set((step - steps.first) * batch + b,
               layer.x + time(step) * layer.x_at.step + (rows.first + b) * layer.x_at.batch);
  product(from_input, read, steps.size() * batch, of_input.get(), threads);

  for (int64_t step = steps.first; step < steps.last; ++step) {
    for (int64_t b = 0; b < batch; ++b) state.set(b, h + b * width);
    product(from_state, state, batch, of_state.get(), threads);
    float* made = layer.weights[2] ? fresh.get() : h;
    for (int64_t b = 0; b < batch; ++b) {
      const float* from = of_input.get() + ((step - steps.first) * batch + b) * gates;
      const float* own = of_state.get() + b * gates;
      float* to = made + b * hidden;
      if (kind == LSTM) {
        lstm(from, own, c + b * hidden, to, hidden);
      } else if (kind == GRU) {
        gru(from, own, to, hidden);
      } else {
        plain(from, own, to, hidden, kind == RELU);
      }
    }
    if (layer.weights[2]) {
      for (int64_t b = 0; b < batch; ++b) whole.set(b, fresh.get() + b * hidden);
      product(projection, whole, batch, h, threads);
    }
    for (int64_t b = 0; b < batch; ++b)
      std::memcpy(layer.out + time(step) * layer.out_at.step + (rows.first + b) * layer.out_at.batch,
                  h + b * width, width * sizeof(float));
  }
}

// A part of the work that one thread does: a chunk of steps of a layer, for a slice of the batch.
struct Part {
  int64_t layer, direction, slice, chunk;
};

// The parts, each behind those that it needs. A layer that reads one direction starts as soon as
// the layer before it has done its first chunk; one that reads both waits for the whole sequence.
std::vector<Part> in_order(const Sizes& sizes, int64_t slices, int64_t chunks) {
  const int64_t delay = sizes.directions == 1 ? 1 : chunks;
  std::vector<Part> parts;
  for (int64_t turn = 0; turn < (sizes.layers - 1) * delay + chunks; ++turn)
    for (int64_t layer = 0; layer < sizes.layers; ++layer) {
      const int64_t chunk = turn - layer * delay;
      if (chunk < 0 || chunk >= chunks) continue;
      for (int64_t direction = 0; direction < sizes.directions; ++direction)
        for (int64_t slice = 0; slice < slices; ++slice)
          parts.push_back({layer, direction, slice, chunk});
    }
  return parts;
}

// All layers, in parts that threads take in order and that wait for the parts they need.
void side_by_side(Kind kind, const Sizes& sizes, const Layer* layers, int64_t slices, int threads) {
  const int64_t chunks = (sizes.steps + CHUNK - 1) / CHUNK;
  const std::vector<Part> parts = in_order(sizes, slices, chunks);
  std::vector<std::atomic<int64_t>> done(sizes.layers * sizes.directions * slices);
  const auto chunks_of = [&](const Part& part, int64_t layer, int64_t direction) {
    return done.data() + (layer * sizes.directions + direction) * slices + part.slice;
  };
  const auto wait = [](const std::atomic<int64_t>* count, int64_t least) {
    while (count->load(std::memory_order_acquire) < least) std::this_thread::yield();
  };
  std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(threads)
  for (;;) {
    const int64_t at = next.fetch_add(1, std::memory_order_relaxed);
    if (at >= static_cast<int64_t>(parts.size())) break;
    const Part& part = parts[at];
    wait(chunks_of(part, part.layer, part.direction), part.chunk);
    for (int64_t before = 0; part.layer && before < sizes.directions; ++before)
      wait(chunks_of(part, part.layer - 1, before), sizes.directions == 1 ? part.chunk + 1 : chunks);
    const Span steps{part.chunk * CHUNK, std::min((part.chunk + 1) * CHUNK, sizes.steps)};
    const Span rows{part.slice * sizes.batch / slices, (part.slice + 1) * sizes.batch / slices};
    const Layer& layer = layers[part.layer * sizes.directions + part.direction];
    advance(kind, sizes, layer, steps, rows, 1);
    chunks_of(part, part.layer, part.direction)->store(part.chunk + 1, std::memory_order_release);
  }
}

}  // namespace

// layers: in the order of torch, a layer's directions side by side. Each reads what the layer
// before it has written.
extern "C" void qfx_recurrent(int kind, const Sizes* sizes, const Layer* layers, int threads) {
  const int64_t lanes = sizes->directions == 1 ? sizes->layers : 2;
  const int64_t slices = std::min((threads + lanes - 1) / lanes, sizes->batch);
  const int64_t weights = sizes->hidden * (kind == LSTM ? 4 : kind == GRU ? 3 : 1) * sizes->width;
  const bool pays = sizes->steps > 1 && sizes->steps * sizes->batch * weights >= PARALLEL;
  if (threads > 1 && lanes * slices > 1 && pays && weights <= NEAR) {
    side_by_side(static_cast<Kind>(kind), *sizes, layers, slices, threads);
    return;
  }
  for (int64_t k = 0; k < sizes->layers * sizes->directions; ++k)
    advance(static_cast<Kind>(kind), *sizes, layers[k], {0, sizes->steps}, {0, sizes->batch},
            threads);
}
