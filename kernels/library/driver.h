/* The part of CUDA's driver interface that is used, declared here so that no CUDA header is needed. */
#ifndef CLIP4STR_DRIVER_H
#define CLIP4STR_DRIVER_H

#include "clip4str_kernels.h"

typedef int CUresult; /* 0 is success */
typedef int CUdevice;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;

enum {
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
  CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
  CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6,
};

typedef struct {
  int id;
  char pad[4];
  union {
    char bytes[64];
    int number;
  } value;
} CUlaunchAttribute;

typedef struct {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared;
  CUstream stream;
  CUlaunchAttribute *attributes;
  unsigned attributes_count;
} CUlaunchConfig;

typedef struct {
  void *library;
  CUresult (*Init)(unsigned flags);
  CUresult (*CtxGetCurrent)(CUcontext *context);
  CUresult (*CtxGetDevice)(CUdevice *device);
  CUresult (*DeviceGetAttribute)(int *value, int attribute, CUdevice device);
  CUresult (*DeviceGetName)(char *name, int size, CUdevice device);
  CUresult (*ModuleLoadData)(CUmodule *module, const void *image);
  CUresult (*ModuleUnload)(CUmodule module);
  CUresult (*ModuleGetFunction)(CUfunction *function, CUmodule module, const char *name);
  CUresult (*FuncSetAttribute)(CUfunction function, int attribute, int value);
  CUresult (*FuncLoad)(CUfunction function); /* null before CUDA 12.4 */
  CUresult (*LaunchKernel)(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                           unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **parameters,
                           void **extra);
  CUresult (*LaunchKernelEx)(const CUlaunchConfig *config, CUfunction function, void **parameters,
                             void **extra);        /* null where the driver is too old for dependent launches */
  CUresult (*GetErrorString)(CUresult code, const char **text);
} Driver;

/* path: NULL for $CLIP4STR_LIBCUDA, else libcuda.so.1. Fills the message on failure. */
int driver_open(Driver *driver, const char *path, clip4str_message *message);
void driver_close(Driver *driver);

/* CLIP4STR_OK, or CLIP4STR_ERROR_DRIVER with "what: the driver's own words" as the message. */
int driver_check(const Driver *driver, CUresult result, const char *what, clip4str_message *message);

/* Writes the message (where there is one) and returns the code. */
int fail(clip4str_message *message, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
