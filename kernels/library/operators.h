/* Shared by operators: argument checks, and launches that several of them make. */
#ifndef CLIP4STR_OPERATORS_H
#define CLIP4STR_OPERATORS_H

#include "launch.h"

enum { MOST_WORDS = 65535, MOST_STEPS = 32, MOST_WIDTH = 8192, HALF = 2 };

/* Return from the calling function with an error where the condition fails. `code` and `message` must be in scope. */
#define TRY(call)                                \
  do {                                           \
    int code_ = (call);                          \
    if (code_ != CLIP4STR_OK) return code_;      \
  } while (0)

#define NEED(pointer)                                                                           \
  do {                                                                                          \
    if (!(pointer)) return fail(message, CLIP4STR_ERROR_NULL, "%s: expected a pointer, got null", #pointer); \
  } while (0)

#define WITHIN(value, least, most)                                                                             \
  do {                                                                                                         \
    if ((value) < (least) || (value) > (most))                                                                 \
      return fail(message, CLIP4STR_ERROR_RANGE, "%s: supported are %lld to %lld, got %lld", #value,           \
                  (long long)(least), (long long)(most), (long long)(value));                                  \
  } while (0)

/* 256-byte steps, as allocators give them. */
static inline uint64_t rounded(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

/* Prepares one linear, as clip4str_linear does; sizes have been checked. */
int prepare_linear(const clip4str_kernels *kernels, const clip4str_linear_arguments *a, Launch *launch,
                   clip4str_message *message);

/* The cross-attention block without its output projection (a prepare_linear). `a` has been checked. Prepares one
 * launch, or two (the first writes the queries into `queries`, [n, T, d] half); *count is their number. */
int prepare_attend(const clip4str_kernels *kernels, const clip4str_cross_attention_arguments *a,
                   clip4str_pointer queries, clip4str_pointer attended, Launch *launches, int *count,
                   clip4str_message *message);

/* Sizes and pointers of the memories. */
int check_memory(const char *name, const clip4str_memory *memory, int needed, clip4str_message *message);

#endif
