// Steps as loops: operators for which oneDNN has no primitive, or no exact one.
#include "loops.hpp"

using namespace quantfx;

namespace {

// One loop nest over tensors of the same dimensions: an inner dimension, and what is around it.
struct Nest {
  int around = 0;
  int64_t dims[QFX_MAX_DIMS], count = 1, inner = 1, blocks = 1;
  std::vector<std::vector<int64_t>> strides;  // tensor, dimension around
  std::vector<int64_t> steps;                 // tensor, along the inner dimension

  explicit Nest(const std::vector<qfx_tensor>& tensors) {
    const qfx_tensor& result = tensors[0];
    std::vector<int> order;
    for (int i = 0; i < result.ndims; i++) {
      if (result.dims[i] != 1) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return result.strides[a] > result.strides[b]; });
    // Dimensions that are contiguous in all tensors are merged.
    std::vector<int64_t> sizes;
    std::vector<std::vector<int64_t>> found(tensors.size());
    for (int i : order) {
      bool joins = !sizes.empty();
      for (size_t t = 0; t < tensors.size() && joins; t++) {
        joins = found[t].back() == tensors[t].strides[i] * result.dims[i];
      }
      if (joins) {
        sizes.back() *= result.dims[i];
        for (size_t t = 0; t < tensors.size(); t++) found[t].back() = tensors[t].strides[i];
      } else {
        sizes.push_back(result.dims[i]);
        for (size_t t = 0; t < tensors.size(); t++) found[t].push_back(tensors[t].strides[i]);
      }
    }
    if (sizes.empty()) {
      sizes.push_back(1);
      for (auto& each : found) each.push_back(0);
    }
    size_t chosen = innermost(sizes, found);
    inner = sizes[chosen];
    blocks = (inner + BLOCK - 1) / BLOCK;
    strides.resize(tensors.size());
    for (size_t t = 0; t < tensors.size(); t++) steps.push_back(found[t][chosen]);
    for (size_t i = 0; i < sizes.size(); i++) {
      if (i == chosen) continue;
      dims[around++] = sizes[i];
      count *= sizes[i];
      for (size_t t = 0; t < tensors.size(); t++) strides[t].push_back(found[t][i]);
    }
  }

  // Calls f(positions, size): where each tensor's block starts, in elements.
  template <class F>
  void run(F f) const {
    int64_t work = count * blocks;
    bool parallel = count * inner >= PARALLEL && work > 1;
#pragma omp parallel if (parallel)
    {
      int64_t threads = omp_get_num_threads(), mine = omp_get_thread_num();
      int64_t positions[4];
      for (int64_t i = work * mine / threads; i < work * (mine + 1) / threads; i++) {
        int64_t rest = i / blocks, start = i % blocks * BLOCK;
        for (size_t t = 0; t < steps.size(); t++) positions[t] = start * steps[t];
        for (int d = around - 1; d >= 0; d--) {
          int64_t at = rest % dims[d];
          rest /= dims[d];
          for (size_t t = 0; t < steps.size(); t++) positions[t] += at * strides[t][d];
        }
        f(positions, std::min(BLOCK, inner - start));
      }
    }
  }

 private:
  // The result's last dimension, or a longer one along which the first operand is contiguous.
  static size_t innermost(const std::vector<int64_t>& sizes,
                          const std::vector<std::vector<int64_t>>& found) {
    size_t last = sizes.size() - 1;
    if (found.size() < 2 || sizes[last] >= 16 || found[1][last] == 1) return last;
    for (size_t i = 0; i < sizes.size(); i++) {
      if (found[1][i] == 1 && sizes[i] > sizes[last]) return i;
    }
    return last;
  }
};

struct Pointwise : Step {
  qfx_pointwise given;
  Nest nest;
  std::shared_ptr<std::vector<char>> constants[2];

  explicit Pointwise(const qfx_pointwise& g)
      : given(g), nest(g.kind == QFX_FIRST ? std::vector<qfx_tensor>{g.result, g.a}
                                           : std::vector<qfx_tensor>{g.result, g.a, g.b}) {
    check(given.epilogue);
    constants[0] = keep_constant(given.a);
    if (given.kind != QFX_FIRST) constants[1] = keep_constant(given.b);
  }

  void run(const Frame& frame) const override {
    void* result = address(given.result, frame);
    const void* a = address(given.a, frame);
    const void* b = given.kind == QFX_FIRST ? nullptr : address(given.b, frame);
    nest.run([&](const int64_t* at, int64_t count) {
      float x[BLOCK], y[BLOCK];
      load(given.a, a, at[1], nest.steps[1], count, x);
      if (b) load(given.b, b, at[2], nest.steps[2], count, y);
      switch (given.kind) {
        case QFX_ADD: for (int64_t i = 0; i < count; i++) x[i] += y[i]; break;
        case QFX_SUB: for (int64_t i = 0; i < count; i++) x[i] -= y[i]; break;
        case QFX_MUL: for (int64_t i = 0; i < count; i++) x[i] *= y[i]; break;
        case QFX_DIV: for (int64_t i = 0; i < count; i++) x[i] /= y[i]; break;
        default: break;
      }
      apply(given.epilogue, x, count);
      store(given.result, given.epilogue, result, at[0], nest.steps[0], count, x);
    });
  }
};

template <class T>
void copy_block(const T* from, int64_t from_step, T* to, int64_t to_step, int64_t count) {
  if (from_step == 1 && to_step == 1) {
    std::memcpy(to, from, count * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < count; i++) to[i * to_step] = from[i * from_step];
}

struct Lookup : Step {
  qfx_lookup given;
  Nest nest;
  std::vector<uint8_t> table;
  std::shared_ptr<std::vector<char>> constant;

  explicit Lookup(const qfx_lookup& g) : given(g), nest({g.result, g.source}) {
    if (given.table) table.assign(given.table, given.table + 256);
    constant = keep_constant(given.source);
  }

  void run(const Frame& frame) const override {
    char* result = (char*)address(given.result, frame);
    const char* source = (const char*)address(given.source, frame);
    const int64_t from = nest.steps[1], to = nest.steps[0];
    const uint8_t* values = table.empty() ? nullptr : table.data();
    nest.run([&](const int64_t* at, int64_t count) {
      if (values) {
        const uint8_t* x = (const uint8_t*)source + at[1];
        uint8_t* y = (uint8_t*)result + at[0];
        for (int64_t i = 0; i < count; i++) y[i * to] = values[x[i * from]];
        return;
      }
      switch (element_size(given.source.dtype)) {
        case 1: copy_block((const uint8_t*)source + at[1], from, (uint8_t*)result + at[0], to, count); return;
        case 2: copy_block((const uint16_t*)source + at[1], from, (uint16_t*)result + at[0], to, count); return;
        default: copy_block((const uint32_t*)source + at[1], from, (uint32_t*)result + at[0], to, count);
      }
    });
  }
};

struct Fill : Step {
  qfx_fill given;
  size_t count = 1;

  explicit Fill(const qfx_fill& g) : given(g) {
    for (int i = 0; i < g.result.ndims; i++) count *= (size_t)g.result.dims[i];
  }

  void run(const Frame& frame) const override {
    std::memset(address(given.result, frame), given.value, count);
  }
};

// Windows over (batch, channels, up to three dimensions); channels lie next to each other.
struct Pool : Step {
  qfx_pool given;
  int64_t in[3], out[3], kernel[3], step[3], gap[3], pad[3];     // padded in front with ones
  int64_t source_strides[3], result_strides[3];

  explicit Pool(const qfx_pool& g) : given(g) {
    check(given.epilogue);
    if (g.source.ndims != g.spatial + 2 || g.result.ndims != g.source.ndims ||
        g.source.dims[0] != g.result.dims[0] || g.source.dims[1] != g.result.dims[1]) {
      throw std::runtime_error("a pool keeps batch and channels");
    }
    for (int i = 0; i < 3; i++) {
      int from = i - (3 - g.spatial);  // dimension of the pool, negative where there is none
      bool has = from >= 0;
      in[i] = has ? g.source.dims[2 + from] : 1;
      out[i] = has ? g.result.dims[2 + from] : 1;
      kernel[i] = has ? g.kernel[from] : 1;
      step[i] = has ? g.strides[from] : 1;
      gap[i] = has ? g.dilations[from] : 1;
      pad[i] = has ? g.padding[from] : 0;
      source_strides[i] = has ? g.source.strides[2 + from] : 0;
      result_strides[i] = has ? g.result.strides[2 + from] : 0;
    }
  }

  void run(const Frame& frame) const override {
    const void* source = address(given.source, frame);
    void* result = address(given.result, frame);
    const int64_t channels = given.source.dims[1], parts = (channels + BLOCK - 1) / BLOCK;
    const int64_t places = out[0] * out[1] * out[2];
    const int64_t work = given.source.dims[0] * places * parts;
    int64_t values = given.source.dims[0] * places * channels * kernel[0] * kernel[1] * kernel[2];
#pragma omp parallel for if (values >= PARALLEL && work > 1) schedule(static)
    for (int64_t i = 0; i < work; i++) {
      int64_t part = i % parts, place = i / parts % places, batch = i / parts / places;
      int64_t at[3] = {place / (out[1] * out[2]), place / out[2] % out[1], place % out[2]};
      window(source, result, batch, at, part * BLOCK, std::min(BLOCK, channels - part * BLOCK));
    }
  }

 private:
  template <class T, class Sum>
  int64_t gather(const T* source, const int64_t* at, int64_t count, int64_t stride, Sum* sums) const {
    int64_t found = 0;
    for (int64_t z = 0; z < kernel[0]; z++) {
      int64_t a = at[0] * step[0] - pad[0] + z * gap[0];
      if (a < 0 || a >= in[0]) continue;
      for (int64_t y = 0; y < kernel[1]; y++) {
        int64_t b = at[1] * step[1] - pad[1] + y * gap[1];
        if (b < 0 || b >= in[1]) continue;
        for (int64_t x = 0; x < kernel[2]; x++) {
          int64_t c = at[2] * step[2] - pad[2] + x * gap[2];
          if (c < 0 || c >= in[2]) continue;
          const T* from = source + a * source_strides[0] + b * source_strides[1] + c * source_strides[2];
          accumulate(from, stride, count, sums, found++ == 0);
        }
      }
    }
    return found;
  }

  template <class T, class Sum>
  void accumulate(const T* from, int64_t stride, int64_t count, Sum* sums, bool first) const {
    if (first) {
      for (int64_t i = 0; i < count; i++) sums[i] = (Sum)from[i * stride];
    } else if (given.kind == QFX_AVERAGE) {
      for (int64_t i = 0; i < count; i++) sums[i] += (Sum)from[i * stride];
    } else {
      for (int64_t i = 0; i < count; i++) {
        Sum value = (Sum)from[i * stride];
        sums[i] = value > sums[i] || value != value ? value : sums[i];
      }
    }
  }

  // The divisor of an average; padding within the window counts if the pool says so.
  int64_t divisor(const int64_t* at, int64_t found) const {
    if (given.divisor) return given.divisor;
    if (!given.counts_padding) return found;
    int64_t product = 1;
    for (int i = 0; i < 3; i++) {
      int64_t start = at[i] * step[i] - pad[i];
      product *= std::min(start + kernel[i], in[i] + pad[i]) - start;
    }
    return product;
  }

  void window(const void* source, void* result, int64_t batch, const int64_t* at, int64_t channel,
              int64_t count) const {
    const int64_t stride = given.source.strides[1];
    const int64_t from = batch * given.source.strides[0] + channel * stride;
    float values[BLOCK];
    int64_t found;
    if (given.source.dtype == QFX_F32) {
      found = gather((const float*)source + from, at, count, stride, values);
    } else {
      int32_t sums[BLOCK];
      found = given.source.dtype == QFX_U8
                  ? gather((const uint8_t*)source + from, at, count, stride, sums)
                  : gather((const int8_t*)source + from, at, count, stride, sums);
      const float scale = (float)given.source.scale;
      const int64_t zero = given.source.zero_point * (given.kind == QFX_AVERAGE ? found : 1);
      for (int64_t i = 0; i < count; i++) values[i] = (float)(sums[i] - (int32_t)zero) * scale;
    }
    if (found == 0) {
      std::fill(values, values + count, given.kind == QFX_AVERAGE ? 0.0f : -INFINITY);
    }
    if (given.kind == QFX_AVERAGE) {
      const float divided = (float)divisor(at, found);
      for (int64_t i = 0; i < count; i++) values[i] /= divided;
    }
    apply(given.epilogue, values, count);
    int64_t to = batch * given.result.strides[0] + channel * given.result.strides[1];
    for (int i = 0; i < 3; i++) to += at[i] * result_strides[i];
    store(given.result, given.epilogue, result, to, given.result.strides[1], count, values);
  }
};

// Weighted sums of the nearest values in up to three dimensions.
struct Interpolate : Step {
  struct Tap {
    int64_t place[2];
    float weight[2];
  };
  qfx_interpolate given;
  std::vector<Tap> taps[3];  // padded in front with one place
  int64_t source_strides[3], result_strides[3];

  explicit Interpolate(const qfx_interpolate& g) : given(g) {
    check(given.epilogue);
    for (int i = 0; i < 3; i++) {
      const int from = i - (3 - g.spatial);
      source_strides[i] = from < 0 ? 0 : g.source.strides[2 + from];
      result_strides[i] = from < 0 ? 0 : g.result.strides[2 + from];
      if (from < 0) {
        taps[i].push_back({{0, 0}, {1.0f, 0.0f}});
        continue;
      }
      const qfx_tensor& table = g.tables[from];
      const float* row = (const float*)((const char*)table.data + table.offset);
      for (int64_t k = 0; k < table.dims[0]; k++, row += 3) {
        taps[i].push_back({{(int64_t)row[0], (int64_t)row[1]}, {1.0f - row[2], row[2]}});
      }
    }
  }

  // A row of the result is of one row in float, to which the rows around it are mixed first: of all
  // channels, or of one where the values of a row lie next to each other.
  void run(const Frame& frame) const override {
    const void* source = address(given.source, frame);
    void* result = address(given.result, frame);
    const bool single = given.source.strides[1] != 1 && source_strides[2] == 1;
    const int64_t channels = given.source.dims[1], outer = single ? channels : 1;
    const int64_t width = given.source.dims[given.source.ndims - 1];
    const int64_t inner = single ? 1 : channels, depth = taps[0].size(), height = taps[1].size();
    const int64_t rows = given.source.dims[0] * outer * depth * height;
    const int64_t values = rows * (int64_t)taps[2].size() * inner;
#pragma omp parallel if (values >= PARALLEL && rows > 1)
    {
      static thread_local std::vector<float> mixed, added;
      if ((int64_t)mixed.size() < width * inner) mixed.resize(width * inner), added.resize(width * inner);
#pragma omp for schedule(static)
      for (int64_t row = 0; row < rows; row++) {
        const int64_t y = row % height, z = row / height % depth, channel = row / height / depth % outer;
        const int64_t batch = row / height / depth / outer;
        const int64_t from = batch * given.source.strides[0] + channel * given.source.strides[1];
        const int64_t to = batch * given.result.strides[0] + channel * given.result.strides[1] +
                           z * result_strides[0] + y * result_strides[1];
        mix(source, from, taps[0][z], taps[1][y], width, inner, mixed.data(), added.data());
        if (single) {
          spread_row(result, to, mixed.data());
        } else {
          spread_channels(result, to, channels, mixed.data());
        }
      }
    }
  }

 private:
  // Mixes up to four rows of `width` places, each of `inner` values.
  void mix(const void* source, int64_t from, const Tap& a, const Tap& b, int64_t width, int64_t inner,
           float* to, float* added) const {
    bool first = true;
    for (int k = 0; k < 4; k++) {
      const float weight = a.weight[k / 2] * b.weight[k % 2];
      if (weight == 0.0f) continue;
      const int64_t row = from + a.place[k / 2] * source_strides[0] + b.place[k % 2] * source_strides[1];
      load_row(source, row, width, inner, first ? to : added);
      if (first && weight != 1.0f) for (int64_t i = 0; i < width * inner; i++) to[i] *= weight;
      if (!first) for (int64_t i = 0; i < width * inner; i++) to[i] += weight * added[i];
      first = false;
    }
  }

  void load_row(const void* source, int64_t row, int64_t width, int64_t inner, float* to) const {
    const int64_t step = source_strides[2], between = given.source.strides[1];
    if (inner == 1 || (between == 1 && step == inner)) {
      load(given.source, source, row, inner == 1 ? step : 1, width * inner, to);
      return;
    }
    for (int64_t x = 0; x < width; x++) load(given.source, source, row + x * step, between, inner, to + x * inner);
  }

  void spread_row(void* result, int64_t to, const float* row) const {
    float sums[BLOCK];
    const int64_t width = taps[2].size(), step = result_strides[2];
    for (int64_t start = 0; start < width; start += BLOCK) {
      const int64_t count = std::min(BLOCK, width - start);
      const Tap* tap = taps[2].data() + start;
      for (int64_t i = 0; i < count; i++) {
        sums[i] = tap[i].weight[0] * row[tap[i].place[0]] + tap[i].weight[1] * row[tap[i].place[1]];
      }
      apply(given.epilogue, sums, count);
      store(given.result, given.epilogue, result, to + start * step, step, count, sums);
    }
  }

  void spread_channels(void* result, int64_t to, int64_t channels, const float* row) const {
    float sums[BLOCK];
    const int64_t step = given.result.strides[1];
    for (const Tap& tap : taps[2]) {
      const float *one = row + tap.place[0] * channels, *other = row + tap.place[1] * channels;
      for (int64_t start = 0; start < channels; start += BLOCK) {
        const int64_t count = std::min(BLOCK, channels - start);
        for (int64_t i = 0; i < count; i++) {
          sums[i] = tap.weight[0] * one[start + i] + tap.weight[1] * other[start + i];
        }
        apply(given.epilogue, sums, count);
        store(given.result, given.epilogue, result, to + start * step, step, count, sums);
      }
      to += result_strides[2];
    }
  }
};

// A step that computes each row from itself: compute(values, width, row); `values` is the thread's own.
template <class F>
void for_rows(const qfx_tensor& source, const qfx_tensor& result, const qfx_epilogue& epilogue,
              const Frame& frame, F compute) {
  const int64_t rows = row_count(source), width = source.dims[source.ndims - 1];
  const int64_t from_step = source.strides[source.ndims - 1];
  const int64_t to_step = result.strides[result.ndims - 1];
  const void* from = address(source, frame);
  void* to = address(result, frame);
#pragma omp parallel if (rows * width >= PARALLEL && rows > 1)
  {
    static thread_local std::vector<float> values;
    if ((int64_t)values.size() < width) values.resize(width);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
      float* v = values.data();
      load(source, from, row_start(source, row), from_step, width, v);
      compute(v, width, row);
      const int64_t start = row_start(result, row);
      for (int64_t i = 0; i < width; i += BLOCK) {
        const int64_t count = std::min(BLOCK, width - i);
        apply(epilogue, v + i, count);
        store(result, epilogue, to, start + i * to_step, to_step, count, v + i);
      }
    }
  }
}

struct LayerNorm : Step {
  qfx_layer_norm given;
  std::vector<float> weight, bias;

  explicit LayerNorm(const qfx_layer_norm& g) : given(g) {
    check(given.epilogue);
    const int64_t width = g.source.dims[g.source.ndims - 1];
    if (g.has_weight) read(g.weight, width, weight);
    if (g.has_bias) read(g.bias, width, bias);
  }

  void run(const Frame& frame) const override {
    for_rows(given.source, given.result, given.epilogue, frame, [this](float* v, int64_t width, int64_t) {
      float mean = 0, variance = 0;
      if (given.centered) {
#pragma omp simd reduction(+ : mean)
        for (int64_t i = 0; i < width; i++) mean += v[i];
        mean /= (float)width;
      }
#pragma omp simd reduction(+ : variance)
      for (int64_t i = 0; i < width; i++) variance += (v[i] - mean) * (v[i] - mean);
      const float factor = 1.0f / std::sqrt(variance / (float)width + given.epsilon);
      for (int64_t i = 0; i < width; i++) v[i] = (v[i] - mean) * factor;
      if (!weight.empty()) for (int64_t i = 0; i < width; i++) v[i] *= weight[i];
      if (!bias.empty()) for (int64_t i = 0; i < width; i++) v[i] += bias[i];
    });
  }

 private:
  static void read(const qfx_tensor& tensor, int64_t width, std::vector<float>& to) {
    to.resize(width);
    load(tensor, (const char*)tensor.data + tensor.offset, 0, tensor.strides[tensor.ndims - 1],
         width, to.data());
  }
};

struct Softmax : Step {
  qfx_softmax given;

  explicit Softmax(const qfx_softmax& g) : given(g) { check(given.epilogue); }

  void run(const Frame& frame) const override {
    const int64_t rows = given.source.ndims > 1 ? given.source.dims[given.source.ndims - 2] : 1;
    for_rows(given.source, given.result, given.epilogue, frame, [&](float* v, int64_t all, int64_t row) {
      const int64_t width = given.causal ? std::min(all, row % rows + 1) : all;
      std::fill(v + width, v + all, 0.0f);
      const float factor = 1.0f / exponentials(v, width, given.empty_is_zero);
      for (int64_t i = 0; i < width; i++) v[i] *= factor;
    });
  }
};

}  // namespace

extern "C" {
int qfx_add_pointwise(qfx_plan* plan, const qfx_pointwise* given) { return add<Pointwise>(plan, given); }
int qfx_add_lookup(qfx_plan* plan, const qfx_lookup* given) { return add<Lookup>(plan, given); }
int qfx_add_fill(qfx_plan* plan, const qfx_fill* given) { return add<Fill>(plan, given); }
int qfx_add_pool(qfx_plan* plan, const qfx_pool* given) { return add<Pool>(plan, given); }
int qfx_add_interpolate(qfx_plan* plan, const qfx_interpolate* given) { return add<Interpolate>(plan, given); }
int qfx_add_layer_norm(qfx_plan* plan, const qfx_layer_norm* given) { return add<LayerNorm>(plan, given); }
int qfx_add_softmax(qfx_plan* plan, const qfx_softmax* given) { return add<Softmax>(plan, given); }
}
