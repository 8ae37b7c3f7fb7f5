// Stores, plans and contexts, and the loop that runs a plan.
#include "plan.hpp"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>

using namespace quantfx;

namespace {

thread_local std::string last_error;

// The threads that the plan was prepared for, in this thread only.
struct Threads {
  int before = omp_get_max_threads();
  explicit Threads(int count) { omp_set_num_threads(count); }
  ~Threads() { omp_set_num_threads(before); }
};

struct Freed {
  void operator()(void* memory) const { std::free(memory); }
};

// A memory object whose address is set in each call.
struct Moving {
  dnnl_memory_t memory;
  qfx_tensor tensor;
};

struct Bound {
  const Step* step;
  dnnl_primitive_t primitive = nullptr;
  int threads = 0;
  std::vector<dnnl_exec_arg_t> arguments;
};

}  // namespace

struct qfx_context {
  int threads;
  dnnl::stream stream;
  std::unique_ptr<char, Freed> arena;
  std::vector<dnnl::memory> memories;
  std::vector<Moving> moving;
  std::vector<Bound> steps;

  void move(const Frame& frame) {
    for (auto& each : moving) {
      dnnl::error::wrap_c_api(dnnl_memory_set_data_handle(each.memory, address(each.tensor, frame)),
                              "could not set the address of an input or output");
    }
  }

  void run(const Frame& frame, size_t first, size_t last) {
    int now = threads;
    for (size_t i = first; i < last; i++) {
      const Bound& each = steps[i];
      if (each.threads != now) omp_set_num_threads(now = each.threads);
      if (!each.primitive) {
        each.step->run(frame);
        continue;
      }
      auto status = dnnl_primitive_execute(each.primitive, stream.get(), (int)each.arguments.size(),
                                           each.arguments.data());
      if (status != dnnl_success) {
        throw std::runtime_error("oneDNN: step " + std::to_string(i) + " (" + each.step->name +
                                 ") failed with status " + std::to_string(status));
      }
    }
  }
};

namespace quantfx {

void set_error(const std::string& message) { last_error = message; }

size_t element_size(int32_t dtype) { return dtype == QFX_F32 ? 4 : dtype == QFX_BF16 ? 2 : 1; }

std::shared_ptr<std::vector<char>> keep_constant(qfx_tensor& tensor) {
  if (tensor.place != QFX_CONSTANT) return nullptr;
  int64_t last = 0;
  for (int i = 0; i < tensor.ndims; i++) last += (tensor.dims[i] - 1) * tensor.strides[i];
  const char* start = (const char*)tensor.data + tensor.offset;
  auto bytes = std::make_shared<std::vector<char>>(
      start, start + (last + 1) * element_size(tensor.dtype));
  tensor.data = bytes->data();
  tensor.offset = 0;
  return bytes;
}

}  // namespace quantfx

extern "C" {

int qfx_interface(void) { return QFX_INTERFACE; }

const char* qfx_error(void) { return last_error.c_str(); }

void qfx_onednn_version(int32_t* major, int32_t* minor, int32_t* patch, const char** runtime) {
  const dnnl_version_t* version = dnnl_version();
  *major = version->major;
  *minor = version->minor;
  *patch = version->patch;
  *runtime = version->cpu_runtime == DNNL_RUNTIME_OMP   ? "OpenMP"
             : version->cpu_runtime == DNNL_RUNTIME_TBB ? "TBB"
                                                        : "other";
}

qfx_store* qfx_store_new(void) {
  qfx_store* store = nullptr;
  guarded([&] { store = new qfx_store(); });
  return store;
}

void qfx_store_free(qfx_store* store) { delete store; }

qfx_plan* qfx_plan_new(qfx_store* store, int32_t threads) {
  return new qfx_plan{store, std::max(1, threads), {}};
}

void qfx_plan_free(qfx_plan* plan) { delete plan; }

int32_t qfx_step_count(const qfx_plan* plan) { return (int32_t)plan->steps.size(); }

const char* qfx_step_name(const qfx_plan* plan, int32_t step) {
  return plan->steps[step]->name.c_str();
}

qfx_context* qfx_context_new(const qfx_plan* plan, size_t arena_bytes) {
  auto context = std::make_unique<qfx_context>();
  auto make = [&] {
    auto& engine = plan->store->engine;
    context->threads = plan->threads;
    context->stream = dnnl::stream(engine);
    size_t scratch = 0;
    for (auto& step : plan->steps) {
      auto* each = dynamic_cast<PrimitiveStep*>(step.get());
      if (each && each->scratchpad) scratch = std::max(scratch, each->scratchpad.get_size());
    }
    size_t arena = (arena_bytes + 63) / 64 * 64;
    size_t total = (arena + scratch + 127) / 64 * 64;
    context->arena.reset((char*)std::aligned_alloc(64, total));
    if (!context->arena) {
      throw std::runtime_error("no memory for " + std::to_string(total) + " bytes of buffers");
    }
    // Buffers end where the next begins, and some kernels read whole vectors.
    std::memset(context->arena.get(), 0, total);
    Frame frame{nullptr, nullptr, context->arena.get()};
    for (auto& step : plan->steps) {
      Bound bound;
      bound.step = step.get();
      bound.threads = plan->threads;
      if (auto* each = dynamic_cast<PrimitiveStep*>(step.get())) {
        bound.primitive = each->primitive.get();
        bound.threads = each->threads;
        for (auto& argument : each->arguments) {
          if (argument.owned) {
            bound.arguments.push_back({argument.name, argument.owned->get()});
            continue;
          }
          bool moves = argument.tensor.place == QFX_INPUT || argument.tensor.place == QFX_OUTPUT;
          void* start = moves ? DNNL_MEMORY_NONE : address(argument.tensor, frame);
          context->memories.emplace_back(argument.desc, engine, start);
          dnnl_memory_t memory = context->memories.back().get();
          bound.arguments.push_back({argument.name, memory});
          if (moves) context->moving.push_back({memory, argument.tensor});
        }
        if (each->scratchpad && each->scratchpad.get_size()) {
          context->memories.emplace_back(each->scratchpad, engine, context->arena.get() + arena);
          bound.arguments.push_back({DNNL_ARG_SCRATCHPAD, context->memories.back().get()});
        }
      }
      context->steps.push_back(std::move(bound));
    }
  };
  return guarded(make) ? nullptr : context.release();
}

void qfx_context_free(qfx_context* context) { delete context; }

int qfx_run(qfx_context* context, const void* const* inputs, void* const* outputs) {
  return guarded([&] {
    Threads threads(context->threads);
    Frame frame{inputs, outputs, context->arena.get()};
    context->move(frame);
    context->run(frame, 0, context->steps.size());
  });
}

int qfx_time(qfx_context* context, const void* const* inputs, void* const* outputs, int32_t first,
             int32_t last, int32_t repeats, double* microseconds) {
  return guarded([&] {
    using clock = std::chrono::steady_clock;
    Threads threads(context->threads);
    Frame frame{inputs, outputs, context->arena.get()};
    context->move(frame);
    *microseconds = std::numeric_limits<double>::infinity();
    for (int i = 0; i < repeats; i++) {
      auto start = clock::now();
      context->run(frame, first, last);
      std::chrono::duration<double, std::micro> took = clock::now() - start;
      *microseconds = std::min(*microseconds, took.count());
    }
  });
}

}  // extern "C"
