// What loops share: they load values as floats, compute, apply post-ops, and store as torch does:
// round(value * (1 / scale)) + zero_point, clamped. Plain loops, which compilers make vectors of.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "plan.hpp"

namespace quantfx {

constexpr int64_t BLOCK = 256;
// Fewer values than this take less time than synchronizing threads.
constexpr int64_t PARALLEL = 16384;

inline float from_bf16(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

inline uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)((bits >> 16) | 0x40);  // NaN stays one
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <class T, class Convert>
void load_as(const T* from, int64_t stride, int64_t count, float* to, Convert convert) {
  if (stride == 1) {
    for (int64_t i = 0; i < count; i++) to[i] = convert(from[i]);
  } else if (stride == 0) {
    std::fill(to, to + count, convert(from[0]));
  } else {
    for (int64_t i = 0; i < count; i++) to[i] = convert(from[i * stride]);
  }
}

// Reads `count` values that lie `stride` elements apart, `position` elements from the start.
inline void load(const qfx_tensor& tensor, const void* start, int64_t position, int64_t stride,
          int64_t count, float* to) {
  const float scale = (float)tensor.scale, zero = (float)tensor.zero_point;
  switch (tensor.dtype) {
    case QFX_F32:
      load_as((const float*)start + position, stride, count, to, [](float v) { return v; });
      return;
    case QFX_BF16:
      load_as((const uint16_t*)start + position, stride, count, to, from_bf16);
      return;
    case QFX_U8:
      load_as((const uint8_t*)start + position, stride, count, to,
              [=](uint8_t v) { return ((float)(int32_t)v - zero) * scale; });
      return;
    default:
      load_as((const int8_t*)start + position, stride, count, to,
              [=](int8_t v) { return ((float)(int32_t)v - zero) * scale; });
  }
}

template <class T>
void store_as(T* to, int64_t stride, int64_t count, const float* from, float inverse, float zero,
              float low, float high) {
  int32_t rounded[BLOCK];
  for (int64_t i = 0; i < count; i++) {
    float value = std::nearbyintf(from[i] * inverse) + zero;
    value = value > low ? value : low;  // NaN too
    rounded[i] = (int32_t)(value < high ? value : high);
  }
  if (stride == 1) {
    for (int64_t i = 0; i < count; i++) to[i] = (T)rounded[i];
  } else {
    for (int64_t i = 0; i < count; i++) to[i * stride] = (T)rounded[i];
  }
}

inline void store(const qfx_tensor& tensor, const qfx_epilogue& epilogue, void* start, int64_t position,
           int64_t stride, int64_t count, const float* from) {
  const float inverse = (float)(1.0 / tensor.scale), zero = (float)tensor.zero_point;
  const float low = (float)epilogue.low, high = (float)epilogue.high;
  switch (tensor.dtype) {
    case QFX_F32: {
      float* to = (float*)start + position;
      for (int64_t i = 0; i < count; i++) to[i * stride] = from[i];
      return;
    }
    case QFX_BF16: {
      uint16_t* to = (uint16_t*)start + position;
      for (int64_t i = 0; i < count; i++) to[i * stride] = to_bf16(from[i]);
      return;
    }
    case QFX_U8:
      store_as((uint8_t*)start + position, stride, count, from, inverse, zero, low, high);
      return;
    default:
      store_as((int8_t*)start + position, stride, count, from, inverse, zero, low, high);
  }
}

// e^x to 2 units in the last place within -87.3 to 88, for compilers to make vectors of: x = n ln 2 + r,
// and a polynomial of r (Cephes, expf).
inline float exponential_within(float x) {
  float n = std::nearbyintf(x * 1.44269504f);
  float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return p * power;
}

inline float exponential(float x) {
  x = x > 88.0f ? 88.0f : x;  // NaN stays one
  return exponential_within(x < -87.3f ? -87.3f : x);
}

inline float sigmoid(float x) {
  float y = 1.0f / (1.0f + exponential(-x));
  return x < -87.0f ? 0.0f : y;  // times x it is to vanish
}

inline float tanh_of(float x) {
  float small = x * (1.0f - x * x * (1.0f / 3.0f));  // where 1 - e^-2x cancels
  float large = 2.0f * sigmoid(2.0f * x) - 1.0f;
  return std::fabs(x) < 0.01f ? small : large;
}

inline float softplus(float x) {
  return std::fmax(x, 0.0f) + std::log1p(exponential(-std::fabs(x)));
}

// 1.5e-7 at most from erf (Abramowitz and Stegun 7.1.26).
inline float erf_of(float x) {
  float a = std::fabs(x), t = 1.0f / (1.0f + 0.3275911f * a);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  return std::copysign(1.0f - p * t * exponential(-a * a), x);
}

inline float clamp(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

template <class F>
void each(float* values, int64_t count, F f) {
  for (int64_t i = 0; i < count; i++) values[i] = f(values[i]);
}

// x ** exponent: those that networks use without a call of the library for each value.
inline void power(float* v, int64_t count, float exponent) {
  if (exponent == -0.5f) return each(v, count, [](float x) { return 1.0f / std::sqrt(x); });
  if (exponent == -1.0f) return each(v, count, [](float x) { return 1.0f / x; });
  if (exponent == 3.0f) return each(v, count, [](float x) { return x * x * x; });
  each(v, count, [=](float x) { return std::pow(x, exponent); });
}

inline void apply(const qfx_post_op& op, float* v, int64_t count) {
  const float a = op.alpha, b = op.beta;
  switch (op.kind) {
    case QFX_RELU: each(v, count, [](float x) { return x < 0.0f ? 0.0f : x; }); return;
    case QFX_CLIP: each(v, count, [=](float x) { return clamp(x, a, b); }); return;
    case QFX_LINEAR: each(v, count, [=](float x) { return a * x + b; }); return;
    case QFX_SIGMOID: each(v, count, sigmoid); return;
    case QFX_TANH: each(v, count, tanh_of); return;
    case QFX_GELU_ERF:
      each(v, count, [](float x) { return 0.5f * x * (1.0f + erf_of(x * 0.70710678f)); });
      return;
    case QFX_GELU_TANH:
      each(v, count, [](float x) {
        return 0.5f * x * (1.0f + tanh_of(0.79788456f * (x + 0.044715f * x * x * x)));
      });
      return;
    case QFX_SWISH: each(v, count, [](float x) { return x * sigmoid(x); }); return;
    case QFX_HARDSWISH:
      each(v, count, [](float x) { return x * clamp(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); });
      return;
    case QFX_HARDSIGMOID:
      each(v, count, [](float x) { return clamp(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); });
      return;
    case QFX_LEAKY_RELU: each(v, count, [=](float x) { return x < 0.0f ? a * x : x; }); return;
    case QFX_ELU:
      each(v, count, [=](float x) { return x < 0.0f ? a * std::expm1(x) : x; });
      return;
    case QFX_EXP: each(v, count, [](float x) { return std::exp(x); }); return;
    case QFX_ABS: each(v, count, [](float x) { return std::fabs(x); }); return;
    case QFX_SQRT: each(v, count, [](float x) { return std::sqrt(x); }); return;
    case QFX_SQUARE: each(v, count, [](float x) { return x * x; }); return;
    case QFX_SOFTPLUS: each(v, count, [=](float x) { return softplus(a * x) / a; }); return;
    case QFX_MISH: each(v, count, [](float x) { return x * tanh_of(softplus(x)); }); return;
    case QFX_POW: power(v, count, b); return;
    default: throw std::runtime_error("no loop has post-op " + std::to_string(op.kind));
  }
}

inline void check(const qfx_epilogue& epilogue) {
  float none = 1.0f;
  for (int i = 0; i < epilogue.count; i++) apply(epilogue.ops[i], &none, 1);
}

inline void apply(const qfx_epilogue& epilogue, float* values, int64_t count) {
  for (int i = 0; i < epilogue.count; i++) apply(epilogue.ops[i], values, count);
}

// Rows of the last dimension: where the i-th one starts, in elements.
inline int64_t row_start(const qfx_tensor& tensor, int64_t row) {
  int64_t position = 0;
  for (int d = tensor.ndims - 2; d >= 0; d--) {
    position += row % tensor.dims[d] * tensor.strides[d];
    row /= tensor.dims[d];
  }
  return position;
}

inline int64_t row_count(const qfx_tensor& tensor) {
  int64_t count = 1;
  for (int d = 0; d + 1 < tensor.ndims; d++) count *= tensor.dims[d];
  return count;
}

// Turns values into powers of e, of the largest value 1, and returns their sum. Nothing but -inf becomes
// zeros if wanted, and NaN otherwise.
inline float exponentials(float* v, int64_t count, bool empty_is_zero) {
  if (!count) return 1.0f;
  float largest = v[0], sum = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; i++) largest = v[i] > largest ? v[i] : largest;
  if (empty_is_zero && largest == -INFINITY) {
    std::fill(v, v + count, 0.0f);
    return 1.0f;
  }
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) {
    const float x = v[i] - largest, power = exponential_within(x < -87.0f ? -87.0f : x);
    v[i] = x < -87.0f ? 0.0f : power;  // masked by -inf is nothing at all
    sum += v[i];
  }
  return sum;
}

template <class Loop, class Given>
int add(qfx_plan* plan, const Given* given) {
  return guarded([&] { plan->steps.push_back(std::make_unique<Loop>(*given)); });
}

}  // namespace quantfx
