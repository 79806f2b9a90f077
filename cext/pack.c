#include "pack.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum {
	BLOCK_BYTES = 1 << 19, /* zlib looks back 32 KiB: what a member loses at its start is little */
	THREADS_MAX = 8,
	SLOTS_PER_THREAD = 2,
	SLOTS_MAX = THREADS_MAX * SLOTS_PER_THREAD + 1,
	GZIP_WINDOW = 15 + 16, /* with gzip's header and checksum */
	LEVEL = 1,
};

/* A block's way: filled by the caller, packed by any thread, written in its turn. */
struct slot {
	uint8_t *plain, *packed;
	uint64_t plain_bytes;
	enum { FREE, FULL, TAKEN } state;
};

struct mw_pack {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t threads[THREADS_MAX];
	struct slot slots[SLOTS_MAX];
	uint64_t filled, taken, written; /* how many blocks so far; slot: modulo slot_count */
	uint64_t packed_room;
	uint64_t left_bytes; /* of the chunk that was begun */
	uint64_t bytes_max;
	struct mw_pack_totals totals;
	uint32_t thread_count, slot_count;
	int fd;
	int error;  /* the first one; nothing is written after it */
	int ending; /* no more blocks will come */
};

static int write_all(int fd, const uint8_t *bytes, uint64_t size_bytes)
{
	while (size_bytes) {
		ssize_t done = write(fd, bytes, size_bytes);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		bytes += done;
		size_bytes -= (uint64_t)done;
	}
	return 0;
}

/* Compress a slot to a member of its own. */
static int pack_slot(z_stream *stream, struct slot *slot, uint64_t room, uint64_t *ret_bytes)
{
	if (deflateReset(stream) != Z_OK)
		return -EIO;
	stream->next_in = slot->plain;
	stream->avail_in = (uInt)slot->plain_bytes;
	stream->next_out = slot->packed;
	stream->avail_out = (uInt)room;
	if (deflate(stream, Z_FINISH) != Z_STREAM_END)
		return -EIO;
	*ret_bytes = room - stream->avail_out;
	return 0;
}

static void *work(void *context)
{
	struct mw_pack *pack = context;
	z_stream stream = {0};
	int rc = deflateInit2(&stream, LEVEL, Z_DEFLATED, GZIP_WINDOW, 9, Z_DEFAULT_STRATEGY) == Z_OK ? 0 : -ENOMEM;

	pthread_mutex_lock(&pack->lock);
	for (;;) {
		struct slot *slot;
		uint64_t turn, bytes = 0;

		while (pack->taken == pack->filled && !pack->ending)
			pthread_cond_wait(&pack->changed, &pack->lock);
		if (pack->taken == pack->filled)
			break;
		turn = pack->taken++;
		slot = &pack->slots[turn % pack->slot_count];
		slot->state = TAKEN;
		pthread_mutex_unlock(&pack->lock);
		if (!rc)
			rc = pack_slot(&stream, slot, pack->packed_room, &bytes);
		pthread_mutex_lock(&pack->lock);
		while (pack->written != turn)
			pthread_cond_wait(&pack->changed, &pack->lock);
		if (!pack->error && !rc && pack->bytes_max && pack->totals.packed_bytes + bytes > pack->bytes_max)
			pack->error = -EFBIG;
		if (!pack->error && rc)
			pack->error = rc;
		if (!pack->error) {
			/* nobody else writes: it is our turn until written says otherwise */
			pthread_mutex_unlock(&pack->lock);
			rc = write_all(pack->fd, slot->packed, bytes);
			pthread_mutex_lock(&pack->lock);
			pack->error = rc;
			pack->totals.packed_bytes += rc ? 0 : bytes;
		}
		slot->state = FREE;
		pack->written++;
		pthread_cond_broadcast(&pack->changed);
	}
	pthread_mutex_unlock(&pack->lock);
	deflateEnd(&stream);
	return NULL;
}

int mw_pack_create(int fd, uint32_t threads, uint64_t bytes_max, struct mw_pack **ret)
{
	struct mw_pack *pack;
	int rc = 0;

	if (!threads || threads > THREADS_MAX)
		return -EINVAL;
	pack = calloc(1, sizeof(*pack));
	if (!pack)
		return -ENOMEM;
	pthread_mutex_init(&pack->lock, NULL);
	pthread_cond_init(&pack->changed, NULL);
	pack->fd = fd;
	pack->bytes_max = bytes_max;
	pack->slot_count = threads * SLOTS_PER_THREAD + 1;
	pack->packed_room = compressBound(BLOCK_BYTES) + 64; /* and gzip's own */
	for (uint32_t i = 0; i < pack->slot_count; i++) {
		pack->slots[i].plain = malloc(BLOCK_BYTES);
		pack->slots[i].packed = malloc(pack->packed_room);
		if (!pack->slots[i].plain || !pack->slots[i].packed)
			rc = -ENOMEM;
	}
	for (; !rc && pack->thread_count < threads; pack->thread_count++) {
		rc = -pthread_create(&pack->threads[pack->thread_count], NULL, work, pack);
		if (rc)
			break;
	}
	if (rc) {
		mw_pack_destroy(pack);
		return rc;
	}
	*ret = pack;
	return 0;
}

static void join(struct mw_pack *pack)
{
	pthread_mutex_lock(&pack->lock);
	pack->ending = 1;
	pthread_cond_broadcast(&pack->changed);
	pthread_mutex_unlock(&pack->lock);
	while (pack->thread_count)
		pthread_join(pack->threads[--pack->thread_count], NULL);
}

void mw_pack_destroy(struct mw_pack *pack)
{
	if (!pack)
		return;
	join(pack);
	for (uint32_t i = 0; i < pack->slot_count; i++) {
		free(pack->slots[i].plain);
		free(pack->slots[i].packed);
	}
	pthread_cond_destroy(&pack->changed);
	pthread_mutex_destroy(&pack->lock);
	free(pack);
}

/* Hand the block in hand over, and wait until the next one is free. */
static int next_block(struct mw_pack *pack)
{
	int error, waited = 0;

	pthread_mutex_lock(&pack->lock);
	pack->slots[pack->filled % pack->slot_count].state = FULL;
	pack->filled++;
	pthread_cond_broadcast(&pack->changed);
	while (pack->slots[pack->filled % pack->slot_count].state != FREE) {
		waited = 1;
		pthread_cond_wait(&pack->changed, &pack->lock);
	}
	pack->totals.waits_total += (uint64_t)waited;
	error = pack->error;
	pthread_mutex_unlock(&pack->lock);
	pack->slots[pack->filled % pack->slot_count].plain_bytes = 0;
	return error;
}

static int put(struct mw_pack *pack, const void *bytes, uint64_t size_bytes)
{
	const uint8_t *from = bytes;
	int rc = 0;

	pack->totals.plain_bytes += size_bytes;
	while (size_bytes && !rc) {
		struct slot *slot = &pack->slots[pack->filled % pack->slot_count];
		uint64_t room = BLOCK_BYTES - slot->plain_bytes, taken = size_bytes < room ? size_bytes : room;

		memcpy(slot->plain + slot->plain_bytes, from, taken);
		slot->plain_bytes += taken;
		from += taken;
		size_bytes -= taken;
		if (slot->plain_bytes == BLOCK_BYTES)
			rc = next_block(pack);
	}
	return rc;
}

int mw_pack_begin(struct mw_pack *pack, const char *kind, uint64_t length_bytes)
{
	uint8_t frame[12];

	if (pack->left_bytes || pack->ending)
		return -EPROTO;
	memcpy(frame, kind, 4);
	memcpy(frame + 4, &length_bytes, 8); /* the file is little-endian, and so are we */
	pack->left_bytes = sizeof(frame) + length_bytes;
	return mw_pack_put(pack, frame, sizeof(frame));
}

int mw_pack_put(struct mw_pack *pack, const void *bytes, uint64_t size_bytes)
{
	if (pack->ending || (pack->left_bytes && size_bytes > pack->left_bytes))
		return -EPROTO;
	if (pack->left_bytes)
		pack->left_bytes -= size_bytes;
	return put(pack, bytes, size_bytes);
}

int mw_pack_finish(struct mw_pack *pack)
{
	if (pack->left_bytes || pack->ending)
		return -EPROTO;
	if (pack->slots[pack->filled % pack->slot_count].plain_bytes)
		next_block(pack);
	join(pack);
	return pack->error;
}

void mw_pack_get_totals(const struct mw_pack *pack, struct mw_pack_totals *ret)
{
	*ret = pack->totals;
}
