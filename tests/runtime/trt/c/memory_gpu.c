/* A libcuda whose GPU is the process's memory, for cuda.bindings to load. Work on a stream is done when the stream is
 * synchronised; what is captured is done when its graph is launched and the stream synchronised.
 *
 *   FAKE_CUDA_LOG    file to append every call to, one a line, with its numbers
 *   FAKE_CUDA_FAIL   name=code: that function fails
 *   FAKE_CUDA_COUNT  number of GPUs (1)
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, ILLEGAL = 700, UNSUPPORTED = 900, MOST = 256 };

typedef struct { void *to; const void *from; size_t size; } Copy;
typedef struct { Copy copies[MOST]; int count; int capturing, live; } Queue; /* a stream, a graph, or what is made of one */

static int depth, retained;
static char *made[MOST]; /* device memory, to know it again */

static int called(const char *name, const char *format, ...) {
  const char *log = getenv("FAKE_CUDA_LOG"), *fail = getenv("FAKE_CUDA_FAIL");
  if (log) {
    FILE *file = fopen(log, "a");
    va_list values;
    va_start(values, format);
    fprintf(file, "%s ", name);
    vfprintf(file, format, values);
    va_end(values);
    fprintf(file, "\n");
    fclose(file);
  }
  size_t length = strlen(name);
  if (fail && strncmp(fail, name, length) == 0 && fail[length] == '=') return atoi(fail + length + 1);
  return 0;
}
#define CALLED(...) { int code = called(__func__, __VA_ARGS__); if (code) return code; }
#define IN_CONTEXT if (!depth) return INVALID_CONTEXT;

int cuInit(unsigned flags) { CALLED("%u", flags) return 0; }
int cuDeviceGetCount(int *count) { CALLED("") *count = getenv("FAKE_CUDA_COUNT") ? atoi(getenv("FAKE_CUDA_COUNT")) : 1; return 0; }
int cuDeviceGet(int *device, int index) { CALLED("%d", index) *device = 30 + index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { CALLED("%d", device) snprintf(name, size, "Memory %d", device); return 0; }
int cuDeviceGetAttribute(int *value, int kind, int device) {
  CALLED("%d %d", kind, device)
  if (kind != 75 && kind != 76 && kind != 18) return INVALID_VALUE;
  *value = kind == 75 ? 8 : kind == 76 ? 7 : 1;
  return 0;
}
int cuDeviceComputeCapability(int *major, int *minor, int device) { CALLED("%d", device) *major = 8; *minor = 7; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { CALLED("%d", device) *context = &retained; retained++; return 0; }
int cuDevicePrimaryCtxRelease(int device) { CALLED("%d", device) return retained-- > 0 ? 0 : INVALID_CONTEXT; }
int cuCtxPushCurrent(void *context) { CALLED("") if (context != &retained) return INVALID_CONTEXT; depth++; return 0; }
int cuCtxPopCurrent(void **context) { CALLED("") IN_CONTEXT depth--; *context = &retained; return 0; }
int cuCtxGetCurrent(void **context) { CALLED("") *context = depth ? &retained : NULL; return 0; }
int cuCtxSynchronize(void) { CALLED("") IN_CONTEXT return 0; }
int cuMemGetInfo(size_t *unused, size_t *all) { CALLED("") IN_CONTEXT *unused = 5; *all = 7; return 0; }
int cuMemAlloc(void **address, size_t size) {
  CALLED("%zu", size)
  IN_CONTEXT
  *address = aligned_alloc(256, (size + 255) / 256 * 256);
  for (int i = 0; i < MOST; i++)
    if (!made[i]) { made[i] = *address; break; }
  return 0;
}
int cuMemFree(void *address) {
  CALLED("")
  IN_CONTEXT
  for (int i = 0; i < MOST; i++)
    if (address && made[i] == address) { made[i] = NULL; free(address); return 0; }
  return INVALID_VALUE;
}
int cuMemHostAlloc(void **address, size_t size, unsigned flags) { CALLED("%zu %u", size, flags) IN_CONTEXT *address = calloc(1, size); return 0; }
int cuMemFreeHost(void *address) { CALLED("") IN_CONTEXT free(address); return 0; }
int cuMemHostGetDevicePointer(void **device, void *host, unsigned flags) { CALLED("%u", flags) IN_CONTEXT *device = host; return 0; }
int cuPointerGetAttribute(void *data, int kind, char *address) {
  CALLED("%d", kind)
  IN_CONTEXT
  for (int i = 0; i < MOST; i++)
    if (made[i] && made[i] <= address && address < made[i] + 256 && kind == 9) { *(int *)data = 0; return 0; }
  return INVALID_VALUE;
}
int cuStreamCreate(Queue **stream, unsigned flags) { CALLED("%u", flags) IN_CONTEXT *stream = calloc(1, sizeof(Queue)); (*stream)->live = 1; return 0; }
int cuStreamDestroy(Queue *stream) { CALLED("") IN_CONTEXT if (!stream) return INVALID_HANDLE; free(stream); return 0; }
static int usable(Queue *stream) { return (uintptr_t)stream > 2 && stream->live == 1; }
int cuStreamSynchronize(Queue *stream) {
  CALLED("")
  IN_CONTEXT
  if (!usable(stream)) return INVALID_HANDLE;
  if (stream->capturing) return UNSUPPORTED;
  for (int i = 0; i < stream->count; i++) memcpy(stream->copies[i].to, stream->copies[i].from, stream->copies[i].size);
  stream->count = 0;
  return 0;
}
static int send(Queue *stream, void *to, const void *from, size_t size) {
  IN_CONTEXT
  if (!usable(stream)) return INVALID_HANDLE;
  stream->copies[stream->count++] = (Copy){to, from, size};
  return 0;
}
int cuMemcpyHtoDAsync(void *to, const void *from, size_t size, Queue *stream) { CALLED("%zu", size) return send(stream, to, from, size); }
int cuMemcpyDtoHAsync(void *to, const void *from, size_t size, Queue *stream) { CALLED("%zu", size) return send(stream, to, from, size); }
int cuMemcpyDtoDAsync(void *to, const void *from, size_t size, Queue *stream) { CALLED("%zu", size) return send(stream, to, from, size); }
int cuStreamBeginCapture(Queue *stream, int mode) { CALLED("%d", mode) if (stream->count) return UNSUPPORTED; stream->capturing = 1; return 0; }
int cuStreamEndCapture(Queue *stream, Queue **graph) {
  *graph = NULL;
  stream->capturing = 0;
  CALLED("")
  *graph = malloc(sizeof(Queue));
  **graph = *stream;
  (*graph)->live = 2;
  stream->count = 0;
  return 0;
}
int cuGraphInstantiate(Queue **made_of, Queue *graph, unsigned long long flags) {
  CALLED("%llu", flags)
  if (!graph || graph->live != 2) return INVALID_HANDLE;
  *made_of = malloc(sizeof(Queue));
  **made_of = *graph;
  (*made_of)->live = 3;
  return 0;
}
int cuGraphLaunch(Queue *graph, Queue *stream) {
  CALLED("")
  if (!graph || graph->live != 3) return INVALID_HANDLE;
  for (int i = 0; i < graph->count; i++) send(stream, graph->copies[i].to, graph->copies[i].from, graph->copies[i].size);
  return 0;
}
int cuGraphDestroy(Queue *graph) { CALLED("") if (!graph || graph->live != 2) return INVALID_HANDLE; free(graph); return 0; }
int cuGraphExecDestroy(Queue *graph) { CALLED("") if (!graph || graph->live != 3) return INVALID_HANDLE; free(graph); return 0; }
int cuEventCreate(void **event, unsigned flags) { CALLED("%u", flags) *event = &depth; return 0; }
int cuEventRecord(void *event, void *stream) { CALLED("%lu", (unsigned long)(uintptr_t)stream % 4096 * ((uintptr_t)stream < 4096)) return event == &depth ? 0 : INVALID_HANDLE; }
int cuStreamWaitEvent(Queue *stream, void *event, unsigned flags) { CALLED("%u", flags) return event == &depth && usable(stream) ? 0 : INVALID_HANDLE; }
int cuEventDestroy(void *event) { CALLED("") return event == &depth ? 0 : INVALID_HANDLE; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }

int cuGetErrorString(int code, const char **words) {
  *words = code == OUT_OF_MEMORY ? "out of memory" : code == ILLEGAL ? "an illegal memory access was encountered" : code == NO_DEVICE ? "no CUDA-capable device is detected" : code < 1000 ? "some error" : NULL;
  return *words ? 0 : INVALID_VALUE;
}
int cuGetErrorName(int code, const char **words) { return cuGetErrorString(code, words); }

#define KNOWN(name) {#name, (void *)name}
static const struct { const char *name; void *function; } known[] = {
  KNOWN(cuInit), KNOWN(cuDeviceGetCount), KNOWN(cuDeviceGet), KNOWN(cuDeviceGetName), KNOWN(cuDeviceGetAttribute),
  KNOWN(cuDevicePrimaryCtxRetain), KNOWN(cuDevicePrimaryCtxRelease), KNOWN(cuCtxPushCurrent), KNOWN(cuCtxPopCurrent),
  KNOWN(cuMemGetInfo), KNOWN(cuMemAlloc), KNOWN(cuMemFree), KNOWN(cuMemHostAlloc), KNOWN(cuMemFreeHost),
  KNOWN(cuMemHostGetDevicePointer), KNOWN(cuPointerGetAttribute), KNOWN(cuStreamCreate), KNOWN(cuStreamDestroy),
  KNOWN(cuStreamSynchronize), KNOWN(cuMemcpyHtoDAsync), KNOWN(cuMemcpyDtoHAsync), KNOWN(cuMemcpyDtoDAsync),
  KNOWN(cuStreamBeginCapture), KNOWN(cuStreamEndCapture), {"cuGraphInstantiateWithFlags", (void *)cuGraphInstantiate}, KNOWN(cuGraphLaunch),
  KNOWN(cuGraphDestroy), KNOWN(cuGraphExecDestroy), KNOWN(cuEventCreate), KNOWN(cuEventRecord), KNOWN(cuStreamWaitEvent),
  KNOWN(cuEventDestroy), KNOWN(cuGetErrorString), KNOWN(cuGetErrorName), KNOWN(cuDriverGetVersion),
};

/* How cuda.bindings finds everything. */
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status) {
  *function = NULL;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strcmp(known[i].name, name) == 0) *function = known[i].function;
  if (status) *status = *function ? 0 : 1;
  return *function ? 0 : NOT_FOUND;
}
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
