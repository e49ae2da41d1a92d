/* A launch: takes values by name, finds the kernel of the table that fits them, launches it. */
#ifndef CLIP4STR_LAUNCH_H
#define CLIP4STR_LAUNCH_H

#include "driver.h"
#include "table.h"

struct clip4str_kernels {
  Driver driver;
  CUmodule *modules;     /* of every table entry; entries that share a cubin share the module */
  CUfunction *functions; /* NULL where the entry is not for this device */
  unsigned first, end;   /* where in the table this device's entries lie */
  int capability;
  int dependent; /* launch kernels that allow it before the one ahead has ended */
};

/* The values of a launch by name; start from zero, only those that were SET count. */
typedef struct {
  int64_t value[VALUE_COUNT];
  uint8_t known[VALUE_COUNT];
} Values;

#define SET(values, name, number) set_value(&(values), VALUE_##name, (int64_t)(number))

static inline void set_value(Values *values, ValueName name, int64_t number) {
  values->value[name] = number;
  values->known[name] = 1;
}

enum { MOST_PARAMETERS = 40 };

/* A launch, ready to run. */
typedef struct {
  const Kernel *kernel;
  CUfunction function;
  unsigned grid[3];
  int64_t numbers[MOST_PARAMETERS]; /* an int32 lies in its slot's first half */
} Launch;

/* Is there a kernel for this device whose conditions hold? */
int exists(const clip4str_kernels *kernels, LaunchName name, const Values *values);

/* Takes the first such kernel, checks and places its parameters. Errors as in clip4str_kernels.h. */
int prepare(const clip4str_kernels *kernels, LaunchName name, const Values *values, Launch *launch,
            clip4str_message *message);

/* Launches one after the other; several are prepared first so that nothing runs where one of them cannot. */
int run(const clip4str_kernels *kernels, Launch *launches, int count, CUstream stream, clip4str_message *message);

const char *launch_text(LaunchName name);

#endif
