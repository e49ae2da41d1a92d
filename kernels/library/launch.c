#include "launch.h"

#include <stdio.h>
#include <string.h>

enum { MOST_GRID_YZ = 65535 };

static const char *const value_texts[] = {
#define VALUE(name) #name,
#define LAUNCH(name, text)
#include "names.def"
#undef VALUE
#undef LAUNCH
};

static const char *const launch_texts[] = {
#define VALUE(name)
#define LAUNCH(name, text) text,
#include "names.def"
#undef VALUE
#undef LAUNCH
};

const char *launch_text(LaunchName name) { return launch_texts[name]; }

static int holds(const Kernel *kernel, const Values *values) {
  for (int i = 0; i < kernel->conditions_count; i++) {
    const Condition *c = &kernel->conditions[i];
    if (!values->known[c->value] || values->value[c->value] < c->least || values->value[c->value] > c->most) return 0;
  }
  return 1;
}

static const Kernel *choose(const clip4str_kernels *kernels, LaunchName name, const Values *values) {
  for (unsigned i = kernels->first; i < kernels->end; i++)
    if (clip4str_table[i].launch == name && kernels->functions[i] != NULL && holds(&clip4str_table[i], values))
      return &clip4str_table[i];
  return NULL;
}

int exists(const clip4str_kernels *kernels, LaunchName name, const Values *values) {
  return choose(kernels, name, values) != NULL;
}

/* "linear.linear has no kernel for rows=7 d=511": which numbers, of those that some kernel asks for. */
static int none_fits(const clip4str_kernels *kernels, LaunchName name, const Values *values,
                     clip4str_message *message) {
  uint8_t asked[VALUE_COUNT] = {0};
  for (unsigned i = 0; i < clip4str_table_count; i++)
    for (int j = 0; j < clip4str_table[i].conditions_count; j++)
      if (clip4str_table[i].launch == name) asked[clip4str_table[i].conditions[j].value] = 1;
  char numbers[160] = "";
  size_t used = 0;
  for (int v = 0; v < VALUE_COUNT && used < sizeof numbers; v++)
    if (asked[v] && values->known[v])
      used += (size_t)snprintf(numbers + used, sizeof numbers - used, " %s=%lld", value_texts[v],
                               (long long)values->value[v]);
  return fail(message, CLIP4STR_ERROR_UNSUPPORTED, "%s: the library holds no kernel for%s on compute capability %d.%d",
              launch_texts[name], numbers, kernels->capability / 10, kernels->capability % 10);
}

static int grid_of(const Kernel *kernel, const Values *values, unsigned grid[3]) {
  uint64_t sizes[3] = {1, 1, 1};
  for (int i = 0; i < kernel->factors_count; i++) {
    const Factor *f = &kernel->factors[i];
    if (f->value != VALUE_COUNT && !values->known[f->value]) return 0;
    int64_t number = f->value == VALUE_COUNT ? f->number : values->value[f->value];
    if (number < 0 || number > INT32_MAX) return 0;
    sizes[f->axis] *= (uint64_t)((number + f->divisor - 1) / f->divisor);
    if (sizes[f->axis] > (f->axis == 0 ? INT32_MAX : MOST_GRID_YZ)) return 0;
  }
  for (int axis = 0; axis < 3; axis++) grid[axis] = (unsigned)sizes[axis];
  return 1;
}

/* Checks one parameter and puts it into its slot. */
static int place(const Parameter *p, const Values *values, const char *text, int64_t *slot,
                 clip4str_message *message) {
  const char *name = value_texts[p->value];
  int64_t number = values->value[p->value];
  if (!values->known[p->value]) return fail(message, CLIP4STR_ERROR_INTERNAL, "%s: nobody gave %s", text, name);
  if (number % p->multiple != 0)
    return fail(message, CLIP4STR_ERROR_ALIGNMENT, "%s: %s must be a multiple of %d%s, got %lld", text, name,
                p->multiple, p->kind == KIND_POINTER ? " bytes" : "", (long long)number);
  if (p->kind == KIND_INT32) {
    int32_t narrow = (int32_t)number;
    if (narrow != number)
      return fail(message, CLIP4STR_ERROR_RANGE, "%s: %s = %lld does not fit 32 bits", text, name, (long long)number);
    memcpy(slot, &narrow, sizeof narrow);
  } else {
    *slot = number;
  }
  return CLIP4STR_OK;
}

int prepare(const clip4str_kernels *kernels, LaunchName name, const Values *values, Launch *launch,
            clip4str_message *message) {
  const char *text = launch_texts[name];
  const Kernel *kernel = choose(kernels, name, values);
  if (kernel == NULL) return none_fits(kernels, name, values, message);
  if (kernel->parameters_count + kernel->hidden > MOST_PARAMETERS)
    return fail(message, CLIP4STR_ERROR_INTERNAL, "%s has too many parameters", text);
  memset(launch, 0, sizeof *launch); /* the hidden parameters are null */
  launch->kernel = kernel;
  launch->function = kernels->functions[kernel - clip4str_table];
  for (int i = 0; i < kernel->parameters_count; i++) {
    int code = place(&kernel->parameters[i], values, text, &launch->numbers[i], message);
    if (code != CLIP4STR_OK) return code;
  }
  if (!grid_of(kernel, values, launch->grid))
    return fail(message, CLIP4STR_ERROR_RANGE, "%s: the grid is out of range", text);
  return CLIP4STR_OK;
}

/* One launch; a dependent one may start before the kernel ahead of it has ended, and waits by itself. */
static CUresult start(const clip4str_kernels *kernels, const Launch *l, CUstream stream, void **parameters) {
  const Driver *driver = &kernels->driver;
  const unsigned threads = 32u * l->kernel->warps, shared = l->kernel->shared;
  if (!kernels->dependent || !l->kernel->dependent || driver->LaunchKernelEx == NULL)
    return driver->LaunchKernel(l->function, l->grid[0], l->grid[1], l->grid[2], threads, 1, 1, shared, stream,
                                parameters, NULL);
  CUlaunchAttribute early = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, .value = {.number = 1}};
  const CUlaunchConfig config = {.grid_x = l->grid[0], .grid_y = l->grid[1], .grid_z = l->grid[2],
                                 .block_x = threads, .block_y = 1, .block_z = 1, .shared = shared,
                                 .stream = stream, .attributes = &early, .attributes_count = 1};
  return driver->LaunchKernelEx(&config, l->function, parameters, NULL);
}

int run(const clip4str_kernels *kernels, Launch *launches, int count, CUstream stream, clip4str_message *message) {
  for (int i = 0; i < count; i++) {
    Launch *l = &launches[i];
    void *parameters[MOST_PARAMETERS];
    for (int j = 0; j < MOST_PARAMETERS; j++) parameters[j] = &l->numbers[j];
    int code = driver_check(&kernels->driver, start(kernels, l, stream, parameters), launch_texts[l->kernel->launch], message);
    if (code != CLIP4STR_OK) return code;
  }
  return CLIP4STR_OK;
}
