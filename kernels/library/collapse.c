/* collapse. */
#include "operators.h"

enum { MOST_FRAMES = 1024, MOST_CHARACTERS = 65536 };

int clip4str_collapse(const clip4str_kernels *kernels, const clip4str_collapse_arguments *arguments, CUstream stream,
                      clip4str_message *message) {
  const clip4str_collapse_arguments *a = arguments;
  NEED(kernels);
  NEED(arguments);
  WITHIN(a->n, 0, INT32_MAX);
  WITHIN(a->frames, 1, MOST_FRAMES);
  WITHIN(a->T, 1, MOST_STEPS);
  WITHIN(a->C, 1, MOST_CHARACTERS);
  if (a->n == 0) return CLIP4STR_OK;
  NEED(a->ids);
  NEED(a->out);
  Values values = {{0}, {0}};
  SET(values, n, a->n);
  SET(values, frames, a->frames);
  SET(values, classes, a->C);
  SET(values, steps, a->T);
  SET(values, ids, a->ids);
  SET(values, out, a->out);
  Launch launch;
  TRY(prepare(kernels, LAUNCH_collapse, &values, &launch, message));
  return run(kernels, &launch, 1, stream, message);
}
