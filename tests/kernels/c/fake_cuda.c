/* A libcuda that has no GPU: it checks what it is given as a driver would and writes every launch to a file.
 *
 *   FAKE_CUDA_CAPABILITY  87 (default 90): what the device claims to be
 *   FAKE_CUDA_LOG         file to append launches to, one a line:
 *                         name grid_x grid_y grid_z block shared stream parameter/bytes...
 *                         at the end " dependent" where it may start before the kernel ahead has ended
 *   FAKE_CUDA_VERSION     12020 (default 13000): of the driver
 *   FAKE_CUDA_FAIL        name of a function that fails, such as cuLaunchKernel
 *   FAKE_CUDA_NO_CONTEXT  there is no current context
 *   FAKE_CUDA_CAPTURING   launches are recorded: one of a function that was never loaded or launched is an error
 *
 * Parameters are read as the cubin says they are laid out (its EIATTR_KPARAM_INFO attributes), not as the library
 * believes, so that a parameter too few, too many or too narrow shows.
 */
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID_VALUE = 1, INVALID_IMAGE = 200, NO_BINARY = 209, NOT_FOUND = 500, INVALIDATED = 901, MOST = 64, KPARAM_INFO = 0x17 };

typedef struct {
  unsigned char *image;
  const char *name;
  int parameters, sizes[MOST];
  int shared, loaded;
} Module;

static int capability(void) {
  const char *text = getenv("FAKE_CUDA_CAPABILITY");
  return text ? atoi(text) : 90;
}

static int fails(const char *function) {
  const char *text = getenv("FAKE_CUDA_FAIL");
  return text && strcmp(text, function) == 0;
}

int cuInit(unsigned flags) { return fails("cuInit") || flags ? INVALID_VALUE : 0; }

int cuCtxGetCurrent(void **context) {
  *context = getenv("FAKE_CUDA_NO_CONTEXT") ? NULL : (void *)&fails;
  return fails("cuCtxGetCurrent") ? INVALID_VALUE : 0;
}

int cuCtxGetDevice(int *device) {
  *device = 3;
  return 0;
}

int cuDeviceGetName(char *name, int size, int device) {
  snprintf(name, (size_t)size, "Stand-in %d", device);
  return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  if (device != 3) return INVALID_VALUE;
  if (attribute == 75) *value = capability() / 10;
  else if (attribute == 76) *value = capability() % 10;
  else if (attribute == 97) *value = (capability() % 10 == 0 && capability() < 120 ? 163 : capability() == 87 ? 163 : 99) * 1024;
  else return INVALID_VALUE;
  if (attribute == 97 && capability() >= 90 && capability() < 120) *value = 227 * 1024;
  return 0;
}

static const Elf64_Shdr *section(const unsigned char *image, unsigned index) {
  const Elf64_Ehdr *header = (const Elf64_Ehdr *)image;
  return (const Elf64_Shdr *)(image + header->e_shoff) + index;
}

/* Where and how large the kernel's parameters are, out of section .nv.info.NAME. */
static void read_parameters(Module *module, const unsigned char *at, const unsigned char *end) {
  while (at + 4 <= end) {
    uint16_t size = (uint16_t)(at[2] | at[3] << 8);
    if (at[0] == 4 && at[1] == KPARAM_INFO) {
      uint16_t ordinal;
      uint32_t packed;
      memcpy(&ordinal, at + 8, sizeof ordinal);
      memcpy(&packed, at + 12, sizeof packed);
      if (ordinal < MOST) module->sizes[ordinal] = (int)(packed >> 18);
      if (ordinal >= module->parameters) module->parameters = ordinal + 1;
    }
    at += at[0] == 4 ? 4 + size : 4;
  }
}

int cuModuleLoadData(void **out, const void *data) {
  if (fails("cuModuleLoadData")) return NO_BINARY;
  const Elf64_Ehdr *header = data;
  if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return INVALID_IMAGE;
  int built = header->e_ident[EI_ABIVERSION] >= 8 ? (header->e_flags >> 8) & 0xff : header->e_flags & 0xff;
  if (built / 10 != capability() / 10 || built > capability()) return NO_BINARY;
  uint64_t size = header->e_shoff + (uint64_t)header->e_shnum * sizeof(Elf64_Shdr);
  for (unsigned i = 0; i < header->e_shnum; i++) {
    const Elf64_Shdr *s = section(data, i);
    if (s->sh_type != SHT_NOBITS && s->sh_offset + s->sh_size > size) size = s->sh_offset + s->sh_size;
  }
  Module *module = calloc(1, sizeof *module);
  module->image = malloc(size); /* the caller may free its copy */
  memcpy(module->image, data, size);
  const char *names = (const char *)module->image + section(module->image, header->e_shstrndx)->sh_offset;
  for (unsigned i = 0; i < header->e_shnum; i++) {
    const Elf64_Shdr *s = section(module->image, i);
    if (strncmp(names + s->sh_name, ".nv.info.", 9) == 0) {
      module->name = names + s->sh_name + 9;
      read_parameters(module, module->image + s->sh_offset, module->image + s->sh_offset + s->sh_size);
    }
  }
  *out = module;
  return 0;
}

int cuModuleUnload(void *module) {
  free(((Module *)module)->image);
  free(module);
  return 0;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
  if (strcmp(((Module *)module)->name, name) != 0) return NOT_FOUND;
  *function = module;
  return 0;
}

int cuFuncSetAttribute(void *function, int attribute, int value) {
  if (attribute != 8) return INVALID_VALUE;
  ((Module *)function)->shared = value;
  return 0;
}

int cuFuncLoad(void *function) {
  if (fails("cuFuncLoad")) return INVALID_VALUE;
  ((Module *)function)->loaded = 1;
  return 0;
}

int cuDriverGetVersion(int *version) {
  const char *text = getenv("FAKE_CUDA_VERSION");
  *version = text ? atoi(text) : 13000;
  return fails("cuDriverGetVersion") ? INVALID_VALUE : 0;
}

static int launch(void *function, unsigned x, unsigned y, unsigned z, unsigned block_x, unsigned block_y,
                  unsigned block_z, unsigned shared, void *stream, void **parameters, void **extra, int dependent) {
  Module *module = function;
  if (getenv("FAKE_CUDA_CAPTURING") && !module->loaded) return INVALIDATED;
  module->loaded = 1;
  if (extra || block_y != 1 || block_z != 1 || !x || !y || !z) return INVALID_VALUE;
  if (shared > 48 * 1024 && (int)shared > module->shared) return INVALID_VALUE; /* was not asked for */
  const char *path = getenv("FAKE_CUDA_LOG");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file == NULL) return 0;
  fprintf(file, "%s %u %u %u %u %u %p", module->name, x, y, z, block_x, shared, stream);
  for (int i = 0; i < module->parameters; i++) {
    uint64_t value = 0;
    memcpy(&value, parameters[i], (size_t)module->sizes[i]);
    fprintf(file, " %llu/%d", (unsigned long long)value, module->sizes[i]);
  }
  fputs(dependent ? " dependent\n" : "\n", file);
  fclose(file);
  return 0;
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void *stream, void **parameters, void **extra) {
  if (fails("cuLaunchKernel")) return INVALID_VALUE;
  return launch(function, x, y, z, block_x, block_y, block_z, shared, stream, parameters, extra, 0);
}

/* As cuda.h declares them; the library has its own declarations. */
typedef struct {
  int id;
  char pad[4];
  union {
    char pad[64];
    int programmaticStreamSerializationAllowed;
  } value;
} Attribute;

typedef struct {
  unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
  void *hStream;
  Attribute *attrs;
  unsigned numAttrs;
} Config;

int cuLaunchKernelEx(const Config *c, void *function, void **parameters, void **extra) {
  if (fails("cuLaunchKernelEx") || c->numAttrs != 1 || c->attrs[0].id != 6) return INVALID_VALUE;
  return launch(function, c->gridDimX, c->gridDimY, c->gridDimZ, c->blockDimX, c->blockDimY, c->blockDimZ,
                c->sharedMemBytes, c->hStream, parameters, extra,
                c->attrs[0].value.programmaticStreamSerializationAllowed);
}

int cuGetErrorString(int code, const char **text) {
  *text = code == NO_BINARY     ? "no kernel image is available"
          : code == INVALIDATED ? "operation failed due to a previous error during capture"
                                : "invalid argument";
  return 0;
}
