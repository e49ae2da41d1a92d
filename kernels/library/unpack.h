#ifndef CLIP4STR_UNPACK_H
#define CLIP4STR_UNPACK_H

#include <stdint.h>

/* One block of LZ4's block format. Returns 1 if it is well-formed and gives exactly `size` bytes, else 0; reads nothing
 * outside `packed` and writes nothing outside `data`, whatever the block holds. */
int unpack(const uint8_t *packed, uint64_t packed_size, uint8_t *data, uint64_t size);

#endif
