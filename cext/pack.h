/* pack.h - a snapshot file, as it is written: chunks in, compressed bytes out to a descriptor.
 *
 * Blocks of the stream are compressed by threads of their own, each to a gzip
 * member, and written in order; members that follow one another are one gzip
 * stream (RFC 1952).  zlib takes longer than finding the objects does, so this
 * is what makes a second core count.  Memory is bounded at creation: whoever
 * puts faster than the disk takes, waits.
 *
 * Knows the frame of a chunk and nothing of what is in it. */

#ifndef MW_PACK_H
#define MW_PACK_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

struct mw_pack;

struct mw_pack_totals {
	uint64_t plain_bytes;
	uint64_t packed_bytes; /* written to the descriptor */
	uint64_t waits_total;  /* a block had to wait for a thread, or for the disk */
};

/* Begin a stream into fd, which stays the caller's; it ends with -EFBIG when
 * more than bytes_max compressed bytes would be written (0: no limit).
 * threads: 1 to 8.  Return 0, -EINVAL, -ENOMEM or -EAGAIN. */
int mw_pack_create(int fd, uint32_t threads, uint64_t bytes_max, struct mw_pack **ret);
void mw_pack_destroy(struct mw_pack *pack);

/* Begin a chunk of a kind (4 characters) and a length: exactly so many bytes follow. */
int mw_pack_begin(struct mw_pack *pack, const char *kind, uint64_t length_bytes);

/* Put bytes; outside of a chunk, too (a file's first bytes are in none).
 * Return 0, or the negative errno that ended the stream, also an earlier one;
 * -EPROTO: more than was announced, or not all of it, by then. */
int mw_pack_put(struct mw_pack *pack, const void *bytes, uint64_t size_bytes);

/* Write what is left and wait for it.  Nothing can be put any more. */
int mw_pack_finish(struct mw_pack *pack);

void mw_pack_get_totals(const struct mw_pack *pack, struct mw_pack_totals *ret);

#endif
