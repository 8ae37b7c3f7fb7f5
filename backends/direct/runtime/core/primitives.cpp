// Steps that oneDNN computes: convolutions and matrix products.
//
// result = post_ops(source_scale * weight_scale * sum((source - zero_point) * weight) + bias), divided
// by the result's scale, plus its zero point, rounded and saturated; sums are exact 32-bit integers
// for int8 sources.
#include <omp.h>

#include "plan.hpp"

using namespace quantfx;
using dnnl::algorithm;
using dnnl::memory;

namespace {

memory::data_type data_type(int32_t dtype) {
  switch (dtype) {
    case QFX_F32: return memory::data_type::f32;
    case QFX_BF16: return memory::data_type::bf16;
    case QFX_U8: return memory::data_type::u8;
    default: return memory::data_type::s8;
  }
}

bool is_integer(const qfx_tensor& tensor) {
  return tensor.dtype == QFX_U8 || tensor.dtype == QFX_S8;
}

memory::desc describe(const qfx_tensor& tensor) {
  memory::dims dims(tensor.dims, tensor.dims + tensor.ndims);
  memory::dims strides(tensor.strides, tensor.strides + tensor.ndims);
  return {dims, data_type(tensor.dtype), strides};
}

// Memory of the plan's own with the given values.
template <class T>
std::shared_ptr<memory> owned(dnnl::engine& engine, const T* values, int64_t count,
                              memory::data_type type) {
  auto made = std::make_shared<memory>(memory::desc({count}, type, memory::format_tag::a), engine);
  std::memcpy(made->get_data_handle(), values, count * sizeof(T));
  return made;
}

class Builder {
 public:
  Builder(qfx_plan* plan, int threads) : plan_(plan), engine_(plan->store->engine) {
    step_->threads = threads;
    attributes_.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  }

  dnnl::engine& engine() { return engine_; }
  dnnl::primitive_attr& attributes() { return attributes_; }

  void argument(int name, const qfx_tensor& tensor, const memory::desc& desc) {
    step_->arguments.push_back({name, tensor, desc, nullptr});
  }

  void argument(int name, std::shared_ptr<memory> held) {
    step_->arguments.push_back({name, {}, held->get_desc(), std::move(held)});
  }

  // Scale and zero point of an integer tensor.
  void quantized(int name, const qfx_tensor& tensor) {
    if (!is_integer(tensor)) return;
    const float scale = (float)tensor.scale;
    scales(name, &scale, 1, 0);
    if (tensor.zero_point == 0) return;
    attributes_.set_zero_points_mask(name, 0);
    argument(DNNL_ARG_ATTR_ZERO_POINTS | name,
             owned(engine_, &tensor.zero_point, 1, memory::data_type::s32));
  }

  void scales(int name, const float* values, int64_t count, int mask) {
    attributes_.set_scales_mask(name, mask);
    argument(DNNL_ARG_ATTR_SCALES | name, owned(engine_, values, count, memory::data_type::f32));
  }

  void epilogue(const qfx_epilogue& epilogue, const qfx_tensor& result) {
    dnnl::post_ops ops;
    for (int i = 0; i < epilogue.count; i++) add(ops, epilogue.ops[i], result);
    if (is_integer(result)) {
      int low = result.dtype == QFX_U8 ? 0 : -128, high = result.dtype == QFX_U8 ? 255 : 127;
      if (epilogue.low > low || epilogue.high < high) {
        ops.append_eltwise(algorithm::eltwise_clip,
                           (float)((epilogue.low - result.zero_point) * result.scale),
                           (float)((epilogue.high - result.zero_point) * result.scale));
      }
    }
    attributes_.set_post_ops(ops);
  }

  // The weight in the form `wanted`, packed once for all plans of the store.
  std::shared_ptr<memory> packed(const qfx_tensor& weight, const memory::desc& given,
                                 const memory::desc& wanted) {
    char* source = (char*)weight.data + weight.offset;
    for (auto& each : plan_->store->weights) {
      if (each.source == source && each.given == given && each.desc == wanted) return each.memory;
    }
    memory plain(given, engine_, source);
    auto made = std::make_shared<memory>(wanted, engine_);
    dnnl::stream stream(engine_);
    dnnl::reorder(plain, *made).execute(stream, plain, *made);
    stream.wait();
    plan_->store->weights.push_back({source, given, wanted, made});
    return made;
  }

  template <class Primitive, class Description>
  void finish(Description& description) {
    step_->name = description.impl_info_str();
    step_->scratchpad = description.scratchpad_desc();
    step_->primitive = Primitive(description);
    plan_->steps.push_back(std::move(step_));
  }

 private:
  void add(dnnl::post_ops& ops, const qfx_post_op& op, const qfx_tensor& result) {
    const float sixth = 1.0f / 6.0f;
    switch (op.kind) {
      case QFX_SUM:
        ops.append_sum(op.scale, op.zero_point, data_type(result.dtype));
        return;
      case QFX_RELU: ops.append_eltwise(algorithm::eltwise_relu, 0, 0); return;
      case QFX_CLIP: ops.append_eltwise(algorithm::eltwise_clip, op.alpha, op.beta); return;
      case QFX_LINEAR: ops.append_eltwise(algorithm::eltwise_linear, op.alpha, op.beta); return;
      case QFX_SIGMOID: ops.append_eltwise(algorithm::eltwise_logistic, 0, 0); return;
      case QFX_TANH: ops.append_eltwise(algorithm::eltwise_tanh, 0, 0); return;
      case QFX_GELU_ERF: ops.append_eltwise(algorithm::eltwise_gelu_erf, 0, 0); return;
      case QFX_GELU_TANH: ops.append_eltwise(algorithm::eltwise_gelu_tanh, 0, 0); return;
      case QFX_SWISH: ops.append_eltwise(algorithm::eltwise_swish, 1, 0); return;
      case QFX_HARDSWISH: ops.append_eltwise(algorithm::eltwise_hardswish, sixth, 0.5f); return;
      case QFX_HARDSIGMOID: ops.append_eltwise(algorithm::eltwise_hardsigmoid, sixth, 0.5f); return;
      case QFX_LEAKY_RELU: ops.append_eltwise(algorithm::eltwise_relu, op.alpha, 0); return;
      case QFX_ELU: ops.append_eltwise(algorithm::eltwise_elu, op.alpha, 0); return;
      case QFX_EXP: ops.append_eltwise(algorithm::eltwise_exp, 0, 0); return;
      case QFX_ABS: ops.append_eltwise(algorithm::eltwise_abs, 0, 0); return;
      case QFX_SQRT: ops.append_eltwise(algorithm::eltwise_sqrt, 0, 0); return;
      case QFX_SQUARE: ops.append_eltwise(algorithm::eltwise_square, 0, 0); return;
      case QFX_SOFTPLUS: ops.append_eltwise(algorithm::eltwise_soft_relu, op.alpha, 0); return;
      case QFX_MISH: ops.append_eltwise(algorithm::eltwise_mish, 0, 0); return;
      case QFX_POW: ops.append_eltwise(algorithm::eltwise_pow, 1, op.beta); return;
      default: throw std::runtime_error("no such post-op: " + std::to_string(op.kind));
    }
  }

  qfx_plan* plan_;
  dnnl::engine& engine_;
  dnnl::primitive_attr attributes_;
  std::unique_ptr<PrimitiveStep> step_ = std::make_unique<PrimitiveStep>();
};

// Primitives divide their work among the threads that exist when they are made.
struct PreparedFor {
  int before = omp_get_max_threads();
  explicit PreparedFor(int threads) { omp_set_num_threads(threads); }
  ~PreparedFor() { omp_set_num_threads(before); }
};

// Takes the last implementation if there are no more than `count`.
template <class Description>
void pass_over(Description& description, int count) {
  for (int i = 0; i < count && description.next_impl(); i++) {
  }
}

// The weight as oneDNN counts its dimensions: groups first, then outputs, inputs and kernel.
memory::desc convolution_weight(const qfx_convolution& given) {
  const qfx_tensor& weight = given.weight;
  int64_t rows = weight.dims[0], columns = weight.dims[1], groups = given.groups;
  int64_t row = weight.strides[0], column = weight.strides[1];
  memory::dims dims = {groups, rows / groups, columns};
  memory::dims strides = {rows / groups * row, row, column};
  for (int i = 0; i < given.spatial; i++) {
    dims.push_back(weight.dims[2 + i]);
    strides.push_back(weight.strides[2 + i]);
  }
  if (groups == 1) {
    dims.erase(dims.begin());
    strides.erase(strides.begin());
  }
  return {dims, data_type(weight.dtype), strides};
}

void add_convolution(qfx_plan* plan, const qfx_convolution& given) {
  const int threads = given.threads ? given.threads : plan->threads;
  PreparedFor prepared(threads);
  Builder builder(plan, threads);
  auto source = describe(given.source), result = describe(given.result);
  auto plain = convolution_weight(given);
  auto weight = memory::desc(plain.get_dims(), plain.get_data_type(), memory::format_tag::any);
  auto bias = given.has_bias ? describe(given.bias) : memory::desc();
  builder.argument(DNNL_ARG_SRC, given.source, source);
  builder.argument(DNNL_ARG_DST, given.result, result);
  builder.quantized(DNNL_ARG_SRC, given.source);
  builder.quantized(DNNL_ARG_DST, given.result);
  int mask = given.weight_scale_count == 1 ? 0 : given.groups > 1 ? 3 : 1;
  if (mask && given.weight_scale_count != given.result.dims[1]) {
    throw std::runtime_error("a convolution has a scale for each output channel, or one");
  }
  if (is_integer(given.weight)) {
    builder.scales(DNNL_ARG_WEIGHTS, given.weight_scales, given.weight_scale_count, mask);
  }
  builder.epilogue(given.epilogue, given.result);
  auto dims = [&](const int64_t* values) { return memory::dims(values, values + given.spatial); };
  auto dilations = dims(given.dilations);
  for (auto& each : dilations) each -= 1;  // oneDNN counts the gaps
  dnnl::convolution_forward::primitive_desc description(
      builder.engine(), dnnl::prop_kind::forward_inference, algorithm::convolution_direct, source, weight, bias, result,
      dims(given.strides), dilations, dims(given.padding_low), dims(given.padding_high),
      builder.attributes());
  pass_over(description, given.implementation);
  builder.argument(DNNL_ARG_WEIGHTS,
                   builder.packed(given.weight, plain, description.weights_desc()));
  if (given.has_bias) {
    auto* values = (const float*)((const char*)given.bias.data + given.bias.offset);
    builder.argument(DNNL_ARG_BIAS, owned(builder.engine(), values, given.bias.dims[0],
                                          memory::data_type::f32));
  }
  builder.finish<dnnl::convolution_forward>(description);
}

void add_matmul(qfx_plan* plan, const qfx_matmul& given) {
  const int threads = given.threads ? given.threads : plan->threads;
  PreparedFor prepared(threads);
  Builder builder(plan, threads);
  auto source = describe(given.source), result = describe(given.result);
  auto plain = describe(given.weight);
  auto weight = given.constant_weight ? memory::desc(plain.get_dims(), plain.get_data_type(),
                                                     memory::format_tag::any)
                                      : plain;
  memory::desc bias;
  if (given.has_bias) {
    memory::dims dims(given.result.ndims, 1);
    dims.back() = given.bias.dims[0];
    memory::dims strides(given.result.ndims, dims.back());
    strides.back() = 1;
    bias = memory::desc(dims, memory::data_type::f32, strides);
  }
  builder.argument(DNNL_ARG_SRC, given.source, source);
  builder.argument(DNNL_ARG_DST, given.result, result);
  builder.quantized(DNNL_ARG_SRC, given.source);
  builder.quantized(DNNL_ARG_DST, given.result);
  if (!given.constant_weight) {
    builder.quantized(DNNL_ARG_WEIGHTS, given.weight);
  } else if (is_integer(given.weight)) {
    int mask = given.weight_scale_count == 1 ? 0 : 1 << (given.result.ndims - 1);
    builder.scales(DNNL_ARG_WEIGHTS, given.weight_scales, given.weight_scale_count, mask);
  }
  builder.epilogue(given.epilogue, given.result);
  dnnl::matmul::primitive_desc description(builder.engine(), source, weight, bias, result,
                                           builder.attributes());
  pass_over(description, given.implementation);
  if (given.constant_weight) {
    builder.argument(DNNL_ARG_WEIGHTS,
                     builder.packed(given.weight, plain, description.weights_desc()));
  } else {
    builder.argument(DNNL_ARG_WEIGHTS, given.weight, plain);
  }
  if (given.has_bias) {
    auto* values = (const float*)((const char*)given.bias.data + given.bias.offset);
    auto held = owned(builder.engine(), values, given.bias.dims[0], memory::data_type::f32);
    auto shaped = std::make_shared<memory>(bias, builder.engine());
    std::memcpy(shaped->get_data_handle(), held->get_data_handle(), bias.get_size());
    builder.argument(DNNL_ARG_BIAS, shaped);
  }
  builder.finish<dnnl::matmul>(description);
}

}  // namespace

extern "C" int qfx_add_convolution(qfx_plan* plan, const qfx_convolution* given) {
  return guarded([&] { add_convolution(plan, *given); });
}

extern "C" int qfx_add_matmul(qfx_plan* plan, const qfx_matmul* given) {
  return guarded([&] { add_matmul(plan, *given); });
}
