/* decode_pass and tokenize. */
#include "operators.h"

enum { MOST_TOKENS = 256, MOST_CLASSES = 128, MOST_HIDDEN = 8192, SLOTS = 32, MOST_BITS = 30 };

static int check_decoder(const clip4str_decoder *w, clip4str_message *message) {
  WITHIN(w->T, 1, MOST_STEPS);
  WITHIN(w->C, 1, MOST_CLASSES);
  WITHIN(w->K, w->C + 1, MOST_TOKENS);
  WITHIN(w->d, 8, MOST_WIDTH);
  WITHIN(w->F, 1, MOST_HIDDEN);
  WITHIN(w->heads, 1, w->d);
  if (w->d % (8 * w->heads) != 0)
    return fail(message, CLIP4STR_ERROR_RANGE, "w->d: expected a multiple of 8 x %d heads, got %d", w->heads, w->d);
  return CLIP4STR_OK;
}

static int check_weights(const clip4str_decoder *w, clip4str_message *message) {
  NEED(w->scores);
  NEED(w->values);
  NEED(w->base);
  NEED(w->query_weight);
  NEED(w->query_bias);
  NEED(w->out_weight);
  NEED(w->out_bias);
  NEED(w->up_weight);
  NEED(w->up_bias);
  NEED(w->down_weight);
  NEED(w->down_bias);
  NEED(w->head_weight);
  NEED(w->head_bias);
  return CLIP4STR_OK;
}

/* The workspace: x and attended [n, T, d], hidden [n, T, F], which holds the queries before (F >= d is not asked). */
typedef struct {
  uint64_t attended, hidden, bytes;
} Layout;

static Layout layout(const clip4str_decoder *w, int32_t n) {
  const uint64_t rows = (uint64_t)n * (uint64_t)w->T * HALF;
  const uint64_t wide = rounded(rows * (uint64_t)(w->F > w->d ? w->F : w->d)), narrow = rounded(rows * (uint64_t)w->d);
  return (Layout){.attended = narrow, .hidden = 2 * narrow, .bytes = 2 * narrow + wide};
}

uint64_t clip4str_decode_pass_workspace(const clip4str_decoder *decoder, int32_t n) {
  if (decoder == NULL || check_decoder(decoder, NULL) != CLIP4STR_OK || n < 0 || n > MOST_WORDS) return 0;
  return layout(decoder, n).bytes;
}

static int prepare_self_attention(const clip4str_kernels *kernels, const clip4str_decode_pass_arguments *a,
                                  Launch *launch, clip4str_message *message) {
  const clip4str_decoder *w = a->decoder;
  Values values = {{0}, {0}};
  SET(values, n, a->n);
  SET(values, steps, w->T);
  SET(values, tokens, w->K);
  SET(values, classes, w->C);
  SET(values, heads, w->heads);
  SET(values, d, w->d);
  SET(values, mode, a->mode);
  SET(values, ids, a->ids);
  SET(values, keep, a->keep);
  SET(values, scores, w->scores);
  SET(values, values, w->values);
  SET(values, base, w->base);
  SET(values, x, a->workspace);
  return prepare(kernels, LAUNCH_self_attention, &values, launch, message);
}

static int prepare_head(const clip4str_kernels *kernels, const clip4str_decode_pass_arguments *a, Launch *launch,
                        clip4str_message *message) {
  const clip4str_decoder *w = a->decoder;
  Values values = {{0}, {0}};
  SET(values, n, a->n);
  SET(values, steps, w->T);
  SET(values, classes, w->C);
  SET(values, d, w->d);
  SET(values, has_before, a->mode == CLIP4STR_MODE_CAUSAL);
  SET(values, has_logits, a->logits != 0);
  SET(values, x, a->workspace);
  SET(values, weight, w->head_weight);
  SET(values, bias, w->head_bias);
  SET(values, before, a->ids);
  SET(values, limit, a->limit);
  SET(values, ids, a->out_ids);
  SET(values, probs, a->probs);
  SET(values, last, a->last);
  SET(values, unsettled, a->unsettled);
  SET(values, logits, a->logits);
  return prepare(kernels, LAUNCH_head, &values, launch, message);
}

static int check_pass(const clip4str_decode_pass_arguments *a, clip4str_message *message) {
  NEED(a->decoder);
  TRY(check_decoder(a->decoder, message));
  WITHIN(a->n, 0, MOST_WORDS);
  WITHIN(a->mode, CLIP4STR_MODE_START, CLIP4STR_MODE_CLOZE);
  if (a->n == 0) return CLIP4STR_OK;
  TRY(check_weights(a->decoder, message));
  TRY(check_memory("a->memory", &a->memory, 1, message));
  TRY(check_memory("a->text", &a->text, 0, message));
  if (a->mode != CLIP4STR_MODE_START) NEED(a->ids);
  if (a->mode == CLIP4STR_MODE_CLOZE) NEED(a->keep);
  NEED(a->limit);
  NEED(a->out_ids);
  NEED(a->probs);
  NEED(a->last);
  NEED(a->unsettled);
  NEED(a->workspace);
  if (a->mode != CLIP4STR_MODE_START && a->ids == a->out_ids)
    return fail(message, CLIP4STR_ERROR_RANGE, "a->out_ids: expected memory other than ids'; the pass compares the two");
  WITHIN(a->workspace_bytes, layout(a->decoder, a->n).bytes, UINT64_MAX);
  return CLIP4STR_OK;
}

int clip4str_decode_pass(const clip4str_kernels *kernels, const clip4str_decode_pass_arguments *arguments,
                         CUstream stream, clip4str_message *message) {
  const clip4str_decode_pass_arguments *a = arguments;
  NEED(kernels);
  NEED(arguments);
  TRY(check_pass(a, message));
  if (a->n == 0) return CLIP4STR_OK;
  const clip4str_decoder *w = a->decoder;
  const Layout place = layout(w, a->n);
  const clip4str_pointer x = a->workspace, attended = x + place.attended, hidden = x + place.hidden;
  const int32_t rows = a->n * w->T;
  const clip4str_cross_attention_arguments attend = {
      .n = a->n, .T = w->T, .d = w->d, .heads = w->heads, .x = x, .memory = a->memory, .text = a->text,
      .query_weight = w->query_weight, .query_bias = w->query_bias};
  const clip4str_linear_arguments out = {.rows = rows, .K = w->d, .F = w->d, .x = attended, .weight = w->out_weight,
                                         .bias = w->out_bias, .residual = x, .out = x};
  const clip4str_linear_arguments up = {.rows = rows, .K = w->d, .F = w->F, .normalize = 1,
                                        .activation = CLIP4STR_ACTIVATION_GELU, .x = x, .weight = w->up_weight,
                                        .bias = w->up_bias, .out = hidden};
  const clip4str_linear_arguments down = {.rows = rows, .K = w->F, .F = w->d, .x = hidden, .weight = w->down_weight,
                                          .bias = w->down_bias, .residual = x, .out = x};
  Launch launches[7];
  int first = 1, count = 0;
  TRY(prepare_self_attention(kernels, a, &launches[0], message));
  TRY(prepare_attend(kernels, &attend, hidden, attended, &launches[first], &count, message));
  count += first;
  TRY(prepare_linear(kernels, &out, &launches[count++], message));
  TRY(prepare_linear(kernels, &up, &launches[count++], message));
  TRY(prepare_linear(kernels, &down, &launches[count++], message));
  TRY(prepare_head(kernels, a, &launches[count++], message));
  return run(kernels, launches, count, stream, message);
}

int clip4str_tokenize(const clip4str_kernels *kernels, const clip4str_tokenize_arguments *arguments, CUstream stream,
                      clip4str_message *message) {
  const clip4str_tokenize_arguments *a = arguments;
  NEED(kernels);
  NEED(arguments);
  WITHIN(a->n, 0, INT32_MAX);
  WITHIN(a->T, 1, SLOTS);
  WITHIN(a->characters_count, 1, MOST_TOKENS);
  WITHIN(a->pairs_bits, 1, MOST_BITS);
  if (a->n == 0) return CLIP4STR_OK;
  NEED(a->ids);
  NEED(a->characters);
  NEED(a->pairs);
  NEED(a->out);
  Values values = {{0}, {0}};
  SET(values, n, a->n);
  SET(values, has_last, a->last != 0);
  SET(values, ids, a->ids);
  SET(values, last, a->last);
  SET(values, characters, a->characters);
  SET(values, pairs, a->pairs);
  SET(values, out, a->out);
  SET(values, row, a->T);
  SET(values, steps, a->T);
  SET(values, classes, a->characters_count);
  SET(values, bits, a->pairs_bits);
  SET(values, start, a->start);
  SET(values, end, a->end);
  Launch launch;
  TRY(prepare(kernels, LAUNCH_tokenize, &values, &launch, message));
  return run(kernels, &launch, 1, stream, message);
}
