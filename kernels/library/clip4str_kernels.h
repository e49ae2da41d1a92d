/* clip4str's GPU operators without Python: kernels compiled ahead of time, embedded, launched on the caller's stream.
 *
 *     clip4str_kernels *kernels;
 *     clip4str_message message;
 *     if (clip4str_kernels_open(&kernels, "base16", NULL, &message) != CLIP4STR_OK) { puts(message.text); ... }
 *     code = clip4str_decode_pass(kernels, &pass, stream, &message);
 *     clip4str_kernels_close(kernels);
 *
 * Everything is in half precision ("half") unless said otherwise: weights and activations IEEE float16, accumulation
 * float32. Device memory is given as CUdeviceptr, an address in 64 bits; 0 is null. Shapes are row-major, the last
 * dimension dense. Letters: n words, T steps (26), d width, h heads, e = d / h, M image tokens, X text tokens (16 or 0),
 * K tokens (97), C classes (95), F width of the MLP (4 d).
 *
 * Launches return at once and never synchronise, allocate or free: they may be captured in a CUDA graph, after
 * clip4str_kernels_warm. What they
 * read and write must stay valid until the stream has run them. Weights, tables and activations must be aligned to 16
 * bytes, ids and answers to their elements.
 *
 * Threads: a handle is read-only after open, so any number of threads may launch with one, each with the handle's CUDA
 * context current. Opening and closing different handles at once is safe. The library has no global state.
 *
 * Only libcuda is needed, found when a handle is opened.
 */
#ifndef CLIP4STR_KERNELS_H
#define CLIP4STR_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define CLIP4STR_KERNELS_ABI 3 /* changes when a structure or function of this file does */

#if defined(__GNUC__)
#define CLIP4STR_API __attribute__((visibility("default")))
#else
#define CLIP4STR_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  CLIP4STR_OK = 0,
  CLIP4STR_ERROR_NULL = 1,         /* a pointer that must be given is null */
  CLIP4STR_ERROR_RANGE = 2,        /* a size or option is out of range */
  CLIP4STR_ERROR_ALIGNMENT = 3,    /* a pointer or stride is not the multiple it must be */
  CLIP4STR_ERROR_UNSUPPORTED = 4,  /* the library holds no kernel for this size; the message says which numbers */
  CLIP4STR_ERROR_NO_DRIVER = 5,    /* libcuda is not there, is too old, or finds no GPU */
  CLIP4STR_ERROR_NO_CONTEXT = 6,   /* no CUDA context is current on this thread */
  CLIP4STR_ERROR_ARCHITECTURE = 7, /* not built for this GPU; the message names what it was built for */
  CLIP4STR_ERROR_DRIVER = 8,       /* a call of the driver failed; the message quotes it */
  CLIP4STR_ERROR_MEMORY = 9,       /* out of host memory */
  CLIP4STR_ERROR_CORRUPT = 10,     /* an embedded kernel is damaged */
  CLIP4STR_ERROR_INTERNAL = 11     /* a bug in the library: please report it */
} clip4str_error;

/* The driver's types, as cuda.h has them. */
typedef struct CUstream_st *CUstream; /* null: the default stream */
typedef uint64_t clip4str_pointer;    /* CUdeviceptr */

typedef struct {
  char text[256]; /* one line, filled when a function that takes it fails */
} clip4str_message;

typedef struct clip4str_kernels clip4str_kernels;

/* ---- The library itself: no driver needed ---- */

CLIP4STR_API int clip4str_kernels_abi(void);             /* CLIP4STR_KERNELS_ABI it was built with */
CLIP4STR_API const char *clip4str_kernels_version(void); /* clip4str's */
CLIP4STR_API const char *clip4str_error_string(int code);
CLIP4STR_API const char *clip4str_kernels_architectures(void); /* "80 86 87 89 90a ...", "a": that one only */
CLIP4STR_API const char *clip4str_kernels_network(int index);  /* "base16"; null past the last */
CLIP4STR_API int clip4str_kernels_count(void);                 /* kernels embedded */

typedef struct {
  const char *launch;          /* "decode_pass.head" */
  const char *symbol;          /* the function's name in the cubin */
  uint64_t cubin_bytes;
  uint32_t networks;           /* bit i: serves clip4str_kernels_network(i) */
  int32_t capability;          /* 87: compute capability 8.7 */
  int32_t specific;            /* 1: runs on this capability only; 0: also on later ones of the same major number */
  int32_t warps, registers;    /* of 32 threads; per thread */
  int32_t shared_bytes;        /* dynamic shared memory per program */
} clip4str_kernel_info;

/* Kernel number `index`, 0 to count - 1. NULL, RANGE. */
CLIP4STR_API int clip4str_kernels_describe(int index, clip4str_kernel_info *info);

/* Copies its cubin, an ELF file, into a buffer of at least cubin_bytes. NULL, RANGE, CORRUPT. */
CLIP4STR_API int clip4str_kernels_cubin(int index, void *buffer, uint64_t bytes);

/* Is every embedded cubin an ELF file for a GPU with its kernel in the symbol table? CORRUPT. */
CLIP4STR_API int clip4str_kernels_validate(clip4str_message *message);

/* ---- Handles ---- */

/* Loads the kernels for the device of this thread's current CUDA context: those built for its compute capability, else
 * those for the nearest older one of the same major number (not those that are specific to theirs).
 * network: load only what this network needs; null: everything. libcuda: path of the driver's library; null:
 * environment variable CLIP4STR_LIBCUDA, else libcuda.so.1. message may be null.
 * Environment variable CLIP4STR_GPU_OPTIONS=dependent_launch: kernels for 9.0 and newer start while the one ahead of
 * them on the stream still runs, and wait for it by themselves (driver of CUDA 12.3 or newer; else they start after it).
 * NULL, UNSUPPORTED (network), NO_DRIVER, NO_CONTEXT, ARCHITECTURE, DRIVER, MEMORY, CORRUPT; *kernels is null then. */
CLIP4STR_API int clip4str_kernels_open(clip4str_kernels **kernels, const char *network, const char *libcuda,
                                       clip4str_message *message);

/* Finishes loading every kernel of the handle. Drivers load lazily (CUDA_MODULE_LOADING) and may leave some of it to a
 * kernel's first launch, which inside a stream capture is an error or ends the capture: call this once after open where
 * launches are captured that were never made before. Before CUDA 12.4 open has loaded them whole. NULL, DRIVER. */
CLIP4STR_API int clip4str_kernels_warm(const clip4str_kernels *kernels, clip4str_message *message);

/* Unloads. The handle's context must be current and nothing of it still running. null is allowed. */
CLIP4STR_API void clip4str_kernels_close(clip4str_kernels *kernels);

/* The architecture in use (87), 0 for null. */
CLIP4STR_API int clip4str_kernels_capability(const clip4str_kernels *kernels);

/* ---- Operators ----
 * All return NULL, RANGE, ALIGNMENT, UNSUPPORTED or DRIVER on error; message may be null. n = 0 does nothing.
 * Nothing is launched when an argument is refused; if the driver fails in the middle, outputs are undefined. */

enum { CLIP4STR_ACTIVATION_NONE = 0, CLIP4STR_ACTIVATION_GELU = 1, CLIP4STR_ACTIVATION_QUICK_GELU = 2 };

/* out = act(n(x) weight^T + bias) + residual; n(x) = (x - mean) / sqrt(var + 1e-5) over each row, if `normalize`.
 * Sizes and options: those of the networks' decoders (d x d, d x 4d, 4d x d). */
typedef struct {
  int32_t rows, K, F;
  int32_t normalize;  /* 0 or 1 */
  int32_t activation; /* CLIP4STR_ACTIVATION_... */
  clip4str_pointer x;        /* [rows, K] half */
  clip4str_pointer weight;   /* [F, K] half */
  clip4str_pointer bias;     /* [F] half */
  clip4str_pointer residual; /* [rows, F] half, or null; may be out */
  clip4str_pointer out;      /* [rows, F] half; not x */
  int64_t stride_x, stride_residual, stride_out; /* elements from row to row, multiples of 16; 0: dense */
} clip4str_linear_arguments;

CLIP4STR_API int clip4str_linear(const clip4str_kernels *kernels, const clip4str_linear_arguments *arguments,
                                 CUstream stream, clip4str_message *message);

/* Projected keys and values that queries attend to: [n, 2, h, length, e] half (keys, then values), strides in elements,
 * multiples of 8; all 0: dense. */
typedef struct {
  clip4str_pointer data;
  int32_t length; /* M or X; 0: there is none */
  int64_t stride_sample, stride_part, stride_head, stride_row;
} clip4str_memory;

/* y = x + softmax(q K^T) V out_weight^T + out_bias, q = n(x) query_weight^T + query_bias, over both memories under one
 * softmax. LayerNorm's affine part and the scale e^-0.5 are folded into query_weight and query_bias. */
typedef struct {
  int32_t n, T, d, heads; /* T up to 32 */
  clip4str_pointer x;            /* [n, T, d] half */
  clip4str_memory memory, text;  /* M tokens; X tokens, or length 0 */
  clip4str_pointer query_weight; /* [d, d] half */
  clip4str_pointer query_bias;   /* [d] half */
  clip4str_pointer out_weight;   /* [d, d] half */
  clip4str_pointer out_bias;     /* [d] half */
  clip4str_pointer out;          /* [n, T, d] half; may be x */
  clip4str_pointer workspace;
  uint64_t workspace_bytes;      /* at least clip4str_cross_attention_workspace(n, T, d) */
} clip4str_cross_attention_arguments;

CLIP4STR_API uint64_t clip4str_cross_attention_workspace(int32_t n, int32_t T, int32_t d);
CLIP4STR_API int clip4str_cross_attention(const clip4str_kernels *kernels,
                                          const clip4str_cross_attention_arguments *arguments, CUstream stream,
                                          clip4str_message *message);

/* A decoder's weights, as kernels/decode_pass/weights.py packs them. */
typedef struct {
  int32_t T, K, C, d, heads, F;
  clip4str_pointer scores; /* [T, K, h, 32] float32 */
  clip4str_pointer values; /* [T, K, h, d] half */
  clip4str_pointer base;   /* [T, d] float32 */
  clip4str_pointer query_weight, query_bias; /* [d, d], [d] half */
  clip4str_pointer out_weight, out_bias;     /* [d, d], [d] half */
  clip4str_pointer up_weight, up_bias;       /* [F, d], [F] half */
  clip4str_pointer down_weight, down_bias;   /* [d, F], [d] half */
  clip4str_pointer head_weight;              /* [C, d] half */
  clip4str_pointer head_bias;                /* [C] float32 */
} clip4str_decoder;

enum { CLIP4STR_MODE_START = 0, CLIP4STR_MODE_CAUSAL = 1, CLIP4STR_MODE_CLOZE = 2 };

/* One pass of the decoder over every position of n words at once: kernels/decode_pass/api.py says what it computes.
 * Position i sees content j (the start token, then ids): START j = 0 alone; CAUSAL j <= i; CLOZE j != i + 1, j <= keep.
 *
 * Greedy decoding to its fixed point: one START pass, then CAUSAL passes fed with the ids before, until unsettled is 0
 * for every word (T - 1 passes at most): the ids then are those of step-by-step decoding. `last` is the `keep` of a
 * CLOZE pass over this answer and the `limit` of a decoder that may not run longer. */
typedef struct {
  const clip4str_decoder *decoder; /* host memory, read before the function returns */
  int32_t n;
  int32_t mode;                  /* CLIP4STR_MODE_... */
  clip4str_pointer ids;          /* [n, T] int32, any values are safe; null for START; not out_ids */
  clip4str_pointer keep;         /* [n] int32, for CLOZE and null otherwise */
  clip4str_pointer limit;        /* [n] int32: index of the last position that may belong to the word, T - 1 for any */
  clip4str_memory memory, text;
  clip4str_pointer out_ids;      /* [n, T] int32: most likely class, the lowest of equals */
  clip4str_pointer probs;        /* [n, T] float32: its softmax probability */
  clip4str_pointer last;         /* [n] int32: min(first end token or T, limit) */
  clip4str_pointer unsettled;    /* [n] int32: CAUSAL: 1 if a position before `last` differs from ids; else 0 */
  clip4str_pointer logits;       /* [n, T, C] float32, or null */
  clip4str_pointer workspace;
  uint64_t workspace_bytes;      /* at least clip4str_decode_pass_workspace(decoder, n) */
} clip4str_decode_pass_arguments;

/* 0 for null or sizes out of range. */
CLIP4STR_API uint64_t clip4str_decode_pass_workspace(const clip4str_decoder *decoder, int32_t n);
CLIP4STR_API int clip4str_decode_pass(const clip4str_kernels *kernels, const clip4str_decode_pass_arguments *arguments,
                                      CUstream stream, clip4str_message *message);

/* Captions to CLIP's byte-pair tokens. Tables: kernels/tokenize/tables.py. */
typedef struct {
  int32_t n, T;                /* T up to 32 */
  int32_t characters_count;    /* C */
  int32_t pairs_bits;          /* log2(S) */
  int32_t start, end;          /* tokens around every caption */
  clip4str_pointer ids;        /* [n, T] int32, dense */
  clip4str_pointer last;       /* [n] int32: positions from it on are not read; or null */
  clip4str_pointer characters; /* [C] int32 */
  clip4str_pointer pairs;      /* [2, S] int64 */
  clip4str_pointer out;        /* [n, 16] int32 */
} clip4str_tokenize_arguments;

CLIP4STR_API int clip4str_tokenize(const clip4str_kernels *kernels, const clip4str_tokenize_arguments *arguments,
                                   CUstream stream, clip4str_message *message);

/* A draft head's frames to words: repeats merged, then what is no character dropped, cut to T - 1. */
typedef struct {
  int32_t n, frames; /* frames of a word, up to 1024 */
  int32_t T, C;      /* T up to 32; a character is 1 to C - 1 */
  clip4str_pointer ids; /* [n, frames] int32: the character that each frame shows */
  clip4str_pointer out; /* [n, T] int32, zeros behind the word */
} clip4str_collapse_arguments;

CLIP4STR_API int clip4str_collapse(const clip4str_kernels *kernels, const clip4str_collapse_arguments *arguments,
                                   CUstream stream, clip4str_message *message);

enum { CLIP4STR_LAYOUT_RGB = 0, CLIP4STR_LAYOUT_BGR = 1, CLIP4STR_LAYOUT_NV12 = 2 };
enum { CLIP4STR_MATRIX_BT601 = 0, CLIP4STR_MATRIX_BT709 = 1 };
enum { CLIP4STR_NORMALIZATION_HALF = 0, CLIP4STR_NORMALIZATION_CLIP = 1 };

/* n quadrilaterals of a frame, rectified, resized (antialiased bicubic, as Pillow), normalised: the network's input.
 * kernels/crop_resize/api.py says what it computes. The host does not check quads: bad ones give some of
 * the frame's colours. */
typedef struct {
  int32_t n;
  int32_t height, width; /* of the output: the network's input size */
  int32_t layout;        /* CLIP4STR_LAYOUT_... */
  int32_t matrix;        /* CLIP4STR_MATRIX_..., for NV12 */
  int32_t full_range;    /* for NV12: 1 if luma and chroma are 0..255 */
  int32_t normalization; /* CLIP4STR_NORMALIZATION_...: of the bundle's manifest */
  int32_t out_float32;   /* 1: out is float32, 0: half */
  int32_t frame_height, frame_width; /* pixels, 1 to 32768; even for NV12 */
  clip4str_pointer frame;  /* uint8 [frame_height, frame_width, 3], or NV12's luma; any alignment */
  clip4str_pointer chroma; /* uint8 [frame_height / 2, frame_width]: NV12's interleaved U, V; null otherwise */
  int64_t stride, chroma_stride; /* bytes from row to row; frame_height x stride must stay below 2^31; 0: dense */
  clip4str_pointer quads;  /* [n, 4, 2] float32: x, y of top-left, top-right, bottom-right, bottom-left corner */
  clip4str_pointer out;    /* [n, 3, height, width] half or float32 */
} clip4str_crop_resize_arguments;

CLIP4STR_API int clip4str_crop_resize(const clip4str_kernels *kernels, const clip4str_crop_resize_arguments *arguments,
                                      CUstream stream, clip4str_message *message);

/* n pictures, each of its own size, resized (antialiased bicubic, as Pillow), normalised: the network's input.
 * kernels/resize/api.py says what it computes. The host does not check the table. */
typedef struct {
  int32_t n;
  int32_t height, width; /* of the output: the network's input size */
  int32_t normalization; /* CLIP4STR_NORMALIZATION_...: of the bundle's manifest */
  int32_t out_float32;   /* 1: out is float32, 0: half */
  clip4str_pointer pixels;   /* uint8: pictures [h, w, 3] RGB, dense, anywhere in it */
  clip4str_pointer pictures; /* [n, 3] int32: of each its first byte in pixels, height, width; sides 1 to 8192 */
  clip4str_pointer out;      /* [n, 3, height, width] half or float32 */
} clip4str_resize_arguments;

CLIP4STR_API int clip4str_resize(const clip4str_kernels *kernels, const clip4str_resize_arguments *arguments,
                                 CUstream stream, clip4str_message *message);

/* A whole frame, shrunk: each pixel the mean of the area below it. core/thumbnail.py says what it computes. */
typedef struct {
  int32_t height, width; /* of the output; each at most the frame's, and 4096 */
  int32_t layout;        /* CLIP4STR_LAYOUT_... */
  int32_t matrix;        /* CLIP4STR_MATRIX_..., for NV12 in colour */
  int32_t full_range;    /* for NV12 in colour: 1 if luma and chroma are 0..255 */
  int32_t colour;        /* 1: red, green, blue; 0: grey, which is NV12's luma */
  int32_t frame_height, frame_width; /* pixels, 1 to 32768; even for NV12 */
  clip4str_pointer frame, chroma;    /* as of crop_resize; chroma null also for NV12 in grey */
  int64_t stride, chroma_stride;     /* bytes from row to row, 0: dense */
  clip4str_pointer out;  /* uint8 [colour ? 3 : 1, height, width] */
} clip4str_thumbnail_arguments;

CLIP4STR_API int clip4str_thumbnail(const clip4str_kernels *kernels, const clip4str_thumbnail_arguments *arguments,
                                    CUstream stream, clip4str_message *message);

#ifdef __cplusplus
}
#endif
#endif
