/* branches.h - does anything jump into the first bytes of a function?
 *
 * A probe behind a function's first byte counts calls only if nothing jumps to
 * the bytes between.  Short jumps come from nearby, where a disassembler has
 * looked; this finds the far ones, by trying every byte of the code as the
 * begin of one.  A byte that is none rarely points exactly here (about once in
 * 2^32 / span tries), and then the probe merely sits at offset 0.
 *
 * Knows x86-64 encodings only, no symbols and no processes. */

#ifndef MW_BRANCHES_H
#define MW_BRANCHES_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

struct mw_branch {
	uint32_t function; /* index into starts */
	uint32_t offset;   /* in it, 0 < offset < span_bytes */
};

/* Find far relative jumps and calls in [file_offset, file_offset + size_bytes)
 * of fd, one executable segment, that go behind one of count ascending file
 * offsets by less than span_bytes.
 *
 * Return how many were found, of which the first rets_max are in rets; or a
 * negative errno. */
int mw_branches_into(int fd, uint64_t file_offset, uint64_t size_bytes, const uint64_t *starts, uint32_t count,
		     uint32_t span_bytes, struct mw_branch *rets, uint32_t rets_max);

#endif
