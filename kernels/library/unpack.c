#include "unpack.h"

#include <string.h>

/* Adds the bytes that continue a count; 0 if the block ends in them. */
static int more(const uint8_t **at, const uint8_t *end, uint64_t *count) {
  uint8_t byte = 255;
  while (byte == 255) {
    if (*at == end) return 0;
    byte = *(*at)++;
    *count += byte;
  }
  return 1;
}

int unpack(const uint8_t *packed, uint64_t packed_size, uint8_t *data, uint64_t size) {
  const uint8_t *at = packed, *end = packed + packed_size;
  uint64_t done = 0;
  while (at < end) {
    const uint8_t token = *at++;
    uint64_t literals = token >> 4, length = token & 15;
    if (literals == 15 && !more(&at, end, &literals)) return 0;
    if (literals > (uint64_t)(end - at) || literals > size - done) return 0;
    memcpy(data + done, at, literals);
    at += literals;
    done += literals;
    if (at == end) break; /* the last sequence has no match */
    if (end - at < 2) return 0;
    const uint64_t distance = at[0] | (uint64_t)at[1] << 8;
    at += 2;
    if (length == 15 && !more(&at, end, &length)) return 0;
    length += 4;
    if (distance == 0 || distance > done || length > size - done) return 0;
    for (uint64_t i = 0; i < length; i++, done++) data[done] = data[done - distance]; /* may overlap */
  }
  return done == size;
}
