// The runtime by itself, for sanitizers and valgrind: builds plans, runs them from several threads with
// two shapes, compares each result with the first, and frees everything. Prints "equal" at the end.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "direct.h"

namespace {

void require(bool holds, const char* what) {
  if (!holds) {
    std::printf("%s: %s\n", what, qfx_error());
    std::exit(1);
  }
}

// Channels last: (batch, channels, side, side).
qfx_tensor image(int place, int dtype, int64_t offset, int64_t batch, int64_t channels, int64_t side) {
  qfx_tensor made{};
  made.place = place;
  made.dtype = dtype;
  made.ndims = 4;
  made.offset = offset;
  int64_t dims[] = {batch, channels, side, side};
  int64_t strides[] = {side * side * channels, 1, side * channels, channels};
  std::memcpy(made.dims, dims, sizeof dims);
  std::memcpy(made.strides, strides, sizeof strides);
  made.scale = 1;
  return made;
}

struct Net {
  static constexpr int64_t channels = 20, batch = 2;
  int64_t side;
  std::vector<int8_t> weight = std::vector<int8_t>(channels * channels * 9);
  std::vector<float> bias = std::vector<float>(channels, 0.5f);
  std::vector<float> scales = std::vector<float>(channels, 0.01f);
  qfx_plan* plan;
  size_t arena;

  Net(qfx_store* store, int64_t side, const std::vector<int8_t>& weights) : side(side), weight(weights) {
    const int64_t size = (batch * channels * side * side + 63) / 64 * 64;
    arena = 2 * size;
    plan = qfx_plan_new(store, 2);
    qfx_pointwise quantize{};
    quantize.kind = QFX_FIRST;
    quantize.a = image(QFX_INPUT, QFX_F32, 0, batch, channels, side);
    quantize.result = image(QFX_ARENA, QFX_U8, 0, batch, channels, side);
    quantize.result.scale = 0.02f;
    quantize.result.zero_point = 128;
    quantize.epilogue.high = 255;
    require(!qfx_add_pointwise(plan, &quantize), "quantize");
    qfx_convolution conv{};
    conv.source = quantize.result;
    conv.result = image(QFX_ARENA, QFX_U8, size, batch, channels, side);
    conv.result.scale = 0.05f;
    conv.result.zero_point = 100;
    conv.weight = image(QFX_CONSTANT, QFX_S8, 0, channels, channels, 3);
    int64_t strides[] = {channels * 9, 9, 3, 1};
    std::memcpy(conv.weight.strides, strides, sizeof strides);
    conv.weight.data = weight.data();
    conv.has_bias = 1;
    conv.bias.place = QFX_CONSTANT;
    conv.bias.ndims = 1;
    conv.bias.dims[0] = channels;
    conv.bias.strides[0] = 1;
    conv.bias.data = bias.data();
    conv.spatial = 2;
    conv.groups = 1;
    for (int i = 0; i < 2; i++) conv.strides[i] = conv.dilations[i] = conv.padding_low[i] = conv.padding_high[i] = 1;
    conv.weight_scales = scales.data();
    conv.weight_scale_count = channels;
    conv.epilogue.count = 1;
    conv.epilogue.ops[0].kind = QFX_RELU;
    conv.epilogue.high = 255;
    require(!qfx_add_convolution(plan, &conv), "convolution");
    qfx_pool pool{};
    pool.kind = QFX_AVERAGE;
    pool.spatial = 2;
    pool.source = conv.result;
    pool.result = image(QFX_OUTPUT, QFX_F32, 0, batch, channels, 1);
    for (int i = 0; i < 2; i++) pool.kernel[i] = side, pool.strides[i] = pool.dilations[i] = 1;
    require(!qfx_add_pool(plan, &pool), "pool");
  }

  std::vector<float> run(qfx_context* context, const std::vector<float>& x) const {
    std::vector<float> y(batch * channels);
    const void* inputs[] = {x.data()};
    void* outputs[] = {y.data()};
    require(!qfx_run(context, inputs, outputs), "run");
    return y;
  }
};

void calls(const Net& net, const std::vector<float>& x, const std::vector<float>& expected, int count) {
  qfx_context* context = qfx_context_new(net.plan, net.arena);
  require(context, "context");
  for (int i = 0; i < count; i++) require(net.run(context, x) == expected, "another result");
  qfx_context_free(context);
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 100;
  std::vector<int8_t> weights(Net::channels * Net::channels * 9);
  for (size_t i = 0; i < weights.size(); i++) weights[i] = (int8_t)((int)(i * 37 % 129) - 64);
  qfx_store* store = qfx_store_new();
  require(store, "store");
  {
    Net small(store, 5, weights), large(store, 9, weights);
    std::vector<std::thread> threads;
    for (const Net* net : {&small, &large}) {
      std::vector<float> x(Net::batch * Net::channels * net->side * net->side);
      for (size_t i = 0; i < x.size(); i++) x[i] = (float)((int)(i * 29 % 101) - 50) / 25;
      qfx_context* context = qfx_context_new(net->plan, net->arena);
      auto expected = net->run(context, x);
      qfx_context_free(context);
      for (int i = 0; i < 2; i++) threads.emplace_back([=] { calls(*net, x, expected, count); });
    }
    for (auto& thread : threads) thread.join();
    qfx_plan_free(small.plan);
    qfx_plan_free(large.plan);
  }
  qfx_store_free(store);
  std::puts("equal");
}
