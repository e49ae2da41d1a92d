/* Links the library, looks every symbol and every cubin up, and asks for clean errors.
 *
 *     test_library            where there may be no driver
 *     test_library FAKE_CUDA  with the path of the stand-in: opens handles on it and launches
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clip4str_kernels.h"

static int failures;

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) {                                                     \
      failures++;                                                           \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
    }                                                                       \
  } while (0)

static void check_table(void) {
  int count = clip4str_kernels_count();
  clip4str_message message = {""};
  CHECK(count > 0);
  CHECK(clip4str_kernels_abi() == CLIP4STR_KERNELS_ABI);
  CHECK(strlen(clip4str_kernels_version()) > 0);
  CHECK(clip4str_kernels_network(0) != NULL && clip4str_kernels_network(-1) == NULL);
  CHECK(clip4str_kernels_validate(&message) == CLIP4STR_OK);
  if (message.text[0]) fprintf(stderr, "%s\n", message.text);
  for (int i = 0; i < count; i++) {
    clip4str_kernel_info info;
    char architecture[16];
    CHECK(clip4str_kernels_describe(i, &info) == CLIP4STR_OK);
    snprintf(architecture, sizeof architecture, "%d", info.capability);
    CHECK(strstr(clip4str_kernels_architectures(), architecture) != NULL);
    CHECK(info.warps > 0 && info.warps <= 32 && info.registers > 0 && info.registers <= 255);
    CHECK(info.networks != 0 && info.launch[0] && info.symbol[0]);
    unsigned char *cubin = malloc(info.cubin_bytes);
    CHECK(clip4str_kernels_cubin(i, cubin, info.cubin_bytes) == CLIP4STR_OK);
    CHECK(memcmp(cubin, "\177ELF", 4) == 0);
    CHECK(clip4str_kernels_cubin(i, cubin, info.cubin_bytes - 1) == CLIP4STR_ERROR_RANGE);
    free(cubin);
  }
  clip4str_kernel_info info;
  CHECK(clip4str_kernels_describe(count, &info) == CLIP4STR_ERROR_RANGE);
  CHECK(clip4str_kernels_describe(0, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_kernels_cubin(-1, &info, 1) == CLIP4STR_ERROR_RANGE);
  printf("%d kernels for %s\n", count, clip4str_kernels_architectures());
}

static void check_no_driver(void) {
  clip4str_kernels *kernels = (clip4str_kernels *)&failures;
  clip4str_message message = {""};
  CHECK(clip4str_kernels_open(&kernels, NULL, "/nowhere/libcuda.so", &message) == CLIP4STR_ERROR_NO_DRIVER);
  CHECK(kernels == NULL && strstr(message.text, "/nowhere/libcuda.so") != NULL);
  CHECK(clip4str_kernels_open(&kernels, NULL, "libm.so.6", &message) == CLIP4STR_ERROR_NO_DRIVER);
  CHECK(strstr(message.text, "cuInit") != NULL);
  CHECK(clip4str_kernels_open(NULL, NULL, NULL, &message) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_kernels_open(&kernels, "no such network", NULL, NULL) == CLIP4STR_ERROR_UNSUPPORTED);
  int code = clip4str_kernels_open(&kernels, NULL, NULL, &message); /* whatever this machine has */
  CHECK(code == CLIP4STR_OK || (kernels == NULL && message.text[0]));
  printf("driver of this machine: %s\n", code == CLIP4STR_OK ? "loaded" : message.text);
  clip4str_kernels_close(kernels);
  clip4str_kernels_close(NULL);
  for (int i = 0; i <= 12; i++) CHECK(strlen(clip4str_error_string(i)) > 0);
}

/* Every operator refuses null before it touches anything, with or without a message. */
static void check_null(const clip4str_kernels *kernels) {
  clip4str_linear_arguments linear = {.rows = 1, .K = 1, .F = 1};
  clip4str_cross_attention_arguments attention = {.n = 1, .T = 1, .d = 8, .heads = 1, .memory = {.length = 0}};
  clip4str_decode_pass_arguments pass = {.n = 1};
  clip4str_crop_resize_arguments crop = {.n = 1, .height = 1, .width = 1, .frame_height = 1, .frame_width = 1};
  clip4str_resize_arguments resize = {.n = 1, .height = 1, .width = 1};
  clip4str_tokenize_arguments tokenize = {.n = 1, .T = 1, .characters_count = 1, .pairs_bits = 1};
  CHECK(clip4str_linear(NULL, &linear, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_cross_attention(NULL, &attention, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_decode_pass(NULL, &pass, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_crop_resize(NULL, &crop, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_resize(NULL, &resize, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_tokenize(NULL, &tokenize, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_decode_pass_workspace(NULL, 1) == 0);
  CHECK(clip4str_cross_attention_workspace(-1, 26, 512) == 0);
  clip4str_collapse_arguments collapse = {.n = 1, .frames = 1, .T = 1, .C = 2};
  CHECK(clip4str_collapse(NULL, &collapse, NULL, NULL) == CLIP4STR_ERROR_NULL);
  if (kernels == NULL) return;
  CHECK(clip4str_collapse(kernels, NULL, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_collapse(kernels, &collapse, NULL, NULL) == CLIP4STR_ERROR_NULL);
  collapse.n = 0;
  CHECK(clip4str_collapse(kernels, &collapse, NULL, NULL) == CLIP4STR_OK);
  CHECK(clip4str_linear(kernels, NULL, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_linear(kernels, &linear, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_cross_attention(kernels, &attention, NULL, NULL) == CLIP4STR_ERROR_RANGE);
  CHECK(clip4str_decode_pass(kernels, &pass, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_crop_resize(kernels, &crop, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_resize(kernels, &resize, NULL, NULL) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_tokenize(kernels, &tokenize, NULL, NULL) == CLIP4STR_ERROR_NULL);
  tokenize.n = -1;
  CHECK(clip4str_tokenize(kernels, &tokenize, NULL, NULL) == CLIP4STR_ERROR_RANGE);
  tokenize.n = 0;
  CHECK(clip4str_tokenize(kernels, &tokenize, NULL, NULL) == CLIP4STR_OK);
}

static void *tokenize_often(void *kernels) {
  const clip4str_tokenize_arguments a = {.n = 7, .T = 26, .characters_count = 95, .pairs_bits = 12, .ids = 4096,
                                         .characters = 8192, .pairs = 16384, .out = 32768};
  clip4str_message message;
  long wrong = 0;
  for (int i = 0; i < 1000; i++) wrong += clip4str_tokenize(kernels, &a, NULL, &message) != CLIP4STR_OK;
  return (void *)wrong;
}

static void check_on(const char *driver) {
  clip4str_kernels *kernels = NULL;
  clip4str_message message = {""};
  char capability[16];
  int newest = 0;
  for (int i = 0; i < clip4str_kernels_count(); i++) {
    clip4str_kernel_info info;
    clip4str_kernels_describe(i, &info);
    if (info.capability > newest) newest = info.capability;
  }
  snprintf(capability, sizeof capability, "%d", newest);
  setenv("FAKE_CUDA_CAPABILITY", capability, 1);
  CHECK(clip4str_kernels_open(&kernels, NULL, driver, &message) == CLIP4STR_OK);
  CHECK(clip4str_kernels_warm(NULL, &message) == CLIP4STR_ERROR_NULL);
  CHECK(clip4str_kernels_warm(kernels, &message) == CLIP4STR_OK);
  if (kernels == NULL) {
    fprintf(stderr, "%s\n", message.text);
    return;
  }
  CHECK(clip4str_kernels_capability(kernels) == newest);
  check_null(kernels);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, tokenize_often, kernels) == 0);
  for (int i = 0; i < 4; i++) {
    void *wrong = NULL;
    pthread_join(threads[i], &wrong);
    CHECK(wrong == NULL);
  }
  clip4str_kernels_close(kernels);
  setenv("FAKE_CUDA_CAPABILITY", "75", 1);
  CHECK(clip4str_kernels_open(&kernels, NULL, driver, &message) == CLIP4STR_ERROR_ARCHITECTURE);
  CHECK(strstr(message.text, clip4str_kernels_architectures()) != NULL && strstr(message.text, "7.5") != NULL);
  setenv("FAKE_CUDA_NO_CONTEXT", "1", 1);
  CHECK(clip4str_kernels_open(&kernels, NULL, driver, &message) == CLIP4STR_ERROR_NO_CONTEXT);
}

int main(int argc, char **argv) {
  check_table();
  check_no_driver();
  check_null(NULL);
  if (argc > 1) check_on(argv[1]);
  if (failures) fprintf(stderr, "%d checks failed\n", failures);
  return failures != 0;
}
