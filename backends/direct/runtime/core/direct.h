/* A region of int8 operators as one list of prepared steps, run by one call.
 *
 * The interface is plain C and knows nothing of torch. Four kinds of object:
 *
 *   store    the packed weights of one region, shared by its plans
 *   plan     steps prepared for certain shapes and a number of threads; immutable once built
 *   context  what one running call needs: an arena of buffers, and memory objects
 *   step     a primitive of oneDNN, or a loop of quantfx
 *
 * Each function that can fail returns 0, or 1 and leaves a sentence for qfx_error(). Several threads may
 * run one plan at once, each with a context of its own. Once warm, a run allocates nothing.
 */
#ifndef QUANTFX_DIRECT_H
#define QUANTFX_DIRECT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QFX_MAX_DIMS 6
#define QFX_MAX_POST_OPS 6

/* Version of the structures below; the caller compares it with its own. */
#define QFX_INTERFACE 4

enum { QFX_F32, QFX_BF16, QFX_U8, QFX_S8 };
enum { QFX_ARENA, QFX_INPUT, QFX_OUTPUT, QFX_CONSTANT };
enum { QFX_FIRST, QFX_ADD, QFX_SUB, QFX_MUL, QFX_DIV };
enum { QFX_MAXIMUM, QFX_AVERAGE };
enum {
  QFX_RELU, QFX_CLIP, QFX_LINEAR, QFX_SIGMOID, QFX_TANH, QFX_GELU_ERF, QFX_GELU_TANH, QFX_SWISH,
  QFX_HARDSWISH, QFX_HARDSIGMOID, QFX_LEAKY_RELU, QFX_ELU, QFX_EXP, QFX_ABS, QFX_SQRT, QFX_SQUARE,
  QFX_SOFTPLUS, QFX_MISH, QFX_POW, QFX_SUM
};

/* A strided tensor. Strides count elements and are 0 along broadcast dimensions. Integers stand for
 * (value - zero_point) * scale; floats have scale 1 and zero point 0. */
typedef struct {
  int32_t place, index;  /* index: of an input or output */
  int32_t dtype, ndims;
  int64_t offset;        /* bytes from the start of the place */
  const void* data;      /* of a constant; read while a step is added, and never later */
  int64_t dims[QFX_MAX_DIMS], strides[QFX_MAX_DIMS];
  double scale;          /* torch rounds its inverse to float, which the inverse of a float is not */
  int32_t zero_point;
} qfx_tensor;

/* What follows a result in float: alpha and beta as in the formula of its name. QFX_SUM adds what
 * the result's memory holds, in a scale and zero point of its own. */
typedef struct {
  int32_t kind;
  float alpha, beta;
  float scale;         /* of a sum */
  int32_t zero_point;
} qfx_post_op;

/* Post-ops in order, then the integers of the result are clamped to [low, high]. */
typedef struct {
  int32_t count;
  qfx_post_op ops[QFX_MAX_POST_OPS];
  int32_t low, high;
} qfx_epilogue;

typedef struct {
  qfx_tensor source, weight, bias, result;
  int32_t has_bias, spatial;
  int64_t groups, strides[3], dilations[3], padding_low[3], padding_high[3];
  const float* weight_scales;  /* one for each output channel, or one */
  int64_t weight_scale_count;
  qfx_epilogue epilogue;
  int32_t implementation;      /* how many of oneDNN's to pass over, if it has as many */
  int32_t threads;             /* that share the work; 0 for those of the plan */
} qfx_convolution;

typedef struct {
  qfx_tensor source, weight, bias, result; /* (..., M, K), (..., K, N), (N), (..., M, N) */
  int32_t has_bias, constant_weight;
  const float* weight_scales;      /* of a constant weight; others have their tensor's own scale */
  int64_t weight_scale_count;
  qfx_epilogue epilogue;
  int32_t implementation, threads; /* as of a convolution */
} qfx_matmul;

typedef struct {
  int32_t kind;
  qfx_tensor a, b, result;
  qfx_epilogue epilogue;
} qfx_pointwise;

/* Bytes through a table of 256 bytes: any function of one int8 tensor. */
typedef struct {
  qfx_tensor source, result;
  const uint8_t* table;  /* NULL copies */
} qfx_lookup;

/* One byte in every element of an int8 tensor that is dense. */
typedef struct {
  qfx_tensor result;
  int32_t value;
} qfx_fill;

typedef struct {
  int32_t kind, spatial, counts_padding;
  qfx_tensor source, result;  /* (batch, channels, spatial...) */
  int64_t kernel[3], strides[3], dilations[3], padding[3];
  int64_t divisor;            /* 0: the number of values */
  qfx_epilogue epilogue;
} qfx_pool;

typedef struct {
  qfx_tensor source, result; /* (batch, channels, spatial...) */
  qfx_tensor tables[3];      /* float32 (size of the result, 3): two places in the source, and the
                                weight of the second; the first has the rest of 1 */
  int32_t spatial;
  qfx_epilogue epilogue;
} qfx_interpolate;

typedef struct {
  qfx_tensor source, weight, bias, result; /* normalized over the last dimension */
  int32_t has_weight, has_bias;
  int32_t centered;          /* about the mean; a norm by the root of the mean square is not */
  float epsilon;
  qfx_epilogue epilogue;
} qfx_layer_norm;

typedef struct {
  qfx_tensor source, result; /* over the last dimension */
  int32_t causal;            /* the i-th row of a matrix is of its first i + 1 values, zeros behind */
  int32_t empty_is_zero;     /* rows of nothing but -inf become zeros, not NaN */
  qfx_epilogue epilogue;
} qfx_softmax;

/* softmax(post(query @ key) + masks) @ value in integers, a few rows at a time: the weights, integers
 * too, never leave the caches. Batch dimensions of 1 stand for all. A step whose scores cannot be
 * summed exactly on this machine is not to be added. */
typedef struct {
  qfx_tensor query, key, value, result; /* (..., M, D), (..., D, N), (..., N, E), (..., M, E) */
  qfx_tensor masks[2];                  /* floats (..., M, N), broadcast by strides of 0 */
  int32_t mask_count;
  int32_t empty_is_zero;                /* as of a softmax */
  double weight_scale;                  /* of the softmax's integers, which are bytes */
  int32_t weight_zero_point, weight_low, weight_high;
  qfx_epilogue scores, epilogue;        /* what follows both products */
} qfx_attention;

typedef struct qfx_store qfx_store;
typedef struct qfx_plan qfx_plan;
typedef struct qfx_context qfx_context;

int qfx_interface(void);
const char* qfx_error(void);
void qfx_onednn_version(int32_t* major, int32_t* minor, int32_t* patch, const char** runtime);

qfx_store* qfx_store_new(void);
void qfx_store_free(qfx_store*);

/* The store must outlive the plan. */
qfx_plan* qfx_plan_new(qfx_store*, int32_t threads);
void qfx_plan_free(qfx_plan*);
int qfx_add_convolution(qfx_plan*, const qfx_convolution*);
int qfx_add_matmul(qfx_plan*, const qfx_matmul*);
int qfx_add_pointwise(qfx_plan*, const qfx_pointwise*);
int qfx_add_lookup(qfx_plan*, const qfx_lookup*);
int qfx_add_fill(qfx_plan*, const qfx_fill*);
int qfx_add_pool(qfx_plan*, const qfx_pool*);
int qfx_add_interpolate(qfx_plan*, const qfx_interpolate*);
int qfx_add_layer_norm(qfx_plan*, const qfx_layer_norm*);
int qfx_add_softmax(qfx_plan*, const qfx_softmax*);
int qfx_add_attention(qfx_plan*, const qfx_attention*);
int32_t qfx_step_count(const qfx_plan*);
/* What computes a step, e.g. "jit_uni_int8:avx2" or "loop"; valid while the plan lives. */
const char* qfx_step_name(const qfx_plan*, int32_t step);

/* The plan must outlive its contexts. */
qfx_context* qfx_context_new(const qfx_plan*, size_t arena_bytes);
void qfx_context_free(qfx_context*);
int qfx_run(qfx_context*, const void* const* inputs, void* const* outputs);
/* Run the steps [first, last) alone, `repeats` times; the fastest in microseconds. */
int qfx_time(qfx_context*, const void* const* inputs, void* const* outputs, int32_t first,
             int32_t last, int32_t repeats, double* microseconds);

#ifdef __cplusplus
}
#endif
#endif
