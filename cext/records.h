/* records.h - process records out of a descriptor, in big reads.
 *
 * Must not know what a record means; a pipe does as well as an iterator. */

#ifndef MW_RECORDS_H
#define MW_RECORDS_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "events.h"

struct mw_reader;

/* A reader with its buffer of 64 KiB; the kernel gives at most 32 KiB a read.
 * NULL if there is no memory. */
struct mw_reader *mw_reader_create(void);
void mw_reader_destroy(struct mw_reader *reader);

/* Start at a descriptor, which stays the caller's. */
void mw_reader_begin(struct mw_reader *reader, int fd);

/* Point ret at the whole records of one more read, valid until the next call.
 * Interrupted reads, and the iterator's wish to be asked again, are repeated a
 * bounded number of times.
 *
 * Return how many, 0 at the end, -EPROTO if the end comes inside a record, or
 * read's error as a negative errno. */
int mw_reader_next(struct mw_reader *reader, const struct mw_process_record **ret);

#endif
