// What plans are made of: steps, and the places of their tensors.
#pragma once

#include <cstring>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "direct.h"

namespace quantfx {

// Where a running call finds its tensors.
struct Frame {
  const void* const* inputs;
  void* const* outputs;
  char* arena;
};

inline void* address(const qfx_tensor& tensor, const Frame& frame) {
  switch (tensor.place) {
    case QFX_ARENA: return frame.arena + tensor.offset;
    case QFX_INPUT: return (char*)frame.inputs[tensor.index] + tensor.offset;
    case QFX_OUTPUT: return (char*)frame.outputs[tensor.index] + tensor.offset;
    default: return (char*)tensor.data + tensor.offset;
  }
}

// An argument of a primitive: a tensor of the call, or memory that the plan or the store owns.
struct Argument {
  int name;
  qfx_tensor tensor;
  dnnl::memory::desc desc;
  std::shared_ptr<dnnl::memory> owned;
};

struct Step {
  std::string name = "loop";
  virtual ~Step() = default;
  // A loop; primitives are run by the context, which has their memory objects.
  virtual void run(const Frame&) const {}
};

struct PrimitiveStep : Step {
  int threads = 1;
  dnnl::primitive primitive;
  std::vector<Argument> arguments;
  dnnl::memory::desc scratchpad;
};

size_t element_size(int32_t dtype);

// Returns a copy of what `tensor` points at, of `tensor`'s bytes, which the step keeps.
std::shared_ptr<std::vector<char>> keep_constant(qfx_tensor& tensor);

}  // namespace quantfx

// One weight in the form that one implementation wants.
struct PackedWeight {
  const void* source;
  dnnl::memory::desc given, desc;
  std::shared_ptr<dnnl::memory> memory;
};

struct qfx_store {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  std::vector<PackedWeight> weights;
};

struct qfx_plan {
  qfx_store* store;
  int threads;
  std::vector<std::unique_ptr<quantfx::Step>> steps;
};

namespace quantfx {

template <class Make>
int guarded(Make make);
void set_error(const std::string& message);

template <class Make>
int guarded(Make make) {
  try {
    make();
    return 0;
  } catch (const dnnl::error& error) {
    set_error(std::string("oneDNN: ") + error.what());
  } catch (const std::exception& error) {
    set_error(error.what());
  }
  return 1;
}

}  // namespace quantfx
