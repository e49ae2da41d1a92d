/* linear and cross_attention. */
#include "operators.h"

enum { VECTOR = 8 }; /* strides of attention are passed in units of 8 elements: 16 bytes */

int prepare_linear(const clip4str_kernels *kernels, const clip4str_linear_arguments *a, Launch *launch,
                   clip4str_message *message) {
  Values values = {{0}, {0}};
  SET(values, rows, a->rows);
  SET(values, K, a->K);
  SET(values, F, a->F);
  SET(values, normalize, a->normalize);
  SET(values, activation, a->activation);
  SET(values, has_bias, 1);
  SET(values, has_residual, a->residual != 0);
  SET(values, x, a->x);
  SET(values, weight, a->weight);
  SET(values, bias, a->bias);
  SET(values, residual, a->residual);
  SET(values, out, a->out);
  SET(values, stride_x, a->stride_x ? a->stride_x : a->K);
  SET(values, stride_residual, a->residual == 0 ? 0 : a->stride_residual ? a->stride_residual : a->F);
  SET(values, stride_out, a->stride_out ? a->stride_out : a->F);
  return prepare(kernels, LAUNCH_linear, &values, launch, message);
}

int clip4str_linear(const clip4str_kernels *kernels, const clip4str_linear_arguments *arguments, CUstream stream,
                    clip4str_message *message) {
  const clip4str_linear_arguments *a = arguments;
  NEED(kernels);
  NEED(arguments);
  WITHIN(a->rows, 0, INT32_MAX);
  WITHIN(a->K, 1, MOST_WIDTH);
  WITHIN(a->F, 1, MOST_WIDTH);
  WITHIN(a->normalize, 0, 1);
  WITHIN(a->activation, CLIP4STR_ACTIVATION_NONE, CLIP4STR_ACTIVATION_QUICK_GELU);
  if (a->rows == 0) return CLIP4STR_OK;
  NEED(a->x);
  NEED(a->weight);
  NEED(a->bias);
  NEED(a->out);
  if (a->stride_x) WITHIN(a->stride_x, a->K, INT32_MAX);
  if (a->stride_residual) WITHIN(a->stride_residual, a->F, INT32_MAX);
  if (a->stride_out) WITHIN(a->stride_out, a->F, INT32_MAX);
  if (a->out == a->x) return fail(message, CLIP4STR_ERROR_RANGE, "a->out: expected memory other than x's");
  Launch launch;
  TRY(prepare_linear(kernels, a, &launch, message));
  return run(kernels, &launch, 1, stream, message);
}

int check_memory(const char *name, const clip4str_memory *memory, int needed, clip4str_message *message) {
  if (memory->length < 0 || (needed && memory->length == 0))
    return fail(message, CLIP4STR_ERROR_RANGE, "%s: %d tokens", name, memory->length);
  if (memory->length > 0 && memory->data == 0)
    return fail(message, CLIP4STR_ERROR_NULL, "%s: %d tokens at null", name, memory->length);
  const int64_t strides[] = {memory->stride_sample, memory->stride_part, memory->stride_head, memory->stride_row};
  for (int i = 0; i < 4; i++) {
    if (strides[i] % VECTOR != 0)
      return fail(message, CLIP4STR_ERROR_ALIGNMENT, "%s: strides must be multiples of %d elements, got %lld", name,
                  VECTOR, (long long)strides[i]);
    if (strides[i] < 0 || strides[i] > INT32_MAX)
      return fail(message, CLIP4STR_ERROR_RANGE, "%s: stride %lld is out of range", name, (long long)strides[i]);
  }
  return CLIP4STR_OK;
}

static clip4str_memory dense(clip4str_memory m, int heads, int head_dim) {
  if (m.stride_sample == 0 && m.stride_part == 0 && m.stride_head == 0 && m.stride_row == 0) {
    m.stride_row = head_dim;
    m.stride_head = (int64_t)m.length * m.stride_row;
    m.stride_part = heads * m.stride_head;
    m.stride_sample = 2 * m.stride_part;
  }
  return m;
}

int prepare_attend(const clip4str_kernels *kernels, const clip4str_cross_attention_arguments *a,
                   clip4str_pointer queries, clip4str_pointer attended, Launch *launches, int *count,
                   clip4str_message *message) {
  clip4str_memory memory = dense(a->memory, a->heads, a->d / a->heads);
  clip4str_memory text = dense(a->text, a->heads, a->d / a->heads);
  Values values = {{0}, {0}};
  SET(values, n, a->n);
  SET(values, T, a->T);
  SET(values, d, a->d);
  SET(values, heads, a->heads);
  SET(values, M, memory.length);
  SET(values, X, text.length);
  SET(values, has_text, text.length > 0);
  SET(values, has_bias, 1);
  SET(values, has_weight, 1);
  SET(values, x, a->x);
  SET(values, memory, memory.data);
  SET(values, text, text.length > 0 ? text.data : 0);
  SET(values, weight, a->query_weight);
  SET(values, bias, a->query_bias);
  SET(values, out, attended);
  SET(values, x_sample, (int64_t)a->T * a->d / VECTOR);
  SET(values, x_row, a->d / VECTOR);
  SET(values, memory_sample, memory.stride_sample / VECTOR);
  SET(values, memory_part, memory.stride_part / VECTOR);
  SET(values, memory_head, memory.stride_head / VECTOR);
  SET(values, memory_row, memory.stride_row / VECTOR);
  SET(values, text_sample, text.length > 0 ? text.stride_sample / VECTOR : 0);
  SET(values, text_part, text.length > 0 ? text.stride_part / VECTOR : 0);
  SET(values, text_head, text.length > 0 ? text.stride_head / VECTOR : 0);
  SET(values, text_row, text.length > 0 ? text.stride_row / VECTOR : 0);
  *count = 0;
  if (!exists(kernels, LAUNCH_attend, &values)) { /* many words: queries are projected by a launch of their own */
    const clip4str_linear_arguments project = {.rows = a->n * a->T, .K = a->d, .F = a->d, .normalize = 1, .x = a->x,
                                               .weight = a->query_weight, .bias = a->query_bias, .out = queries};
    TRY(prepare_linear(kernels, &project, &launches[(*count)++], message));
    SET(values, has_weight, 0);
    SET(values, x, queries);
  }
  return prepare(kernels, LAUNCH_attend, &values, &launches[(*count)++], message);
}

uint64_t clip4str_cross_attention_workspace(int32_t n, int32_t T, int32_t d) {
  if (n < 0 || n > MOST_WORDS || T < 1 || T > MOST_STEPS || d < 1 || d > MOST_WIDTH) return 0;
  return 2 * rounded((uint64_t)n * (uint64_t)T * (uint64_t)d * HALF);
}

int clip4str_cross_attention(const clip4str_kernels *kernels, const clip4str_cross_attention_arguments *arguments,
                             CUstream stream, clip4str_message *message) {
  const clip4str_cross_attention_arguments *a = arguments;
  NEED(kernels);
  NEED(arguments);
  WITHIN(a->n, 0, MOST_WORDS);
  WITHIN(a->T, 1, MOST_STEPS);
  WITHIN(a->d, 8, MOST_WIDTH);
  WITHIN(a->heads, 1, a->d);
  if (a->d % (VECTOR * a->heads) != 0)
    return fail(message, CLIP4STR_ERROR_RANGE, "a->d: expected a multiple of 8 x %d heads, got %d", a->heads, a->d);
  if (a->n == 0) return CLIP4STR_OK;
  TRY(check_memory("a->memory", &a->memory, 1, message));
  TRY(check_memory("a->text", &a->text, 0, message));
  NEED(a->x);
  NEED(a->query_weight);
  NEED(a->query_bias);
  NEED(a->out_weight);
  NEED(a->out_bias);
  NEED(a->out);
  NEED(a->workspace);
  const uint64_t needed = clip4str_cross_attention_workspace(a->n, a->T, a->d);
  WITHIN(a->workspace_bytes, needed, UINT64_MAX);
  const clip4str_pointer attended = a->workspace, queries = a->workspace + needed / 2;
  const clip4str_linear_arguments project = {.rows = a->n * a->T, .K = a->d, .F = a->d, .x = attended,
                                             .weight = a->out_weight, .bias = a->out_bias, .residual = a->x,
                                             .out = a->out};
  Launch launches[3];
  int count = 0;
  TRY(prepare_attend(kernels, a, queries, attended, launches, &count, message));
  TRY(prepare_linear(kernels, &project, &launches[count++], message));
  return run(kernels, launches, count, stream, message);
}
