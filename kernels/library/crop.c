/* crop_resize, resize and thumbnail: what reads pictures and video frames. */
#include "operators.h"

enum { MOST_FRAME = 32768, MOST_OUTPUT = 2048, MOST_THUMBNAIL = 4096 };

static int check_plane(const char *name, int64_t stride, int64_t row, int64_t rows, clip4str_message *message) {
  if (stride < row || stride * rows > INT32_MAX) /* kernels count in 32 bits */
    return fail(message, CLIP4STR_ERROR_RANGE, "%s: expected a stride from %lld to %lld bytes, got %lld", name,
                (long long)row, (long long)(INT32_MAX / rows), (long long)stride);
  return CLIP4STR_OK;
}

static int check_frame(int32_t frame_height, int32_t frame_width, int nv12, clip4str_message *message) {
  WITHIN(frame_height, 1, MOST_FRAME);
  WITHIN(frame_width, 1, MOST_FRAME);
  if (nv12 && (frame_height % 2 || frame_width % 2))
    return fail(message, CLIP4STR_ERROR_RANGE, "frame: NV12 has even sides, got %d x %d", frame_height, frame_width);
  return CLIP4STR_OK;
}

/* Those that are 0 are filled in. */
static int check_strides(int32_t height, int32_t width, int nv12, int chroma, int64_t *stride, int64_t *chroma_stride,
                         clip4str_message *message) {
  const int64_t row = (int64_t)width * (nv12 ? 1 : 3);
  if (!*stride) *stride = row;
  TRY(check_plane("stride", *stride, row, height, message));
  if (!*chroma_stride || !chroma) *chroma_stride = chroma ? row : 0;
  if (chroma) TRY(check_plane("chroma_stride", *chroma_stride, row, height / 2, message));
  return CLIP4STR_OK;
}

int clip4str_crop_resize(const clip4str_kernels *kernels, const clip4str_crop_resize_arguments *arguments,
                         CUstream stream, clip4str_message *message) {
  const clip4str_crop_resize_arguments *a = arguments;
  NEED(kernels);
  NEED(arguments);
  WITHIN(a->n, 0, MOST_WORDS);
  WITHIN(a->height, 1, MOST_OUTPUT);
  WITHIN(a->width, 1, MOST_OUTPUT);
  WITHIN(a->layout, CLIP4STR_LAYOUT_RGB, CLIP4STR_LAYOUT_NV12);
  WITHIN(a->matrix, CLIP4STR_MATRIX_BT601, CLIP4STR_MATRIX_BT709);
  WITHIN(a->full_range, 0, 1);
  WITHIN(a->normalization, CLIP4STR_NORMALIZATION_HALF, CLIP4STR_NORMALIZATION_CLIP);
  WITHIN(a->out_float32, 0, 1);
  const int nv12 = a->layout == CLIP4STR_LAYOUT_NV12;
  TRY(check_frame(a->frame_height, a->frame_width, nv12, message));
  if (a->n == 0) return CLIP4STR_OK;
  NEED(a->frame);
  if (nv12) NEED(a->chroma);
  NEED(a->quads);
  NEED(a->out);
  int64_t stride = a->stride, chroma_stride = a->chroma_stride;
  TRY(check_strides(a->frame_height, a->frame_width, nv12, nv12, &stride, &chroma_stride, message));
  Values values = {{0}, {0}};
  SET(values, n, a->n);
  SET(values, height, a->height);
  SET(values, width, a->width);
  SET(values, nv12, nv12);
  SET(values, normalization, a->normalization);
  SET(values, out_float32, a->out_float32);
  SET(values, frame, a->frame);
  SET(values, chroma, a->chroma);
  SET(values, quads, a->quads);
  SET(values, out, a->out);
  SET(values, frame_height, a->frame_height);
  SET(values, frame_width, a->frame_width);
  SET(values, stride, stride);
  SET(values, chroma_stride, chroma_stride);
  SET(values, swap, a->layout == CLIP4STR_LAYOUT_BGR ? 2 : 0);
  SET(values, conversion, 2 * a->full_range + a->matrix);
  Launch launch;
  TRY(prepare(kernels, LAUNCH_crop_resize, &values, &launch, message));
  return run(kernels, &launch, 1, stream, message);
}

int clip4str_resize(const clip4str_kernels *kernels, const clip4str_resize_arguments *arguments, CUstream stream,
                    clip4str_message *message) {
  const clip4str_resize_arguments *a = arguments;
  NEED(kernels);
  NEED(arguments);
  WITHIN(a->n, 0, MOST_WORDS);
  WITHIN(a->height, 1, MOST_OUTPUT);
  WITHIN(a->width, 1, MOST_OUTPUT);
  WITHIN(a->normalization, CLIP4STR_NORMALIZATION_HALF, CLIP4STR_NORMALIZATION_CLIP);
  WITHIN(a->out_float32, 0, 1);
  if (a->n == 0) return CLIP4STR_OK;
  NEED(a->pixels);
  NEED(a->pictures);
  NEED(a->out);
  Values values = {{0}, {0}};
  SET(values, n, a->n);
  SET(values, height, a->height);
  SET(values, width, a->width);
  SET(values, normalization, a->normalization);
  SET(values, out_float32, a->out_float32);
  SET(values, pixels, a->pixels);
  SET(values, pictures, a->pictures);
  SET(values, out, a->out);
  Launch launch;
  TRY(prepare(kernels, LAUNCH_resize, &values, &launch, message));
  return run(kernels, &launch, 1, stream, message);
}

int clip4str_thumbnail(const clip4str_kernels *kernels, const clip4str_thumbnail_arguments *arguments, CUstream stream,
                       clip4str_message *message) {
  const clip4str_thumbnail_arguments *a = arguments;
  NEED(kernels);
  NEED(arguments);
  WITHIN(a->layout, CLIP4STR_LAYOUT_RGB, CLIP4STR_LAYOUT_NV12);
  WITHIN(a->matrix, CLIP4STR_MATRIX_BT601, CLIP4STR_MATRIX_BT709);
  WITHIN(a->full_range, 0, 1);
  WITHIN(a->colour, 0, 1);
  const int nv12 = a->layout == CLIP4STR_LAYOUT_NV12, chroma = nv12 && a->colour;
  TRY(check_frame(a->frame_height, a->frame_width, nv12, message));
  WITHIN(a->height, 1, a->frame_height < MOST_THUMBNAIL ? a->frame_height : MOST_THUMBNAIL);
  WITHIN(a->width, 1, a->frame_width < MOST_THUMBNAIL ? a->frame_width : MOST_THUMBNAIL);
  NEED(a->frame);
  if (chroma) NEED(a->chroma);
  NEED(a->out);
  int64_t stride = a->stride, chroma_stride = a->chroma_stride;
  TRY(check_strides(a->frame_height, a->frame_width, nv12, chroma, &stride, &chroma_stride, message));
  Values values = {{0}, {0}};
  SET(values, height, a->height);
  SET(values, width, a->width);
  SET(values, nv12, nv12);
  SET(values, colour, a->colour);
  SET(values, frame, a->frame);
  SET(values, chroma, chroma ? a->chroma : 0);
  SET(values, out, a->out);
  SET(values, frame_height, a->frame_height);
  SET(values, frame_width, a->frame_width);
  SET(values, stride, stride);
  SET(values, chroma_stride, chroma_stride);
  SET(values, swap, a->layout == CLIP4STR_LAYOUT_BGR ? 2 : 0);
  SET(values, conversion, 2 * a->full_range + a->matrix);
  Launch launch;
  TRY(prepare(kernels, LAUNCH_thumbnail, &values, &launch, message));
  return run(kernels, &launch, 1, stream, message);
}
