#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch.h"
#include "unpack.h"

#ifndef CLIP4STR_VERSION
#define CLIP4STR_VERSION "unknown"
#endif

int clip4str_kernels_abi(void) { return CLIP4STR_KERNELS_ABI; }
const char *clip4str_kernels_version(void) { return CLIP4STR_VERSION; }
const char *clip4str_kernels_architectures(void) { return clip4str_architectures; }
int clip4str_kernels_count(void) { return (int)clip4str_table_count; }

const char *clip4str_kernels_network(int index) {
  return index >= 0 && index < (int)clip4str_networks_count ? clip4str_networks[index] : NULL;
}

const char *clip4str_error_string(int code) {
  switch (code) {
    case CLIP4STR_OK: return "success";
    case CLIP4STR_ERROR_NULL: return "a pointer that must be given is null";
    case CLIP4STR_ERROR_RANGE: return "a size or option is out of range";
    case CLIP4STR_ERROR_ALIGNMENT: return "a pointer or stride is not a multiple of 16";
    case CLIP4STR_ERROR_UNSUPPORTED: return "the library holds no kernel for this size";
    case CLIP4STR_ERROR_NO_DRIVER: return "no NVIDIA driver or no usable GPU here";
    case CLIP4STR_ERROR_NO_CONTEXT: return "no CUDA context is current on this thread";
    case CLIP4STR_ERROR_ARCHITECTURE: return "the library was not built for this GPU's architecture";
    case CLIP4STR_ERROR_DRIVER: return "a call of the CUDA driver failed";
    case CLIP4STR_ERROR_MEMORY: return "out of host memory";
    case CLIP4STR_ERROR_CORRUPT: return "an embedded kernel is damaged";
    case CLIP4STR_ERROR_INTERNAL: return "internal error of the library";
    default: return "unknown error code";
  }
}

int clip4str_kernels_describe(int index, clip4str_kernel_info *info) {
  if (info == NULL) return CLIP4STR_ERROR_NULL;
  if (index < 0 || index >= (int)clip4str_table_count) return CLIP4STR_ERROR_RANGE;
  const Kernel *k = &clip4str_table[index];
  *info = (clip4str_kernel_info){.launch = launch_text((LaunchName)k->launch),
                                 .symbol = k->symbol,
                                 .cubin_bytes = k->size,
                                 .networks = k->networks,
                                 .capability = k->capability,
                                 .specific = k->specific,
                                 .warps = k->warps,
                                 .registers = k->registers,
                                 .shared_bytes = (int32_t)k->shared};
  return CLIP4STR_OK;
}

/* Does an ELF file of `size` bytes hold a function of this name? Trusts no offset in it. */
static int has_function(const unsigned char *image, uint64_t size, const char *symbol) {
  Elf64_Ehdr header;
  if (size < sizeof header) return 0;
  memcpy(&header, image, sizeof header);
  if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64) return 0;
  if (header.e_machine != EM_CUDA || header.e_shentsize != sizeof(Elf64_Shdr)) return 0;
  if (header.e_shoff > size || (uint64_t)header.e_shnum * sizeof(Elf64_Shdr) > size - header.e_shoff) return 0;
  const unsigned char *sections = image + header.e_shoff;
  for (unsigned i = 0; i < header.e_shnum; i++) {
    Elf64_Shdr table, names;
    memcpy(&table, sections + i * sizeof table, sizeof table);
    if (table.sh_type != SHT_SYMTAB || table.sh_link >= header.e_shnum) continue;
    memcpy(&names, sections + table.sh_link * sizeof names, sizeof names);
    if (table.sh_offset > size || table.sh_size > size - table.sh_offset) return 0;
    if (names.sh_offset > size || names.sh_size > size - names.sh_offset || names.sh_size == 0) return 0;
    const char *text = (const char *)image + names.sh_offset;
    if (text[names.sh_size - 1] != '\0') return 0;
    for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= table.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym entry;
      memcpy(&entry, image + table.sh_offset + at, sizeof entry);
      if (ELF64_ST_TYPE(entry.st_info) == STT_FUNC && entry.st_name < names.sh_size && entry.st_size > 0 &&
          strcmp(text + entry.st_name, symbol) == 0)
        return 1;
    }
  }
  return 0;
}

int clip4str_kernels_cubin(int index, void *buffer, uint64_t bytes) {
  if (buffer == NULL) return CLIP4STR_ERROR_NULL;
  if (index < 0 || index >= (int)clip4str_table_count) return CLIP4STR_ERROR_RANGE;
  const Kernel *k = &clip4str_table[index];
  const uint64_t total = (uint64_t)(clip4str_cubins_end - clip4str_cubins);
  if (bytes < k->size) return CLIP4STR_ERROR_RANGE;
  if (k->offset > total || k->packed > total - k->offset) return CLIP4STR_ERROR_CORRUPT;
  return unpack(clip4str_cubins + k->offset, k->packed, buffer, k->size) ? CLIP4STR_OK : CLIP4STR_ERROR_CORRUPT;
}

/* A buffer for the largest cubin. */
static void *cubin_buffer(void) {
  uint64_t largest = 1;
  for (unsigned i = 0; i < clip4str_table_count; i++)
    if (clip4str_table[i].size > largest) largest = clip4str_table[i].size;
  return malloc(largest);
}

int clip4str_kernels_validate(clip4str_message *message) {
  unsigned char *image = cubin_buffer();
  if (image == NULL) return fail(message, CLIP4STR_ERROR_MEMORY, "out of host memory");
  int code = CLIP4STR_OK;
  for (unsigned i = 0; i < clip4str_table_count && code == CLIP4STR_OK; i++) {
    const Kernel *k = &clip4str_table[i];
    code = clip4str_kernels_cubin((int)i, image, k->size);
    if (code != CLIP4STR_OK || !has_function(image, k->size, k->symbol))
      code = fail(message, CLIP4STR_ERROR_CORRUPT, "kernel %u (%s for compute capability %d.%d) is no cubin with %s", i,
                  launch_text((LaunchName)k->launch), k->capability / 10, k->capability % 10, k->symbol);
  }
  free(image);
  return code;
}

/* The architecture to take for a device: its own, else the nearest older one of its generation, else 0. */
static int architecture_for(int device) {
  int best = 0;
  for (unsigned i = 0; i < clip4str_table_count; i++) {
    int built = clip4str_table[i].capability;
    int runs = built == device || (!clip4str_table[i].specific && built / 10 == device / 10 && built < device);
    if (runs && built > best) best = built;
  }
  return best;
}

static int device_attributes(const Driver *d, int *capability, int *shared, char *name, clip4str_message *message) {
  CUcontext context = NULL;
  CUdevice device = 0;
  int major = 0, minor = 0;
  CUresult result = d->CtxGetCurrent(&context);
  if (result != 0) return driver_check(d, result, "cuCtxGetCurrent", message);
  if (context == NULL)
    return fail(message, CLIP4STR_ERROR_NO_CONTEXT, "no CUDA context is current on this thread; make one first");
  if ((result = d->CtxGetDevice(&device)) != 0 || (result = d->DeviceGetName(name, 64, device)) != 0 ||
      (result = d->DeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)) != 0 ||
      (result = d->DeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)) != 0 ||
      (result = d->DeviceGetAttribute(shared, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, device)) != 0)
    return driver_check(d, result, "reading the GPU's properties", message);
  *capability = 10 * major + minor;
  return CLIP4STR_OK;
}

/* Loads the entry's cubin unless an earlier entry has, and looks its function up. */
static int load(clip4str_kernels *kernels, unsigned index, void *image, clip4str_message *message) {
  const Kernel *k = &clip4str_table[index];
  const Driver *d = &kernels->driver;
  for (unsigned i = 0; i < index; i++) /* aot.py writes entries that share a cubin with the same offset */
    if (clip4str_table[i].offset == k->offset && kernels->functions[i] != NULL) {
      kernels->functions[index] = kernels->functions[i];
      return CLIP4STR_OK;
    }
  const char *text = launch_text((LaunchName)k->launch);
  if (clip4str_kernels_cubin((int)index, image, k->size) != CLIP4STR_OK)
    return fail(message, CLIP4STR_ERROR_CORRUPT, "%s: its embedded cubin is damaged", text);
  CUresult result = d->ModuleLoadData(&kernels->modules[index], image);
  if (result != 0) return driver_check(d, result, text, message);
  result = d->ModuleGetFunction(&kernels->functions[index], kernels->modules[index], k->symbol);
  if (result == 0 && k->shared > 48 * 1024) /* more than the default must be asked for */
    result = d->FuncSetAttribute(kernels->functions[index], CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                 (int)k->shared);
  return driver_check(d, result, text, message);
}

static int open_device(clip4str_kernels *kernels, uint32_t networks, clip4str_message *message) {
  int device = 0, shared = 0;
  char name[65] = "";
  int code = device_attributes(&kernels->driver, &device, &shared, name, message);
  if (code != CLIP4STR_OK) return code;
  kernels->capability = architecture_for(device);
  if (kernels->capability == 0)
    return fail(message, CLIP4STR_ERROR_ARCHITECTURE, "%s has compute capability %d.%d, the library was built for: %s",
                name, device / 10, device % 10, clip4str_architectures);
  void *image = cubin_buffer();
  if (image == NULL) return fail(message, CLIP4STR_ERROR_MEMORY, "out of host memory");
  for (unsigned i = 0; i < clip4str_table_count && code == CLIP4STR_OK; i++) {
    const Kernel *k = &clip4str_table[i];
    if (k->capability == kernels->capability && (k->networks & networks) && (int64_t)k->shared <= shared)
      code = load(kernels, i, image, message);
    if (kernels->functions[i] != NULL) {
      if (kernels->end == 0) kernels->first = i;
      kernels->end = i + 1;
    }
  }
  free(image);
  return code;
}

/* Is a name among the comma-separated ones of $CLIP4STR_GPU_OPTIONS? The last mention counts, "-name" is off. */
static int option(const char *name) {
  const char *at = getenv("CLIP4STR_GPU_OPTIONS");
  int on = 0;
  while (at != NULL && *at != '\0') {
    at += strspn(at, ", ");
    const size_t length = strcspn(at, ", ");
    const size_t off = *at == '-';
    if (length == off + strlen(name) && strncmp(at + off, name, strlen(name)) == 0) on = !off;
    at += length;
  }
  return on;
}

int clip4str_kernels_open(clip4str_kernels **out, const char *network, const char *libcuda, clip4str_message *message) {
  if (out == NULL) return fail(message, CLIP4STR_ERROR_NULL, "out: expected a place for the handle, got null");
  *out = NULL;
  uint32_t networks = network == NULL ? ~(uint32_t)0 : 0;
  for (unsigned i = 0; network != NULL && i < clip4str_networks_count; i++)
    if (strcmp(network, clip4str_networks[i]) == 0) networks = (uint32_t)1 << i;
  if (networks == 0) return fail(message, CLIP4STR_ERROR_UNSUPPORTED, "the library was not built for network %.64s", network);
  clip4str_kernels *kernels = calloc(1, sizeof *kernels);
  CUmodule *modules = calloc(clip4str_table_count + 1, sizeof *modules);
  CUfunction *functions = calloc(clip4str_table_count + 1, sizeof *functions);
  if (kernels == NULL || modules == NULL || functions == NULL) {
    free(kernels), free(modules), free(functions);
    return fail(message, CLIP4STR_ERROR_MEMORY, "out of host memory");
  }
  kernels->modules = modules, kernels->functions = functions;
  kernels->dependent = option("dependent_launch");
  int code = driver_open(&kernels->driver, libcuda, message);
  if (code == CLIP4STR_OK) code = open_device(kernels, networks, message);
  if (code != CLIP4STR_OK) {
    clip4str_kernels_close(kernels);
    return code;
  }
  *out = kernels;
  return CLIP4STR_OK;
}

int clip4str_kernels_warm(const clip4str_kernels *kernels, clip4str_message *message) {
  if (kernels == NULL) return fail(message, CLIP4STR_ERROR_NULL, "kernels: expected a handle, got null");
  const Driver *d = &kernels->driver;
  for (unsigned i = kernels->first; i < kernels->end && d->FuncLoad != NULL; i++) {
    if (kernels->functions[i] == NULL) continue;
    int code = driver_check(d, d->FuncLoad(kernels->functions[i]), launch_text((LaunchName)clip4str_table[i].launch), message);
    if (code != CLIP4STR_OK) return code;
  }
  return CLIP4STR_OK;
}

void clip4str_kernels_close(clip4str_kernels *kernels) {
  if (kernels == NULL) return;
  for (unsigned i = 0; i < clip4str_table_count; i++)
    if (kernels->modules[i] != NULL) kernels->driver.ModuleUnload(kernels->modules[i]);
  driver_close(&kernels->driver);
  free(kernels->modules), free(kernels->functions), free(kernels);
}

int clip4str_kernels_capability(const clip4str_kernels *kernels) { return kernels == NULL ? 0 : kernels->capability; }
