/* outside_rows.c - the second pass: objects, their tables, and the rows of the file.
 *
 * Most tables lie elsewhere than their owners, and a read of another process
 * costs 2 us however small it is.  So the objects of a chunk are taken in
 * groups: first all their tables are listed, then those are read in the order
 * of addresses, neighbours at once, then the rows are made.  Few tables are
 * long; those are read piece by piece, once to count and once to write. */

#include "outside_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	FETCHED_BYTES_MAX = 8 << 20, /* of the tables of one group */
	GAP_BYTES = 2048,	     /* between two tables that are read as one */
	REFERENTS_MAX = 3 << 19,     /* of one chunk of the file */
	SPANS_MAX = MW_ROWS_MAX * 3,
	PIECE_BYTES = 48 * 4096,      /* a whole number of entries of every shape */
	LONG_REFERENTS_MAX = 1 << 27, /* of one object: a chunk has at most 2^30 bytes */
	KEYS_SLACK_BYTES = 256,
};

/* An object of the group in hand. */
struct row {
	struct mw_object object;
	uint64_t address;
	uint64_t count; /* its first word */
	uint32_t first_span, span_count;
};

/* A table that does not lie in the chunk. */
struct wanted {
	uint64_t address, size_bytes;
	uint32_t span;
	uint32_t reserved;
};

struct mw_batch {
	struct row *rows;
	struct mw_span *spans;
	struct wanted *wanted;
	uint8_t *fetched;
	uint64_t fetched_bytes, wanted_bytes;
	uint32_t row_count, span_count, wanted_count;
	/* the columns of the chunk that grows */
	uint64_t *ids, *type_ids, *referents;
	uint32_t *sizes, *counts, *referent_counts;
	uint64_t referent_count;
	uint32_t count;
	uint8_t piece[PIECE_BYTES];
};

static void batch_destroy(struct mw_batch *batch)
{
	if (!batch)
		return;
	free(batch->rows);
	free(batch->spans);
	free(batch->wanted);
	free(batch->fetched);
	free(batch->ids);
	free(batch->type_ids);
	free(batch->referents);
	free(batch->sizes);
	free(batch->counts);
	free(batch->referent_counts);
	free(batch);
}

static struct mw_batch *batch_create(void)
{
	struct mw_batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return NULL;
	batch->rows = malloc(MW_ROWS_MAX * sizeof(*batch->rows));
	batch->spans = malloc((SPANS_MAX + MW_SPANS_MAX) * sizeof(*batch->spans));
	batch->wanted = malloc((SPANS_MAX + MW_SPANS_MAX) * sizeof(*batch->wanted));
	batch->fetched = malloc(FETCHED_BYTES_MAX + 2 * MW_BIG_SPAN_BYTES);
	batch->ids = malloc(MW_ROWS_MAX * sizeof(*batch->ids));
	batch->type_ids = malloc(MW_ROWS_MAX * sizeof(*batch->type_ids));
	batch->referents = malloc((uint64_t)REFERENTS_MAX * sizeof(*batch->referents));
	batch->sizes = malloc(MW_ROWS_MAX * sizeof(*batch->sizes));
	batch->counts = malloc(MW_ROWS_MAX * sizeof(*batch->counts));
	batch->referent_counts = malloc(MW_ROWS_MAX * sizeof(*batch->referent_counts));
	if (!batch->rows || !batch->spans || !batch->wanted || !batch->fetched || !batch->ids || !batch->type_ids ||
	    !batch->referents || !batch->sizes || !batch->counts || !batch->referent_counts) {
		batch_destroy(batch);
		return NULL;
	}
	return batch;
}

/* ---- chunks of the file */

static void put(struct mw_outside *outside, const void *bytes, uint64_t size_bytes)
{
	if (!outside->pack_error)
		outside->pack_error = mw_pack_put(outside->pack, bytes, size_bytes);
}

static void begin(struct mw_outside *outside, const char *kind, uint64_t length_bytes)
{
	if (!outside->pack_error)
		outside->pack_error = mw_pack_begin(outside->pack, kind, length_bytes);
}

static void put_head(struct mw_outside *outside, uint32_t count, uint64_t referent_count)
{
	uint32_t head[2] = {count, 0};

	begin(outside, "OBJS", sizeof(head) + 28ULL * count + 8 * referent_count);
	put(outside, head, sizeof(head));
	outside->totals.objects += count;
	outside->totals.edges += referent_count;
}

static void put_rows(struct mw_outside *outside)
{
	struct mw_batch *batch = outside->batch;

	if (!batch->count)
		return;
	put_head(outside, batch->count, batch->referent_count);
	put(outside, batch->ids, 8ULL * batch->count);
	put(outside, batch->type_ids, 8ULL * batch->count);
	put(outside, batch->sizes, 4ULL * batch->count);
	put(outside, batch->counts, 4ULL * batch->count);
	put(outside, batch->referent_counts, 4ULL * batch->count);
	put(outside, batch->referents, 8 * batch->referent_count);
	batch->count = 0;
	batch->referent_count = 0;
}

/* What the file has of a size; what it does not hold goes into a chunk of its own. */
static uint32_t file_size(struct mw_outside *outside, uint64_t address, uint64_t size_bytes)
{
	uint64_t pair[2] = {address, size_bytes};

	outside->totals.object_bytes += size_bytes;
	if (size_bytes < UINT32_MAX)
		return (uint32_t)size_bytes;
	begin(outside, "BIGS", sizeof(pair));
	put(outside, pair, sizeof(pair));
	return UINT32_MAX;
}

/* The count of references; UINT32_MAX: immortal (PEP 683), or more than anybody counts. */
static uint32_t file_count(const struct mw_outside *outside, uint64_t word)
{
	if (outside->types->layout.minor >= 12)
		return (int32_t)word < 0 ? UINT32_MAX : (uint32_t)word;
	return word < UINT32_MAX ? (uint32_t)word : UINT32_MAX;
}

/* ---- objects with a long table */

/* Walk a span piece by piece.  With put_max COUNT_ONLY nothing is written, else
 * at most so many.  Return how many references there are. */
enum { COUNT_ONLY = -1 };

static uint64_t take_piece(struct mw_outside *outside, const struct mw_span *span, const uint8_t *bytes,
			   uint64_t size_bytes, int64_t *put_max)
{
	/* behind what waits for its chunk: a piece has fewer words than that room */
	uint64_t *found = outside->batch->referents + outside->batch->referent_count;
	uint64_t count = mw_outside_take(outside, span, bytes, size_bytes, found);

	if (*put_max != COUNT_ONLY) {
		uint64_t taken = count < (uint64_t)*put_max ? count : (uint64_t)*put_max;

		put(outside, found, 8 * taken);
		*put_max -= (int64_t)taken;
	}
	return count;
}

static uint64_t walk_chain(struct mw_outside *outside, const struct mw_span *span, int64_t *put_max)
{
	uint8_t *piece = outside->batch->piece;
	uint64_t block = span->address, count = 0;
	uint64_t first = (uint64_t)span->first_offset, left = span->size_bytes / 8, taken;

	for (; left && block; left -= taken, first = 0) {
		uint8_t *items = piece + 8 * (first + 1);

		taken = left < MW_DEQUE_ITEMS - first ? left : MW_DEQUE_ITEMS - first;
		if (mw_regions_read(outside->regions, block, piece, MW_DEQUE_BLOCK_BYTES) != MW_DEQUE_BLOCK_BYTES) {
			outside->totals.edges_dropped_total += *put_max == COUNT_ONLY ? left : 0;
			break;
		}
		block = mw_word(piece + 8 * (MW_DEQUE_ITEMS + 1));
		count += take_piece(outside, span, items, 8 * taken, put_max);
	}
	return count;
}

static uint64_t walk_span(struct mw_outside *outside, const struct mw_span *span, int64_t *put_max)
{
	uint64_t count = 0;

	if (span->shape == MW_SPAN_CHAIN)
		return walk_chain(outside, span, put_max);
	for (uint64_t at = 0; at < span->size_bytes; at += PIECE_BYTES) {
		uint64_t left = span->size_bytes - at, wanted = left < PIECE_BYTES ? left : PIECE_BYTES;
		int64_t got = mw_regions_read(outside->regions, span->address + at, outside->batch->piece, wanted);

		if (got > 0)
			count += take_piece(outside, span, outside->batch->piece, (uint64_t)got, put_max);
		if (got < (int64_t)wanted && *put_max == COUNT_ONLY)
			outside->totals.edges_dropped_total += (wanted - (got > 0 ? (uint64_t)got : 0)) / 8;
	}
	return count;
}

static void put_long(struct mw_outside *outside, const struct row *row, struct mw_span *spans)
{
	static const uint64_t none;
	uint64_t size_bytes = row->object.size_bytes, keys_bytes, count = 0;
	uint64_t type = row->object.type->address;
	uint32_t columns[3];
	int64_t left = COUNT_ONLY;

	if (outside->batch->referent_count + PIECE_BYTES / 8 > REFERENTS_MAX)
		put_rows(outside);
	for (uint32_t i = 0; i < row->span_count; i++) {
		if (spans[i].shape == MW_SPAN_KEYS) {
			int64_t got = mw_regions_read(outside->regions, spans[i].address, outside->batch->piece, 48);

			keys_bytes = 0;
			if (got <= 0 ||
			    !mw_outside_entries(outside, outside->batch->piece, (uint64_t)got, &spans[i], &keys_bytes))
				spans[i].size_bytes = 0;
			size_bytes += keys_bytes;
		}
		count += walk_span(outside, &spans[i], &left);
	}
	if (count > LONG_REFERENTS_MAX) {
		outside->totals.edges_dropped_total += count - LONG_REFERENTS_MAX;
		count = LONG_REFERENTS_MAX;
	}
	columns[0] = file_size(outside, row->address, size_bytes);
	columns[1] = file_count(outside, row->count);
	columns[2] = (uint32_t)count;
	put_head(outside, 1, count);
	put(outside, &row->address, 8);
	put(outside, &type, 8);
	put(outside, columns, sizeof(columns));
	left = (int64_t)count;
	for (uint32_t i = 0; i < row->span_count && left; i++)
		walk_span(outside, &spans[i], &left);
	/* it shrank meanwhile, and so many were announced */
	for (; left; left--)
		put(outside, &none, 8);
	outside->facts[mw_type_index(outside, row->object.type)].written = 1;
}

/* ---- a group */

static int compare_wanted(const void *left, const void *right)
{
	uint64_t a = ((const struct wanted *)left)->address, b = ((const struct wanted *)right)->address;

	return a < b ? -1 : a > b;
}

/* Read what the group needs, neighbours with one read. */
static void fetch(struct mw_outside *outside)
{
	struct mw_batch *batch = outside->batch;

	qsort(batch->wanted, batch->wanted_count, sizeof(*batch->wanted), compare_wanted);
	batch->fetched_bytes = 0;
	for (uint32_t first = 0, end; first < batch->wanted_count; first = end) {
		uint64_t start = batch->wanted[first].address, stop = start + batch->wanted[first].size_bytes;
		uint8_t *place = batch->fetched + batch->fetched_bytes;
		uint64_t room = FETCHED_BYTES_MAX + MW_BIG_SPAN_BYTES - batch->fetched_bytes;
		int64_t got;

		for (end = first + 1; end < batch->wanted_count; end++) {
			const struct wanted *next = &batch->wanted[end];
			uint64_t next_stop = next->address + next->size_bytes;

			if (next->address > stop + GAP_BYTES || next_stop - start > MW_BIG_SPAN_BYTES)
				break;
			stop = next_stop > stop ? next_stop : stop;
		}
		got = stop - start <= room ? mw_regions_read(outside->regions, start, place, stop - start) : -ENOSPC;
		for (uint32_t i = first; i < end; i++) {
			struct mw_span *span = &batch->spans[batch->wanted[i].span];
			uint64_t offset = batch->wanted[i].address - start;

			if (got <= 0 || offset >= (uint64_t)got) {
				outside->totals.edges_dropped_total += span->size_bytes / 8;
				span->size_bytes = 0;
				continue;
			}
			span->bytes = place + offset;
			if (span->size_bytes > (uint64_t)got - offset)
				span->size_bytes = (uint64_t)got - offset;
		}
		if (got > 0)
			batch->fetched_bytes += ((uint64_t)got + 7) & ~7ULL;
	}
}

/* Make entries of a key table that is there.  0: they are not all there. */
static int open_keys(struct mw_outside *outside, struct mw_span *span, uint64_t available, uint64_t *ret_size_bytes)
{
	struct mw_span keys = *span;

	if (!mw_outside_entries(outside, span->bytes, available, &keys, ret_size_bytes)) {
		span->size_bytes = 0;
		return 1;
	}
	if (keys.address + keys.size_bytes > span->address + available)
		return 0;
	keys.bytes = span->bytes + (keys.address - span->address);
	*span = keys;
	return 1;
}

static void add_row(struct mw_outside *outside, const struct row *row, uint64_t size_bytes)
{
	struct mw_batch *batch = outside->batch;
	struct mw_span *spans = batch->spans + row->first_span;
	uint64_t words = 0, before;

	for (uint32_t i = 0; i < row->span_count; i++)
		words += spans[i].size_bytes / 8;
	if (batch->count == MW_ROWS_MAX || batch->referent_count + words > REFERENTS_MAX)
		put_rows(outside);
	before = batch->referent_count;
	for (uint32_t i = 0; i < row->span_count; i++) {
		if (!spans[i].bytes || !spans[i].size_bytes)
			continue;
		batch->referent_count += mw_outside_take(outside, &spans[i], spans[i].bytes, spans[i].size_bytes,
							 batch->referents + batch->referent_count);
		if (spans[i].name_kind != MW_NAME_NONE)
			mw_outside_name_span(outside, row->object.type, row->address, &spans[i]);
	}
	batch->ids[batch->count] = row->address;
	batch->type_ids[batch->count] = row->object.type->address;
	batch->sizes[batch->count] = file_size(outside, row->address, size_bytes);
	batch->counts[batch->count] = file_count(outside, row->count);
	batch->referent_counts[batch->count] = (uint32_t)(batch->referent_count - before);
	batch->count++;
	outside->facts[mw_type_index(outside, row->object.type)].written = 1;
}

static void finish_group(struct mw_outside *outside)
{
	struct mw_batch *batch = outside->batch;

	fetch(outside);
	for (uint32_t i = 0; i < batch->row_count; i++) {
		struct row *row = &batch->rows[i];
		struct mw_span *spans = batch->spans + row->first_span;
		uint64_t keys_bytes = 0;
		int is_whole = 1;

		for (uint32_t s = 0; s < row->span_count && is_whole; s++)
			if (spans[s].shape == MW_SPAN_KEYS && spans[s].bytes && spans[s].size_bytes)
				is_whole = open_keys(outside, &spans[s], spans[s].size_bytes, &keys_bytes);
		if (is_whole)
			add_row(outside, row, row->object.size_bytes + keys_bytes);
		else /* more entries than keys in use: it was larger once */
			put_long(outside, row, spans);
	}
	batch->row_count = batch->span_count = batch->wanted_count = 0;
	batch->wanted_bytes = 0;
}

/* Where the span lies: in the chunk, or to be fetched.  0: too long for either. */
static int place_span(struct mw_outside *outside, const struct mw_chunk *chunk, uint32_t index)
{
	struct mw_batch *batch = outside->batch;
	struct mw_span *span = &batch->spans[index];
	uint64_t limit = chunk->address + chunk->available;

	if (span->shape == MW_SPAN_CHAIN || span->size_bytes > MW_BIG_SPAN_BYTES)
		return 0;
	if (span->address >= chunk->address && span->address < limit) {
		uint64_t available = limit - span->address, more = 4 * span->size_bytes + KEYS_SLACK_BYTES;

		if (span->size_bytes <= available) {
			span->bytes = chunk->bytes + (span->address - chunk->address);
			/* what is at hand anyhow may be looked at: a guess too small costs nothing then */
			if (span->shape == MW_SPAN_KEYS)
				span->size_bytes = more < available ? more : available;
			return 1;
		}
	}
	batch->wanted[batch->wanted_count++] = (struct wanted){
	    .address = span->address,
	    .size_bytes = span->size_bytes,
	    .span = index,
	};
	batch->wanted_bytes += span->size_bytes + GAP_BYTES / 8;
	return 1;
}

static void take_object(struct mw_outside *outside, const struct mw_chunk *chunk, const struct mw_object *object,
			uint64_t place, uint64_t end)
{
	struct mw_batch *batch = outside->batch;
	const uint8_t *here = chunk->bytes + place;
	int has_front = chunk->has_front || place >= 32, is_long = 0;
	uint32_t wanted_count = batch->wanted_count;
	struct row *row = &batch->rows[batch->row_count];

	*row = (struct row){
	    .object = *object,
	    .address = chunk->address + place,
	    .count = mw_word(here),
	    .first_span = batch->span_count,
	};
	row->span_count = mw_outside_spans(outside, object, here, has_front ? here - MW_CHUNK_FRONT_BYTES : NULL,
					   row->address, end, batch->spans + batch->span_count);
	for (uint32_t i = 0; i < row->span_count && !is_long; i++)
		is_long = !place_span(outside, chunk, row->first_span + i);
	if (is_long) {
		batch->wanted_count = wanted_count;
		put_long(outside, row, batch->spans + row->first_span);
		return;
	}
	batch->row_count++;
	batch->span_count += row->span_count;
}

/* The first object that begins at or behind an offset into the leaf. */
static uint64_t next_start(const uint64_t *leaf, uint64_t offset)
{
	uint64_t index = offset >> 4, word = index >> 6;
	uint64_t bits;

	if (word >= MW_LEAF_WORDS)
		return MW_LEAF_BYTES;
	bits = leaf[word] & ~0ULL << (index & 63);
	while (!bits && ++word < MW_LEAF_WORDS)
		bits = leaf[word];
	return bits ? (word * 64 + (uint64_t)__builtin_ctzll(bits)) * 16 : MW_LEAF_BYTES;
}

static int visit_second(void *context, const struct mw_chunk *chunk)
{
	struct mw_outside *outside = context;
	struct mw_batch *batch = outside->batch;
	/* a chunk never crosses a multiple of its own size, which is a leaf's */
	const uint64_t *leaf = mw_starts_leaf(&outside->starts, chunk->address);
	uint64_t base = chunk->address & ~(uint64_t)(MW_LEAF_BYTES - 1), skip = chunk->address - base;
	uint64_t next;

	_Static_assert((int)MW_LEAF_BYTES == (int)MW_CHUNK_BYTES, "a chunk has one leaf");
	if (!leaf)
		return outside->pack_error;
	for (uint64_t at = next_start(leaf, skip); at < skip + chunk->size_bytes; at = next) {
		uint64_t place = at - skip, limit = chunk->mapping->end;
		struct mw_object object;

		next = next_start(leaf, at + 16);
		if (!mw_object_read(outside->types, chunk->bytes + place, chunk->available - place,
				    chunk->has_front || place ? chunk->bytes + place - 16 : NULL, base + at, limit,
				    &object)) {
			outside->totals.vanished_total++;
			continue;
		}
		if (next < MW_LEAF_BYTES)
			limit = base + next;
		take_object(outside, chunk, &object, place, limit);
		if (batch->row_count == MW_ROWS_MAX || batch->span_count >= SPANS_MAX ||
		    batch->wanted_bytes > FETCHED_BYTES_MAX)
			finish_group(outside);
	}
	finish_group(outside);
	return outside->pack_error;
}

int mw_outside_write(struct mw_outside *outside, struct mw_pack *pack, const struct mw_budget *budget)
{
	uint64_t begin_ns = mw_now_ns();
	int rc;

	if (outside->batch || outside->totals.second_pass_ns)
		return -EPROTO;
	outside->batch = batch_create();
	if (!outside->batch)
		return -ENOMEM;
	outside->pack = pack;
	rc = mw_sweep(outside->regions, 0, budget, visit_second, outside, &outside->totals.unread_bytes);
	put_rows(outside);
	if (!outside->pack_error)
		outside->pack_error = mw_outside_flush_names(outside);
	if (!outside->totals.stopped && rc != outside->pack_error)
		outside->totals.stopped = rc;
	if (!outside->totals.stopped && !mw_regions_is_same(outside->regions))
		outside->totals.stopped = -ESRCH;
	batch_destroy(outside->batch);
	outside->batch = NULL;
	outside->totals.second_pass_ns = mw_now_ns() - begin_ns;
	return outside->pack_error;
}

int64_t mw_outside_referents(struct mw_outside *outside, uint64_t address, uint64_t *ret, uint32_t max)
{
	enum { BODY_BYTES = MW_CHUNK_FRONT_BYTES + 4096 };
	const struct mw_mapping *mapping = mw_regions_find(outside->regions, address);
	uint8_t body[BODY_BYTES], table[4096];
	struct mw_span spans[MW_SPANS_MAX];
	struct mw_object object;
	uint64_t ignored, size_bytes;
	int64_t got, count = 0;
	uint32_t span_count;

	if (!mapping || !mw_starts_has(&outside->starts, address))
		return -ENOENT;
	got = mw_regions_read(outside->regions, address - MW_CHUNK_FRONT_BYTES, body, sizeof(body));
	if (got < MW_CHUNK_FRONT_BYTES + 64 ||
	    !mw_object_read(outside->types, body + MW_CHUNK_FRONT_BYTES, (uint64_t)got - MW_CHUNK_FRONT_BYTES, NULL,
			    address, mapping->end, &object))
		return -ENOENT;
	span_count =
	    mw_outside_spans(outside, &object, body + MW_CHUNK_FRONT_BYTES, body, address, mapping->end, spans);
	for (uint32_t i = 0; i < span_count; i++) {
		/* entries of all shapes end with a piece */
		for (uint64_t at = 0, step; at < spans[i].size_bytes && spans[i].shape != MW_SPAN_CHAIN; at += step) {
			uint64_t found[sizeof(table) / 8];
			uint32_t taken;

			step = sizeof(table) / 48 * 48;
			size_bytes = spans[i].size_bytes - at < step ? spans[i].size_bytes - at : step;
			got = mw_regions_read(outside->regions, spans[i].address + at, table, size_bytes);
			if (got <= 0)
				break;
			if (spans[i].shape == MW_SPAN_KEYS) {
				if (!mw_outside_entries(outside, table, (uint64_t)got, &spans[i], &ignored))
					break;
				step = 0;
				continue;
			}
			taken = mw_outside_take(outside, &spans[i], table, (uint64_t)got, found);
			for (uint32_t k = 0; k < taken; k++, count++)
				if (count < max)
					ret[count] = found[k];
		}
	}
	return count;
}
