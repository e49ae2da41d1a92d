/* The table that kernels/aot.py generates: every embedded cubin and how it is launched. */
#ifndef CLIP4STR_TABLE_H
#define CLIP4STR_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Names that describe launches; names.def has them for C and for the generator. */
typedef enum {
#define VALUE(name) VALUE_##name,
#define LAUNCH(name, text)
#include "names.def"
#undef VALUE
#undef LAUNCH
  VALUE_COUNT
} ValueName;

typedef enum {
#define VALUE(name)
#define LAUNCH(name, text) LAUNCH_##name,
#include "names.def"
#undef VALUE
#undef LAUNCH
  LAUNCH_COUNT
} LaunchName;

typedef struct {
  uint8_t value;
  int32_t least, most; /* inclusive */
} Condition;

typedef struct { /* one factor of the grid along an axis: ceil(value / divisor) */
  uint8_t axis;
  uint8_t value; /* VALUE_COUNT: number stands here */
  int32_t number, divisor;
} Factor;

typedef enum { KIND_POINTER, KIND_INT32, KIND_INT64 } Kind;

typedef struct {
  uint8_t value;
  uint8_t kind;
  uint8_t multiple; /* what it must be a multiple of; pointers: bytes */
} Parameter;

typedef struct {
  uint8_t launch;
  uint8_t hidden;      /* pointers that the compiler adds behind the parameters */
  uint8_t specific;    /* runs on exactly this compute capability */
  uint8_t dependent;    /* waits by itself for the kernel ahead: it may be launched before that has ended */
  uint8_t conditions_count, factors_count, parameters_count;
  uint16_t capability; /* 87 */
  uint16_t warps, registers;
  uint32_t networks;   /* bit per clip4str_networks */
  uint32_t shared;     /* bytes, dynamic */
  uint64_t offset, packed, size; /* in clip4str_cubins: where, bytes; bytes unpacked */
  const char *symbol;
  const Condition *conditions;
  const Factor *factors;
  const Parameter *parameters;
} Kernel;

extern const Kernel clip4str_table[];
extern const unsigned clip4str_table_count;
extern const char *const clip4str_networks[];
extern const unsigned clip4str_networks_count;
extern const char clip4str_architectures[]; /* "80 86 87 89 90a" */
extern const unsigned char clip4str_cubins[], clip4str_cubins_end[]; /* LZ4 blocks */

#endif
