#include "holders.h"
#include "pylabel.h"
#include "references.h"
#include "sweep.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	TABLES_MAX = 1 << 20,  /* 24 bytes each, grown as needed */
	TABLE_BYTES_MIN = 512, /* smaller ones lie in pymalloc's pools and are found from there */
	DICT_USED_MIN = 6,     /* fewer entries cannot fill a table larger than that */
	LOOK_BACK_BYTES = 4096,
	SMALL_TABLES_MAX = 4096,
	PREFIX_WORDS = 5, /* of a values array of 3.11 and 3.12, in front of what is pointed to */
};

/* ---- the first pass: samples and large tables */

static int add_table(struct mw_holders *holders, uint64_t start, uint64_t bytes, enum table_kind kind, uint64_t owner)
{
	struct table *grown;

	if (!start || bytes >> 48 || (bytes <= TABLE_BYTES_MIN && !holders->all_tables))
		return 0;
	if (holders->table_count == TABLES_MAX) {
		holders->totals.tables_untracked_total++;
		return 0;
	}
	if (holders->table_count == holders->tables_capacity) {
		holders->tables_capacity = holders->tables_capacity ? holders->tables_capacity * 2 : 1024;
		grown = realloc(holders->tables, holders->tables_capacity * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		holders->tables = grown;
	}
	holders->tables[holders->table_count++] = (struct table){start, owner, bytes << 8 | kind};
	return 0;
}

static void take_sample(struct mw_holders *holders, uint64_t address)
{
	uint64_t place = holders->wanted_objects++;

	if (holders->sample_count < holders->sample_limit) {
		holders->samples[holders->sample_count++] = address;
		return;
	}
	/* each object seen so far stays with the same chance */
	holders->random ^= holders->random << 13;
	holders->random ^= holders->random >> 7;
	holders->random ^= holders->random << 17;
	place = holders->random % (place + 1);
	if (place < holders->sample_limit)
		holders->samples[place] = address;
}

static int take_tables(struct mw_holders *holders, const uint8_t *here, uint64_t address,
		       const struct mw_object *object)
{
	int rc = 0;

	switch (object->type->kind) {
	case MW_TYPE_LIST:
		return add_table(holders, object->buffer, object->buffer_bytes, TABLE_LIST, address);
	case MW_TYPE_SET:
		return add_table(holders, object->buffer, object->buffer_bytes, TABLE_SET, address);
	case MW_TYPE_DEQUE:
		return add_table(holders, object->buffer, MW_DEQUE_BLOCK_WORDS * 8, TABLE_DEQUE, address);
	case MW_TYPE_TUPLE:
		if (object->inline_bytes > LOOK_BACK_BYTES)
			return add_table(holders, address, object->inline_bytes, TABLE_TUPLE, address);
		return 0;
	case MW_TYPE_DICT:
		/* How large the table is, its own header says when it is hit. */
		if (mw_word(here + 16) < DICT_USED_MIN && !holders->all_tables)
			return 0;
		rc = add_table(holders, object->keys, TABLE_BYTES_MIN + 1, TABLE_KEYS, address);
		if (!rc && object->values)
			rc = add_table(holders, object->values, 8 * mw_word(here + 16), TABLE_VALUES, address);
		return rc;
	default:
		return 0;
	}
}

static int visit_first(void *context, const struct mw_chunk *chunk)
{
	struct mw_holders *holders = context;
	const struct mw_python_layout *layout = &holders->types->layout;

	if (holders->mapping != chunk->mapping) {
		holders->mapping = chunk->mapping;
		holders->skip_until = 0;
	}
	for (uint64_t i = 0; i < chunk->size_bytes; i += 16) {
		const uint8_t *here = chunk->bytes + i;
		uint64_t address = chunk->address + i;
		struct mw_object object;
		struct mw_pool pool;

		if (address < holders->skip_until) {
			i = (holders->skip_until - chunk->address) - 16;
			continue;
		}
		if (!(address & (layout->pool_bytes - 1)) && mw_pool_read(layout, here, address, &pool))
			holders->pools++;
		if (!mw_looks_like_object(layout, mw_word(here), mw_word(here + 8)) ||
		    !mw_object_read(holders->types, here, chunk->available - i,
				    chunk->has_front || i ? here - 16 : NULL, address, chunk->mapping->end, &object))
			continue;
		holders->skip_until = address + ((object.inline_bytes + 15) & ~15ULL);
		if (object.type->address == holders->wanted)
			take_sample(holders, address);
		if (take_tables(holders, here, address, &object))
			return -ENOMEM;
	}
	return 0;
}

static int compare_tables(const void *left, const void *right)
{
	uint64_t a = ((const struct table *)left)->start, b = ((const struct table *)right)->start;

	return a < b ? -1 : a > b;
}

static void first_pass(struct mw_holders *holders, const struct mw_budget *budget)
{
	uint64_t unread = 0;

	holders->table_count = holders->sample_count = 0;
	holders->wanted_objects = holders->pools = 0;
	holders->mapping = NULL;
	holders->totals.passes_total++;
	holders->totals.tables_untracked_total = 0;
	holders->totals.stopped = mw_sweep(holders->regions, 0, budget, visit_first, holders, &unread);
	if (holders->table_count)
		qsort(holders->tables, holders->table_count, sizeof(*holders->tables), compare_tables);
	holders->totals.tables = holders->table_count;
}

int mw_holders_open(struct mw_regions *regions, const struct mw_interpreter *python, uint64_t wanted,
		    uint32_t sample_count, const struct mw_budget *budget, struct mw_holders **ret)
{
	uint64_t begin_ns = mw_now_ns();
	struct mw_holders *holders = calloc(1, sizeof(*holders));
	int rc;

	if (!holders)
		return -ENOMEM;
	rc = mw_types_create(regions, python, &holders->types);
	holders->regions = regions;
	holders->wanted = wanted;
	holders->sample_limit = sample_count < MW_SAMPLES_MAX ? sample_count : MW_SAMPLES_MAX;
	holders->random = 0x9e3779b97f4a7c15ULL;
	/* 3.14 tags references on frames' stacks */
	holders->mask = python->minor >= 14 ? ~3ULL : ~0ULL;
	holders->references = malloc(MW_REFERENCES_MAX * sizeof(*holders->references));
	holders->hits = malloc(MW_REFERENCES_MAX * sizeof(*holders->hits));
	if (!rc && (!holders->references || !holders->hits))
		rc = -ENOMEM;
	if (rc) {
		mw_holders_close(holders);
		return rc;
	}
	first_pass(holders, budget);
	if (!holders->pools && !holders->totals.stopped) {
		/* PYTHONMALLOC=malloc: small tables lie anywhere, so learn them all */
		holders->all_tables = 1;
		first_pass(holders, budget);
	}
	holders->totals.elapsed_ns = mw_now_ns() - begin_ns;
	*ret = holders;
	return 0;
}

void mw_holders_close(struct mw_holders *holders)
{
	if (!holders)
		return;
	mw_types_destroy(holders->types);
	free(holders->tables);
	free(holders->references);
	free(holders->hits);
	free(holders->targets);
	free(holders);
}

uint32_t mw_holders_samples(const struct mw_holders *holders, const uint64_t **ret, uint64_t *ret_objects)
{
	*ret = holders->samples;
	*ret_objects = holders->wanted_objects;
	return holders->sample_count;
}

/* ---- the search */

static uint32_t filter_bit(uint64_t word)
{
	return (uint32_t)(word * 0x9e3779b97f4a7c15ULL >> 48) & (MW_FILTER_BITS - 1);
}

static int set_targets(struct mw_holders *holders, const uint64_t *targets, uint32_t count)
{
	uint64_t slots = 1024, high = 0;

	while (slots < 4ULL * count)
		slots *= 2;
	free(holders->targets);
	holders->targets = calloc(slots, sizeof(*holders->targets));
	if (!holders->targets)
		return -ENOMEM;
	holders->target_slots = slots;
	holders->low = UINT64_MAX;
	memset(holders->filter, 0, sizeof(holders->filter));
	for (uint32_t i = 0; i < count; i++) {
		uint64_t slot = mw_hash(targets[i]) & (slots - 1);

		if (!targets[i])
			continue;
		while (holders->targets[slot] && holders->targets[slot] != targets[i])
			slot = (slot + 1) & (slots - 1);
		holders->targets[slot] = targets[i];
		holders->low = targets[i] < holders->low ? targets[i] : holders->low;
		high = targets[i] > high ? targets[i] : high;
		holders->filter[filter_bit(targets[i]) / 8] |= (uint8_t)(1 << filter_bit(targets[i]) % 8);
	}
	holders->span = high >= holders->low ? high - holders->low : 0;
	return 0;
}

static int is_target(const struct mw_holders *holders, uint64_t word)
{
	uint32_t bit = filter_bit(word);
	uint64_t slot;

	if (!(holders->filter[bit / 8] >> bit % 8 & 1))
		return 0;
	slot = mw_hash(word) & (holders->target_slots - 1);
	for (; holders->targets[slot]; slot = (slot + 1) & (holders->target_slots - 1))
		if (holders->targets[slot] == word)
			return 1;
	return 0;
}

/* Behind a text or a number lies what the block held before, if anything. */
static int is_left_behind(const struct mw_object *object, uint64_t at, uint64_t location)
{
	uint8_t kind = object->type->kind;

	return (kind == MW_TYPE_STR || kind == MW_TYPE_BYTES || kind == MW_TYPE_INT) &&
	       location + sizeof(uint64_t) > at + object->inline_bytes;
}

/* In which object or block does the word at offset into the chunk lie?  0: in
 * one that is free, where it was left behind. */
static int place_hit(struct mw_holders *holders, const struct mw_chunk *chunk, uint64_t offset, struct hit *hit)
{
	static const uint32_t fronts[] = {16, 0, 32};
	const struct mw_python_layout *layout = &holders->types->layout;
	uint64_t pool_address = hit->location & ~(uint64_t)(layout->pool_bytes - 1);
	struct mw_object object;
	struct mw_pool pool;

	if (holders->pool.address == pool_address && mw_pool_marks_has_free(&holders->pool, hit->location))
		return 0;
	if (pool_address >= chunk->address && hit->location - pool_address >= 48 &&
	    mw_pool_read(layout, chunk->bytes + (pool_address - chunk->address), pool_address, &pool)) {
		uint64_t block =
		    (hit->location - pool_address - 48) / pool.block_bytes * pool.block_bytes + 48 + pool_address;

		if (holders->pool.address != pool_address) {
			mw_pool_marks_set(&holders->pool, &pool, pool_address,
					  chunk->bytes + (pool_address - chunk->address),
					  chunk->available - (pool_address - chunk->address));
			if (mw_pool_marks_has_free(&holders->pool, hit->location))
				return 0;
		}
		hit->block = block;
		hit->block_bytes = pool.block_bytes;
		for (uint32_t f = 0; f < 3; f++) {
			uint64_t at = block + fronts[f], place = at - chunk->address;

			if (fronts[f] + 16 <= pool.block_bytes && place + 16 <= chunk->available &&
			    mw_object_read(holders->types, chunk->bytes + place, chunk->available - place, NULL, at,
					   chunk->mapping->end, &object) &&
			    object.type->front_bytes == fronts[f]) {
				hit->object = at;
				return !is_left_behind(&object, at, hit->location);
			}
		}
		return 1;
	}
	/* Elsewhere: the nearest object in front whose body reaches this far. */
	for (uint64_t back = offset & 15; back <= LOOK_BACK_BYTES && back <= offset; back += 16) {
		uint64_t at = hit->location - back, place = offset - back;

		if (mw_object_read(holders->types, chunk->bytes + place, chunk->available - place, NULL, at,
				   chunk->mapping->end, &object)) {
			if (object.inline_bytes > back || mw_type_has_frame_inside(layout, object.type))
				hit->object = at;
			/* what lies behind the end of one object is not inside an earlier one */
			return 1;
		}
	}
	return 1;
}

static int visit_search(void *context, const struct mw_chunk *chunk)
{
	struct mw_holders *holders = context;
	const uint64_t low = holders->low, span = holders->span, mask = holders->mask;

	for (uint64_t i = 0; i < chunk->size_bytes; i += 8) {
		uint64_t word = mw_word(chunk->bytes + i) & mask;
		struct hit *hit;

		if (__builtin_expect(word - low > span, 1) || !is_target(holders, word))
			continue;
		if (holders->hit_count == MW_REFERENCES_MAX) {
			holders->totals.references_dropped_total++;
			continue;
		}
		hit = &holders->hits[holders->hit_count];
		*hit = (struct hit){
		    .location = chunk->address + i,
		    .target = word,
		    .flags = chunk->mapping->flags,
		};
		if (hit->flags & MW_MAPPING_STACK || place_hit(holders, chunk, i, hit))
			holders->hit_count++;
	}
	return 0;
}

static int search(struct mw_holders *holders, const uint64_t *targets, uint32_t count, const struct mw_budget *budget)
{
	uint64_t unread = 0;
	int rc = set_targets(holders, targets, count);

	holders->hit_count = 0;
	holders->pool = (struct mw_pool_marks){0}; /* may have changed since */
	if (rc)
		return rc;
	holders->totals.passes_total++;
	holders->totals.stopped = mw_sweep(holders->regions, MW_SWEEP_STACK, budget, visit_search, holders, &unread);
	return holders->totals.stopped == -ENOMEM ? -ENOMEM : 0;
}

static uint64_t read_word(struct mw_holders *holders, uint64_t address)
{
	uint64_t word;

	return mw_regions_read(holders->regions, address, &word, sizeof(word)) == sizeof(word) ? word : 0;
}

static int compare_small(const void *left, const void *right)
{
	uint64_t a = ((const struct small_table *)left)->block, b = ((const struct small_table *)right)->block;

	return a < b ? -1 : a > b;
}

static struct small_table *find_small(struct small_table *tables, uint32_t count, uint64_t block)
{
	uint32_t low = 0, high = count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (tables[middle].block < block)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && tables[low].block == block ? &tables[low] : NULL;
}

/* A pointer to a table, or one byte below it. */
static uint64_t untagged(uint64_t pointer)
{
	return (pointer + 7) & ~7ULL;
}

/* The object that holds the hit points to table: what does that make it? */
static void take_pointer(struct mw_holders *holders, const struct hit *hit, struct small_table *table)
{
	struct mw_type *type = mw_types_get(holders->types, read_word(holders, hit->object + 8));
	int64_t offset = (int64_t)(hit->location - hit->object);

	if (!type || table->owner)
		return;
	if (type->kind == MW_TYPE_LIST && offset == 24) {
		table->kind = TABLE_LIST;
	} else if (type->kind == MW_TYPE_SET && offset == 40) {
		table->kind = TABLE_SET;
	} else if (type->kind == MW_TYPE_DICT && offset == 32) {
		table->kind = TABLE_KEYS;
	} else if (type->kind == MW_TYPE_DICT && offset == 40) {
		table->kind = TABLE_VALUES;
		table->values = untagged(hit->target);
		table->keys = read_word(holders, hit->object + 32);
	} else if (offset < 0 && (type->flags & MW_TPFLAG_MANAGED_DICT)) {
		table->kind = TABLE_VALUES;
		table->values = untagged(hit->target);
		table->keys = read_word(holders, type->address + holders->types->layout.cached_keys);
	} else {
		return;
	}
	table->owner = hit->object;
}

/* Second pass: whose are the small tables? */
static int find_small_owners(struct mw_holders *holders, struct small_table *tables, uint32_t count,
			     const struct mw_budget *budget)
{
	uint64_t *targets = malloc((uint64_t)count * 2 * PREFIX_WORDS * sizeof(*targets));
	uint32_t minor = holders->types->layout.minor, target_count = 0;
	int rc;

	if (!targets)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		targets[target_count++] = tables[i].block;
		/* 3.11 and 3.12 point behind a prefix of values arrays; 3.12 one byte less, as a tag */
		for (uint64_t p = 1; minor >= 11 && p < PREFIX_WORDS; p++) {
			targets[target_count++] = tables[i].block + 8 * p;
			if (minor == 12)
				targets[target_count++] = tables[i].block + 8 * p - 1;
		}
	}
	rc = search(holders, targets, target_count, budget);
	for (uint32_t i = 0; !rc && i < holders->hit_count; i++) {
		struct small_table *table = NULL;

		for (uint64_t p = 0; !table && p < PREFIX_WORDS; p++)
			table = find_small(tables, count, untagged(holders->hits[i].target) - 8 * p);
		if (table && holders->hits[i].object)
			take_pointer(holders, &holders->hits[i], table);
	}
	free(targets);
	return rc;
}

/* Turn hits into references; those in small tables wait, by their block in place. */
static uint32_t explain_hits(struct mw_holders *holders, struct small_table *tables)
{
	uint32_t waiting = 0;

	holders->reference_count = 0;
	for (uint32_t i = 0; i < holders->hit_count; i++) {
		const struct hit *hit = &holders->hits[i];
		struct mw_reference *reference = &holders->references[holders->reference_count++];

		*reference = (struct mw_reference){.target = hit->target, .location = hit->location};
		if (hit->object) {
			mw_reference_in_object(holders, reference, hit->object);
		} else if (hit->block && waiting < SMALL_TABLES_MAX) {
			/* hits of one block follow one another */
			if (!waiting || tables[waiting - 1].block != hit->block)
				tables[waiting++] = (struct small_table){.block = hit->block};
			reference->place = (int64_t)hit->block;
		} else if (hit->block) {
			holders->totals.tables_untracked_total++;
			reference->how = MW_BY_RAW;
		} else {
			mw_reference_in_raw(holders, reference, hit->flags);
		}
	}
	return waiting;
}

int mw_holders_search(struct mw_holders *holders, const uint64_t *targets, uint32_t count,
		      const struct mw_budget *budget, const struct mw_reference **ret, uint32_t *ret_count)
{
	uint64_t begin_ns = mw_now_ns();
	struct small_table *tables;
	uint32_t waiting;
	int rc;

	if (count > MW_SEARCHED_MAX)
		return -E2BIG;
	tables = malloc(SMALL_TABLES_MAX * sizeof(*tables));
	if (!tables)
		return -ENOMEM;
	rc = search(holders, targets, count, budget);
	if (!rc) {
		waiting = explain_hits(holders, tables);
		qsort(tables, waiting, sizeof(*tables), compare_small);
		if (waiting && !holders->totals.stopped)
			rc = find_small_owners(holders, tables, waiting, budget);
		for (uint32_t i = 0; !rc && i < holders->reference_count; i++) {
			struct mw_reference *reference = &holders->references[i];

			if (!reference->how) {
				uint64_t block = (uint64_t)reference->place;

				reference->place = 0;
				mw_reference_in_small(holders, reference, find_small(tables, waiting, block));
			}
		}
	}
	free(tables);
	holders->totals.elapsed_ns = mw_now_ns() - begin_ns;
	*ret = holders->references;
	*ret_count = rc ? 0 : holders->reference_count;
	return rc;
}

/* ---- questions about single objects */

int64_t mw_holders_count(struct mw_holders *holders, uint64_t address)
{
	uint64_t count;

	if (mw_regions_read(holders->regions, address, &count, sizeof(count)) != sizeof(count))
		return -1;
	return holders->types->layout.minor >= 12 ? (int64_t)(uint32_t)count : (int64_t)count;
}

void mw_holders_label(struct mw_holders *holders, uint64_t address, char *buffer, uint32_t buffer_bytes)
{
	if (buffer_bytes)
		mw_label_object(holders->types, address, buffer, buffer_bytes);
}

void mw_holders_type_name(struct mw_holders *holders, uint64_t type, char *buffer, uint32_t buffer_bytes)
{
	struct mw_type *found = mw_types_get(holders->types, type);

	if (!buffer_bytes)
		return;
	buffer[0] = 0;
	if (found)
		mw_type_full_name(holders->types, found, buffer, buffer_bytes);
}

void mw_holders_type_file(struct mw_holders *holders, uint64_t type, char *buffer, uint32_t buffer_bytes)
{
	/* tp_dealloc, tp_methods, tp_getset, tp_members, tp_init, tp_new; the type itself first */
	static const uint32_t pointers[] = {48, 232, 248, 240, 296, 312};
	const struct mw_mapping *mapping = mw_regions_find(holders->regions, type);

	if (!buffer_bytes)
		return;
	buffer[0] = 0;
	for (uint32_t i = 0; i < sizeof(pointers) / sizeof(pointers[0]); i++) {
		const char *name;

		if (mapping && (mapping->flags & MW_MAPPING_FILE)) {
			name = mw_regions_name(holders->regions, mapping->name);
			/* the interpreter's own functions serve classes written in Python */
			if (i == 0 || (!strstr(name, "/libpython") && !strstr(name, "/python"))) {
				snprintf(buffer, buffer_bytes, "%s", name);
				return;
			}
		}
		mapping = mw_regions_find(holders->regions, read_word(holders, type + pointers[i]));
	}
}

void mw_holders_get_totals(const struct mw_holders *holders, struct mw_holders_totals *ret)
{
	*ret = holders->totals;
}
