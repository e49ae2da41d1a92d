#include "driver.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Since glibc 2.34 these are in libc.so.6, under a new version. The old one is in every glibc, so that the library loads
   on systems older than the one that it was linked on. */
#if defined __GLIBC__ && defined __x86_64__
#define OLD(name) __asm__(".symver " #name "," #name "@GLIBC_2.2.5")
#elif defined __GLIBC__ && defined __aarch64__
#define OLD(name) __asm__(".symver " #name "," #name "@GLIBC_2.17")
#endif
#ifdef OLD
OLD(dlopen);
OLD(dlsym);
OLD(dlclose);
OLD(dlerror);
#endif

int fail(clip4str_message *message, int code, const char *format, ...) {
  if (message != NULL) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message->text, sizeof message->text, format, arguments);
    va_end(arguments);
  }
  return code;
}

static int find(void *library, const char *name, void *pointer) {
  void *found = dlsym(library, name);
  memcpy(pointer, &found, sizeof found); /* ISO C has no cast from object to function pointers */
  return found != NULL;
}

enum { DEPENDENT_DRIVER = 12030 }; /* the first that captures dependent launches in graphs */

static void find_dependent_launch(Driver *driver) {
  CUresult (*version_of)(int *version) = NULL;
  int version = 0;
  if (!find(driver->library, "cuDriverGetVersion", &version_of) || version_of(&version) != 0) return;
  if (version >= DEPENDENT_DRIVER) find(driver->library, "cuLaunchKernelEx", &driver->LaunchKernelEx);
}

int driver_open(Driver *driver, const char *path, clip4str_message *message) {
  memset(driver, 0, sizeof *driver);
  if (path == NULL) path = getenv("CLIP4STR_LIBCUDA");
  if (path == NULL || *path == '\0') path = "libcuda.so.1";
  driver->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (driver->library == NULL) return fail(message, CLIP4STR_ERROR_NO_DRIVER, "no NVIDIA driver here: %s", dlerror());
#define FIND(member, name)                                                                               \
  if (!find(driver->library, name, &driver->member)) {                                                   \
    driver_close(driver);                                                                                \
    return fail(message, CLIP4STR_ERROR_NO_DRIVER, "%s has no %s; is the driver too old?", path, name); \
  }
  FIND(Init, "cuInit")
  FIND(CtxGetCurrent, "cuCtxGetCurrent")
  FIND(CtxGetDevice, "cuCtxGetDevice")
  FIND(DeviceGetAttribute, "cuDeviceGetAttribute")
  FIND(DeviceGetName, "cuDeviceGetName")
  FIND(ModuleLoadData, "cuModuleLoadData")
  FIND(ModuleUnload, "cuModuleUnload")
  FIND(ModuleGetFunction, "cuModuleGetFunction")
  FIND(FuncSetAttribute, "cuFuncSetAttribute")
  FIND(LaunchKernel, "cuLaunchKernel")
  FIND(GetErrorString, "cuGetErrorString")
#undef FIND
  find(driver->library, "cuFuncLoad", &driver->FuncLoad);
  find_dependent_launch(driver);
  CUresult result = driver->Init(0);
  if (result != 0) {
    int code = driver_check(driver, result, "cuInit", message);
    driver_close(driver);
    return code == CLIP4STR_ERROR_DRIVER ? CLIP4STR_ERROR_NO_DRIVER : code;
  }
  return CLIP4STR_OK;
}

void driver_close(Driver *driver) {
  if (driver->library != NULL) dlclose(driver->library);
  memset(driver, 0, sizeof *driver);
}

int driver_check(const Driver *driver, CUresult result, const char *what, clip4str_message *message) {
  if (result == 0) return CLIP4STR_OK;
  const char *text = NULL;
  if (driver->GetErrorString(result, &text) != 0 || text == NULL) text = "unknown error";
  return fail(message, CLIP4STR_ERROR_DRIVER, "%s: %s (CUDA error %d)", what, text, result);
}
