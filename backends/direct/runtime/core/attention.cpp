// Attention of integers in one step: a few rows of scores, their softmax and its product with the
// values stay in a core's caches, where separate steps write and read whole matrices of scores.
#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "loops.hpp"

using namespace quantfx;

namespace {

constexpr int64_t ROWS = 4;    // of the left operand that are multiplied at once
constexpr int64_t LANES = 16;  // columns of the right operand that are

int64_t whole(int64_t size, int64_t of) { return (size + of - 1) / of * of; }

// A matrix of bytes, at some place of a batch.
struct Matrix {
  const uint8_t* data;
  int64_t rows, columns, down, right;
  uint8_t flip;  // turns a byte of uint8 into one of int8, or nothing
};

// The right operand of products, in the order in which `multiply` reads it: blocks of LANES columns,
// in which the bytes of four rows lie side by side. Its columns' sums serve the left one's zero point.
struct Packed {
  std::vector<int8_t> bytes;
  std::vector<int32_t> sums;
  int64_t rows = 0, columns = 0;

  void pack(const Matrix& from) {
    rows = whole(from.rows, 4);
    columns = from.columns;
    bytes.assign(rows * whole(columns, LANES), 0);
    sums.assign(whole(columns, LANES), 0);
    for (int64_t column = 0; column < columns; column += LANES) {
      const int64_t count = std::min(LANES, columns - column);
      int8_t* to = bytes.data() + column * rows;
      const uint8_t* start = from.data + column * from.right;
      if (from.down == 1) {
        for (int64_t i = 0; i < count; i++) pack_column(start + i * from.right, from, to + 4 * i);
      } else {
        for (int64_t row = 0; row < from.rows; row++) {
          const uint8_t* source = start + row * from.down;
          int8_t* place = to + row / 4 * 4 * LANES + row % 4;
          for (int64_t i = 0; i < count; i++) place[4 * i] = (int8_t)(source[i * from.right] ^ from.flip);
        }
      }
      int32_t* sum = sums.data() + column;
      for (int64_t k = 0; k < rows; k += 4)
        for (int64_t i = 0; i < LANES; i++)
          for (int64_t j = 0; j < 4; j++) sum[i] += to[k * LANES + 4 * i + j];
    }
  }

 private:
  static void pack_column(const uint8_t* source, const Matrix& from, int8_t* to) {
    const uint32_t flip = from.flip * 0x01010101u;
    int64_t row = 0;
    for (; row + 4 <= from.rows; row += 4, to += 4 * LANES) {
      uint32_t four;
      std::memcpy(&four, source + row, 4);
      four ^= flip;
      std::memcpy(to, &four, 4);
    }
    for (int64_t j = 0; row + j < from.rows; j++) to[j] = (int8_t)(source[row + j] ^ from.flip);
  }
};

// sums (R x LANES) = the left bytes, without signs, by one block of the right ones.
#ifdef __AVX2__
inline __m256i add_products(__m256i sum, __m256i left, __m256i right) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpbusd_epi32(sum, left, right);
#elif defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(sum, left, right);
#else
  const __m256i pairs = _mm256_maddubs_epi16(left, right);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

template <int R>
void multiply(const uint8_t* left, int64_t stride, const int8_t* right, int64_t rows, int32_t* sums) {
  __m256i low[R], high[R];
  for (int r = 0; r < R; r++) low[r] = high[r] = _mm256_setzero_si256();
  for (int64_t k = 0; k < rows; k += 4) {
    const __m256i a = _mm256_loadu_si256((const __m256i*)(right + k * LANES));
    const __m256i b = _mm256_loadu_si256((const __m256i*)(right + k * LANES + 32));
    for (int r = 0; r < R; r++) {
      int32_t four;
      std::memcpy(&four, left + r * stride + k, 4);
      const __m256i bytes = _mm256_set1_epi32(four);
      low[r] = add_products(low[r], bytes, a);
      high[r] = add_products(high[r], bytes, b);
    }
  }
  for (int r = 0; r < R; r++) {
    _mm256_storeu_si256((__m256i*)(sums + r * LANES), low[r]);
    _mm256_storeu_si256((__m256i*)(sums + r * LANES + 8), high[r]);
  }
}
#else
template <int R>
void multiply(const uint8_t* left, int64_t stride, const int8_t* right, int64_t rows, int32_t* sums) {
  std::fill(sums, sums + R * LANES, 0);
  for (int r = 0; r < R; r++)
    for (int64_t k = 0; k < rows; k++)
      for (int64_t i = 0; i < LANES; i++)
        sums[r * LANES + i] += left[r * stride + k] * right[k / 4 * 4 * LANES + 4 * i + k % 4];
}
#endif

// Rows of bytes without signs, padded to whole fours, and the sum of each row.
struct Left {
  std::vector<uint8_t> bytes;
  int64_t stride = 0;
  int32_t sums[ROWS];

  void resize(int64_t width) {
    stride = whole(width, 4);
    if ((int64_t)bytes.size() < ROWS * stride) bytes.resize(ROWS * stride);
    std::fill(bytes.begin(), bytes.end(), 0);
  }
  uint8_t* row(int64_t r) { return bytes.data() + r * stride; }
  void add_up(int64_t r, int64_t width) {
    const uint8_t* from = row(r);
    int32_t sum = 0;
    for (int64_t i = 0; i < width; i++) sum += from[i];
    sums[r] = sum;
  }
};

// A zero point as the bytes have it that are multiplied: those to the right are of int8.
int32_t zero_of(const qfx_tensor& right) {
  return right.zero_point - (right.dtype == QFX_U8 ? 128 : 0);
}

// to[r] (columns) = the product of `count` rows, as floats.
struct Product {
  float scale;
  int32_t left_zero, right_zero;
  int64_t width;  // of the rows

  void run(Left& left, int64_t count, const Packed& right, float* to, int64_t stride) const {
    const int64_t columns = whole(right.columns, LANES);
    int32_t sums[ROWS * LANES];
    for (int64_t column = 0; column < columns; column += LANES) {
      const int8_t* block = right.bytes.data() + column * right.rows;
      if (count == ROWS) {
        multiply<ROWS>(left.row(0), left.stride, block, right.rows, sums);
      } else {
        for (int64_t r = 0; r < count; r++)
          multiply<1>(left.row(r), left.stride, block, right.rows, sums + r * LANES);
      }
      const int32_t* of_columns = right.sums.data() + column;
      const int32_t zero = left_zero;
      const float factor = scale;
      for (int64_t r = 0; r < count; r++) {
        const int32_t constant = zero * right_zero * (int32_t)width - right_zero * left.sums[r];
        const int32_t* sum = sums + r * LANES;
        float* out = to + r * stride + column;
#pragma omp simd
        for (int64_t i = 0; i < LANES; i++)
          out[i] = (float)(sum[i] - zero * of_columns[i] + constant) * factor;
      }
    }
  }
};

// to = round(from * factor * inverse) + zero; what is rounded lies within low and high, and NaN is low.
void to_bytes(const float* from, int64_t count, float factor, float inverse, float zero, float low,
              float high, uint8_t* to) {
  for (int64_t i = 0; i < count; i++) {
    float x = from[i] * factor * inverse;
    x = x > low ? x : low;
    to[i] = (uint8_t)(int32_t)(std::nearbyintf(x < high ? x : high) + zero);
  }
}

// What one thread works with; grows with the largest step.
struct Scratch {
  Packed key, value;
  Left query, weights;
  std::vector<float> scores, mask, result;
};

struct Attention : Step {
  qfx_attention given;
  int64_t rows, width, length, out;
  Product of_scores, of_result;

  explicit Attention(const qfx_attention& g) : given(g) {
    name = "attention";
    check(given.scores);
    check(given.epilogue);
    double scale = g.query.scale * g.key.scale;
    if (g.scores.count == 1 && g.scores.ops[0].kind == QFX_LINEAR && !g.scores.ops[0].beta) {
      scale *= g.scores.ops[0].alpha;  // in one multiplication
      given.scores.count = 0;
    }
    rows = size(g.query, 2), width = size(g.query, 1), length = size(g.key, 1), out = size(g.value, 1);
    of_scores = {(float)scale, g.query.zero_point, zero_of(g.key), width};
    of_result = {(float)(g.weight_scale * g.value.scale), g.weight_zero_point, zero_of(g.value), length};
  }

  void run(const Frame& frame) const override {
    const int64_t tiles = (rows + ROWS - 1) / ROWS, work = row_count(given.result) / rows * tiles;
    const bool parallel = work > 1 && work * ROWS * length * (width + out) >= PARALLEL * 16;
#pragma omp parallel if (parallel)
    {
      static thread_local Scratch scratch;
      const int64_t threads = omp_get_num_threads(), mine = omp_get_thread_num();
      int64_t packed = -1;
      for (int64_t i = work * mine / threads; i < work * (mine + 1) / threads; i++) {
        const int64_t batch = i / tiles, first = i % tiles * ROWS;
        if (batch != packed) {
          scratch.key.pack(matrix(given.key, frame, batch));
          scratch.value.pack(matrix(given.value, frame, batch));
          packed = batch;
        }
        compute(frame, batch, first, std::min(ROWS, rows - first), scratch);
      }
    }
  }

 private:
  static int64_t size(const qfx_tensor& tensor, int from_last) { return tensor.dims[tensor.ndims - from_last]; }
  static int64_t step(const qfx_tensor& tensor, int from_last) { return tensor.strides[tensor.ndims - from_last]; }

  // Where a matrix of a batch starts, in elements.
  int64_t start(const qfx_tensor& tensor, int64_t batch) const {
    int64_t position = 0;
    for (int d = given.result.ndims - 3; d >= 0; d--) {
      if (tensor.dims[d] > 1) position += batch % given.result.dims[d] * tensor.strides[d];
      batch /= given.result.dims[d];
    }
    return position;
  }

  Matrix matrix(const qfx_tensor& tensor, const Frame& frame, int64_t batch) const {
    const uint8_t* data = (const uint8_t*)address(tensor, frame) + start(tensor, batch);
    const uint8_t flip = tensor.dtype == QFX_U8 ? 0x80 : 0;
    return {data, size(tensor, 2), size(tensor, 1), step(tensor, 2), step(tensor, 1), flip};
  }

  void compute(const Frame& frame, int64_t batch, int64_t first, int64_t count, Scratch& s) const {
    const Matrix query = matrix(given.query, frame, batch);
    const int64_t scores = whole(length, LANES), results = whole(out, LANES);
    s.query.resize(width);
    for (int64_t r = 0; r < count; r++) {
      const uint8_t* from = query.data + (first + r) * query.down;
      uint8_t* to = s.query.row(r);
      for (int64_t i = 0; i < width; i++) to[i] = from[i * query.right];
      s.query.add_up(r, width);
    }
    s.scores.resize(ROWS * scores);
    of_scores.run(s.query, count, s.key, s.scores.data(), scores);
    s.weights.resize(length);
    for (int64_t r = 0; r < count; r++) weigh(frame, batch, first + r, s.scores.data() + r * scores, r, s);
    s.result.resize(ROWS * results);
    of_result.run(s.weights, count, s.value, s.result.data(), results);
    for (int64_t r = 0; r < count; r++) {
      const int64_t at = start(given.result, batch) + (first + r) * step(given.result, 2);
      float* row = s.result.data() + r * results;
      apply(given.epilogue, row, out);
      write(given.result, given.epilogue, address(given.result, frame), at, step(given.result, 1), out, row);
    }
  }

  // Turns a row of scores into integers of its softmax, row `r` of the weights.
  void weigh(const Frame& frame, int64_t batch, int64_t row, float* scores, int64_t r, Scratch& s) const {
    apply(given.scores, scores, length);
    s.mask.resize(length);
    for (int32_t m = 0; m < given.mask_count; m++) {
      const qfx_tensor& mask = given.masks[m];
      const int64_t at = start(mask, batch) + row * step(mask, 2);
      load(mask, address(mask, frame), at, step(mask, 1), length, s.mask.data());
      const float* summand = s.mask.data();
#pragma omp simd
      for (int64_t i = 0; i < length; i++) scores[i] += summand[i];
    }
    const float factor = 1.0f / exponentials(scores, length, given.empty_is_zero);
    const float zero = (float)given.weight_zero_point;
    to_bytes(scores, length, factor, (float)(1.0 / given.weight_scale), zero,
             (float)given.weight_low - zero, (float)given.weight_high - zero, s.weights.row(r));
    s.weights.add_up(r, length);
  }

  static void write(const qfx_tensor& tensor, const qfx_epilogue& epilogue, void* to, int64_t at,
                    int64_t stride, int64_t count, const float* from) {
    for (int64_t i = 0; i < count; i += BLOCK)
      store(tensor, epilogue, to, at + i * stride, stride, std::min(BLOCK, count - i), from + i);
  }
};

}  // namespace

extern "C" int qfx_add_attention(qfx_plan* plan, const qfx_attention* given) {
  return add<Attention>(plan, given);
}
