/* records.c - see records.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "records.h"

enum {
	RECORD_BYTES = sizeof(struct mw_process_record),
	RECORDS = 65536 / RECORD_BYTES,
	/* An iterator says EAGAIN after a million objects without output, a
	 * signal EINTR; more than this in a row is no progress any more. */
	ATTEMPTS = 1000,
};

struct mw_reader {
	struct mw_process_record records[RECORDS];
	size_t bytes; /* in records, from the last read and the rest before it */
	size_t taken; /* of these, handed out already */
	int fd;
};

struct mw_reader *mw_reader_create(void)
{
	return calloc(1, sizeof(struct mw_reader));
}

void mw_reader_destroy(struct mw_reader *reader)
{
	free(reader);
}

void mw_reader_begin(struct mw_reader *reader, int fd)
{
	reader->fd = fd;
	reader->bytes = 0;
	reader->taken = 0;
}

int mw_reader_next(struct mw_reader *reader, const struct mw_process_record **ret)
{
	char *bytes = (char *)reader->records;
	int attempts = 0;

	reader->bytes -= reader->taken;
	memmove(bytes, bytes + reader->taken, reader->bytes);
	reader->taken = 0;
	while (reader->bytes < RECORD_BYTES) {
		ssize_t count = read(reader->fd, bytes + reader->bytes, sizeof(reader->records) - reader->bytes);

		if (count == 0)
			return reader->bytes ? -EPROTO : 0;
		if (count < 0 && ((errno != EINTR && errno != EAGAIN) || ++attempts == ATTEMPTS))
			return -errno;
		if (count > 0)
			reader->bytes += (size_t)count;
	}
	reader->taken = reader->bytes / RECORD_BYTES * RECORD_BYTES;
	*ret = reader->records;
	return (int)(reader->taken / RECORD_BYTES);
}
