#include "census.h"
#include "pools.h"
#include "sweep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	DICTS_MAX = 1 << 18, /* waiting for their key tables to be read */
	BUFFERS_MAX = 1 << 18,
	LARGE_MAX = 1 << 16,
	LARGE_BYTES_MIN = 64 << 10, /* M_MMAP_THRESHOLD is 128 KiB unless tuned */
	PYMALLOC_BYTES_MAX = 512,   /* a larger request goes to malloc */
	KEYS_GAP_BYTES = 4096,
};

/* A dict whose key table was not in the chunk at hand. */
struct dict {
	uint64_t keys;
	uint32_t type;
	uint32_t is_split;
};

struct buffer {
	uint64_t address;
	uint64_t bytes;
};

struct unclaimed {
	uint64_t bytes;
	uint64_t zero_bytes;
};

struct mw_census {
	struct mw_regions *regions;
	struct mw_types *types; /* NULL: no interpreter */
	struct mw_zone *zones;
	struct dict *dicts, *spare_dicts;
	struct buffer *buffers;
	struct mw_large_block *large;
	struct unclaimed *unclaimed;
	uint8_t *table_bytes;		  /* MW_CHUNK_BYTES, for reading key tables */
	const struct mw_chunk *chunk;	  /* the one in hand */
	const struct mw_mapping *mapping; /* the one that is scanned */
	uint64_t skip_until;		  /* inside an object */
	struct mw_pool_marks pool;	  /* the one in hand */
	uint64_t large_end;
	uint32_t zone_count, zone;
	uint32_t dict_count, buffer_count, large_count, mapping_count;
	struct mw_census_totals totals;
};

/* What malloc takes for a request. */
static uint64_t malloc_chunk(uint64_t bytes)
{
	return bytes < 24 ? 32 : (bytes + 8 + 15) & ~15ULL;
}

static struct mw_zone *zone_of(struct mw_census *census, uint64_t address)
{
	uint32_t low = 0, high = census->zone_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (address >= census->zones[middle].end)
			low = middle + 1;
		else
			high = middle;
	}
	return low < census->zone_count && address >= census->zones[low].start ? &census->zones[low] : NULL;
}

static struct mw_large_block *large_of(struct mw_census *census, uint64_t address)
{
	uint32_t low = 0, high = census->large_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (address >= census->large[middle].start + census->large[middle].size_bytes)
			low = middle + 1;
		else
			high = middle;
	}
	return low < census->large_count && address >= census->large[low].start ? &census->large[low] : NULL;
}

/* A table outside its object, too large for pymalloc: note where it lies. */
static void add_buffer(struct mw_census *census, uint64_t address, uint64_t bytes)
{
	if (bytes <= PYMALLOC_BYTES_MAX && census->totals.pools)
		return;
	if (census->buffer_count == BUFFERS_MAX) {
		census->totals.buffers_untracked_total++;
		return;
	}
	census->buffers[census->buffer_count++] = (struct buffer){address, bytes};
}

/* Count a dict's key table, of which header are the first bytes. */
static void take_keys(struct mw_census *census, const struct dict *dict, const uint8_t *header)
{
	struct mw_type *type = &census->types->all[dict->type];
	const struct mw_mapping *mapping;
	struct mw_keys keys;
	uint64_t bytes = 0;

	if (!mw_keys_read(&census->types->layout, header, &keys))
		return;
	if (!keys.is_shared)
		bytes = keys.size_bytes;
	/* A split dict's values are its own (from 3.13 on mostly inside the object). */
	if (dict->is_split && census->types->layout.minor < 11 && keys.usable < 1 << 20)
		bytes += 8 * keys.usable;
	mapping = bytes ? mw_regions_find(census->regions, dict->keys) : NULL;
	if (bytes && (!mapping || bytes > mapping->end - dict->keys))
		return;
	type->bytes += bytes;
	census->totals.bytes += bytes;
	if (bytes)
		add_buffer(census, dict->keys, bytes);
}

/* Sort by key address: three passes of 16 bits. */
static void sort_dicts(struct mw_census *census)
{
	static const int shifts[] = {4, 20, 36};
	struct dict *from = census->dicts, *to = census->spare_dicts, *swapped;
	uint32_t *places = calloc(1 << 16, sizeof(*places));

	if (!places)
		return;
	for (int pass = 0; pass < 3; pass++) {
		uint32_t sum = 0;

		memset(places, 0, (1 << 16) * sizeof(*places));
		for (uint32_t i = 0; i < census->dict_count; i++)
			places[from[i].keys >> shifts[pass] & 0xffff]++;
		for (uint32_t i = 0; i < 1 << 16; i++) {
			uint32_t here = places[i];

			places[i] = sum;
			sum += here;
		}
		for (uint32_t i = 0; i < census->dict_count; i++)
			to[places[from[i].keys >> shifts[pass] & 0xffff]++] = from[i];
		swapped = from;
		from = to;
		to = swapped;
	}
	census->dicts = from;
	census->spare_dicts = to;
	free(places);
}

/* Read the key tables of the waiting dicts, neighbours with one read. */
static void flush_dicts(struct mw_census *census)
{
	sort_dicts(census);
	for (uint32_t first = 0, end; first < census->dict_count; first = end) {
		uint64_t start = census->dicts[first].keys, stop = start + 32;
		int64_t got;

		for (end = first + 1; end < census->dict_count; end++) {
			uint64_t next = census->dicts[end].keys;

			if (next > stop + KEYS_GAP_BYTES || next + 32 - start > MW_CHUNK_BYTES)
				break;
			stop = next + 32 > stop ? next + 32 : stop;
		}
		got = mw_regions_read(census->regions, start, census->table_bytes, stop - start);
		for (uint32_t i = first; i < end; i++) {
			uint64_t offset = census->dicts[i].keys - start;

			if (got >= 32 && offset <= (uint64_t)got - 32)
				take_keys(census, &census->dicts[i], census->table_bytes + offset);
			else
				census->totals.unread_bytes += 32;
		}
	}
	census->dict_count = 0;
}

static void take_dict(struct mw_census *census, const struct mw_object *object)
{
	const struct mw_chunk *chunk = census->chunk;
	struct dict dict = {
	    .keys = object->keys,
	    .type = (uint32_t)(object->type - census->types->all),
	    .is_split = object->values != 0,
	};

	if (dict.keys >= chunk->address && dict.keys + 32 <= chunk->address + chunk->available) {
		take_keys(census, &dict, chunk->bytes + (dict.keys - chunk->address));
		return;
	}
	/* flushed before a chunk when there may be no room: one object takes at least 16 bytes */
	if (census->dict_count < DICTS_MAX)
		census->dicts[census->dict_count++] = dict;
}

/* What of malloc's memory the object takes, by the size that stands in front
 * of its block; 0 if it does not fit that block: then it is part of something
 * larger, or chance. */
static uint64_t chunk_of(const struct mw_census *census, uint64_t address, const struct mw_object *object)
{
	uint64_t taken = object->inline_bytes + object->type->front_bytes;
	uint64_t header = address - object->type->front_bytes - 8, size;

	if (header < census->chunk->address &&
	    (!census->chunk->has_front || census->chunk->address - header > MW_CHUNK_FRONT_BYTES))
		return malloc_chunk(taken);
	size = mw_word(census->chunk->bytes + (int64_t)(header - census->chunk->address)) & ~7ULL;
	return size >= taken + 8 && size <= malloc_chunk(taken) * 2 + MW_PAGE_BYTES ? size : 0;
}

static void take_object(struct mw_census *census, uint64_t address, const struct mw_object *object)
{
	object->type->objects++;
	object->type->bytes += object->size_bytes;
	census->totals.objects++;
	census->totals.bytes += object->size_bytes;
	if (census->zone < census->zone_count && address >= census->zones[census->zone].start) {
		census->zones[census->zone].objects++;
		census->zones[census->zone].object_bytes += chunk_of(census, address, object);
	} else if (address < census->large_end && census->large_count) {
		census->large[census->large_count - 1].object_bytes += chunk_of(census, address, object);
	}
	if (object->keys)
		take_dict(census, object);
	if (object->buffer)
		add_buffer(census, object->buffer, object->buffer_bytes);
}

/* A mapped chunk of malloc begins its page: no previous size, its own size in
 * whole pages with only IS_MMAPPED set. */
static int take_large(struct mw_census *census, const uint8_t *page, uint64_t address)
{
	uint64_t size = mw_word(page + 8) & ~7ULL;

	if (mw_word(page) || (mw_word(page + 8) & 7) != 2 || size < LARGE_BYTES_MIN || size % MW_PAGE_BYTES ||
	    size > census->mapping->end - address)
		return 0;
	if (census->large_count == LARGE_MAX) {
		census->totals.large_untracked_total++;
		return 0;
	}
	census->large[census->large_count] = (struct mw_large_block){
	    .start = address,
	    .size_bytes = size,
	    .anon_bytes = mw_regions_anon_bytes(census->regions, address, address + size),
	};
	census->totals.large_blocks++;
	census->totals.large_anon_bytes += census->large[census->large_count++].anon_bytes;
	census->large_end = address + size;
	return 1;
}

static int take_pool(struct mw_census *census, const uint8_t *page, uint64_t address)
{
	struct mw_pool pool;
	uint64_t present;

	if (!census->types || !mw_pool_read(&census->types->layout, page, address, &pool) ||
	    pool.pool_bytes > census->mapping->end - address)
		return 0;
	present = mw_regions_anon_bytes(census->regions, address, address + pool.pool_bytes);
	census->totals.pools++;
	census->totals.pool_anon_bytes += present;
	census->totals.pool_in_use_bytes += pool.in_use_bytes < present ? pool.in_use_bytes : present;
	mw_pool_marks_set(&census->pool, &pool, address, page,
			  census->chunk->available - (address - census->chunk->address));
	return 1;
}

static int is_zero(const uint8_t *page)
{
	for (uint32_t i = 0; i < MW_PAGE_BYTES; i += 8)
		if (mw_word(page + i))
			return 0;
	return 1;
}

/* Whose is the page at address?  Return whether it may hold objects. */
static int claim_page(struct mw_census *census, const uint8_t *page, uint64_t address)
{
	struct unclaimed *unclaimed = &census->unclaimed[census->mapping - mw_regions_mapping(census->regions, 0)];
	int zero;

	while (census->zone < census->zone_count && address >= census->zones[census->zone].end)
		census->zone++;
	if (census->zone < census->zone_count && address >= census->zones[census->zone].start)
		return census->zones[census->zone].kind != MW_ZONE_STACK;
	if (address < census->pool.end || address < census->large_end)
		return 1;
	if (!(census->mapping->flags & MW_MAPPING_FILE) &&
	    (take_pool(census, page, address) || take_large(census, page, address)))
		return 1;
	if (!mw_regions_anon_bytes(census->regions, address, address + MW_PAGE_BYTES))
		return 1;
	zero = is_zero(page);
	unclaimed->bytes += MW_PAGE_BYTES;
	unclaimed->zero_bytes += zero ? MW_PAGE_BYTES : 0;
	return !zero;
}

/* Scan the page at here; available bytes are readable from it on, and at least
 * MW_CHUNK_FRONT_BYTES in front of it when has_front. */
static void scan_page(struct mw_census *census, const uint8_t *here, uint64_t available, uint64_t address,
		      int has_front)
{
	const struct mw_python_layout *layout = &census->types->layout;
	uint64_t first = census->skip_until > address ? census->skip_until - address : 0;

	for (uint64_t i = first; i < MW_PAGE_BYTES; i += 16) {
		struct mw_object object;
		const uint8_t *before = has_front || i ? here + i - 16 : NULL;

		if (!mw_looks_like_object(layout, mw_word(here + i), mw_word(here + i + 8)) ||
		    mw_pool_marks_has_free(&census->pool, address + i))
			continue;
		if (!mw_object_read(census->types, here + i, available - i, before, address + i, census->mapping->end,
				    &object))
			continue;
		take_object(census, address + i, &object);
		/* Nothing begins in the 16 bytes that it ends in, whatever was left there. */
		census->skip_until = address + i + ((object.inline_bytes + 15) & ~15ULL);
		i = census->skip_until - address - 16;
	}
}

static int visit_chunk(void *context, const struct mw_chunk *chunk)
{
	struct mw_census *census = context;

	if (census->mapping != chunk->mapping) {
		census->mapping = chunk->mapping;
		census->skip_until = census->large_end = 0;
		census->pool = (struct mw_pool_marks){0};
	}
	if (census->dict_count > DICTS_MAX - MW_CHUNK_BYTES / 16)
		flush_dicts(census);
	census->chunk = chunk;
	for (uint64_t at = 0; at + MW_PAGE_BYTES <= chunk->size_bytes; at += MW_PAGE_BYTES) {
		const uint8_t *page = chunk->bytes + at;

		if (claim_page(census, page, chunk->address + at) && census->types)
			scan_page(census, page, chunk->available - at, chunk->address + at, at || chunk->has_front);
	}
	census->totals.scanned_bytes += chunk->size_bytes;
	census->chunk = NULL;
	return 0;
}

/* Say in whose zone or block the tables lie. */
static void place_buffers(struct mw_census *census)
{
	for (uint32_t i = 0; i < census->buffer_count; i++) {
		const struct buffer *buffer = &census->buffers[i];
		struct mw_zone *zone = zone_of(census, buffer->address);
		struct mw_large_block *large = zone ? NULL : large_of(census, buffer->address);
		uint64_t bytes = malloc_chunk(buffer->bytes), size;

		/* Of large ones be sure: one wrong length would outweigh thousands of right ones. */
		if (bytes > LARGE_BYTES_MIN && (mw_regions_read(census->regions, buffer->address - 8, &size, 8) != 8 ||
						(size & ~7ULL) < bytes - 16 || size > 2 * bytes + MW_PAGE_BYTES))
			continue;
		if (zone)
			zone->object_bytes += bytes;
		if (large)
			large->object_bytes += bytes;
	}
}

static int allocate(struct mw_census *census)
{
	census->mapping_count = mw_regions_mapping_count(census->regions);
	census->dicts = malloc(DICTS_MAX * sizeof(*census->dicts));
	census->spare_dicts = malloc(DICTS_MAX * sizeof(*census->spare_dicts));
	census->buffers = malloc(BUFFERS_MAX * sizeof(*census->buffers));
	census->large = malloc(LARGE_MAX * sizeof(*census->large));
	census->unclaimed = calloc(census->mapping_count + 1, sizeof(*census->unclaimed));
	census->table_bytes = malloc(MW_CHUNK_BYTES);
	return census->dicts && census->spare_dicts && census->buffers && census->large && census->unclaimed &&
		       census->table_bytes
		   ? 0
		   : -ENOMEM;
}

int mw_census_take(struct mw_regions *regions, const struct mw_interpreter *python, struct mw_zone *zones,
		   uint32_t zone_count, const struct mw_budget *budget, struct mw_census **ret)
{
	uint64_t begin_ns = mw_now_ns();
	struct mw_census *census;
	int rc;

	for (uint32_t i = 0; i < zone_count; i++)
		if (zones[i].start >= zones[i].end || (i && zones[i].start < zones[i - 1].end))
			return -EINVAL;
	census = calloc(1, sizeof(*census));
	if (!census)
		return -ENOMEM;
	census->regions = regions;
	census->zones = zones;
	census->zone_count = zone_count;
	for (uint32_t i = 0; i < zone_count; i++)
		zones[i].objects = zones[i].object_bytes = 0;
	rc = allocate(census);
	if (!rc && python)
		rc = mw_types_create(regions, python, &census->types);
	if (rc) {
		mw_census_destroy(census);
		return rc;
	}
	census->totals.stopped = mw_sweep(regions, 0, budget, visit_chunk, census, &census->totals.unread_bytes);
	if (census->types)
		flush_dicts(census);
	place_buffers(census);
	if (!census->totals.stopped && !mw_regions_is_same(regions))
		census->totals.stopped = -ESRCH;
	census->totals.elapsed_ns = mw_now_ns() - begin_ns;
	census->zones = NULL;
	*ret = census;
	return 0;
}

void mw_census_destroy(struct mw_census *census)
{
	if (!census)
		return;
	mw_types_destroy(census->types);
	free(census->dicts);
	free(census->spare_dicts);
	free(census->buffers);
	free(census->large);
	free(census->unclaimed);
	free(census->table_bytes);
	free(census);
}

void mw_census_get_totals(const struct mw_census *census, struct mw_census_totals *ret)
{
	*ret = census->totals;
	if (!census->types)
		return;
	ret->types_untracked_total = census->types->untracked_total;
	ret->type_probes_total = census->types->probes_total;
	for (uint32_t i = 0; i < census->types->count; i++)
		ret->types += census->types->all[i].objects != 0;
}

static int compare_rows(const void *left, const void *right)
{
	uint64_t a = ((const struct mw_census_row *)left)->bytes, b = ((const struct mw_census_row *)right)->bytes;

	return a < b ? 1 : a > b ? -1 : 0;
}

uint32_t mw_census_rows(struct mw_census *census, struct mw_census_row *rows, uint32_t count)
{
	struct mw_census_row *all;
	uint32_t found = 0;

	if (!census->types)
		return 0;
	all = malloc((MW_TYPES_MAX + 1) * sizeof(*all));
	if (!all)
		return 0;
	for (uint32_t i = 0; i <= census->types->count; i++) {
		/* last, the row for all that found no place */
		const struct mw_type *type = &census->types->all[i < census->types->count ? i : MW_TYPES_MAX];

		if (type->objects)
			all[found++] = (struct mw_census_row){type->address, type->objects, type->bytes};
	}
	qsort(all, found, sizeof(*all), compare_rows);
	memcpy(rows, all, (count < found ? count : found) * sizeof(*all));
	free(all);
	return found;
}

void mw_census_name(struct mw_census *census, uint64_t type, char *buffer, uint32_t buffer_bytes)
{
	const struct mw_type *other = census->types ? &census->types->all[MW_TYPES_MAX] : NULL;
	const struct mw_type *found = NULL;

	if (!buffer_bytes)
		return;
	buffer[0] = 0;
	if (!other)
		return;
	found = other->address == type ? other : mw_types_get(census->types, type);
	if (found)
		mw_type_full_name(census->types, found, buffer, buffer_bytes);
}

uint32_t mw_census_large_blocks(const struct mw_census *census, const struct mw_large_block **ret)
{
	*ret = census->large;
	return census->large_count;
}

void mw_census_unclaimed(const struct mw_census *census, uint32_t mapping, uint64_t *ret_bytes,
			 uint64_t *ret_zero_bytes)
{
	*ret_bytes = mapping < census->mapping_count ? census->unclaimed[mapping].bytes : 0;
	*ret_zero_bytes = mapping < census->mapping_count ? census->unclaimed[mapping].zero_bytes : 0;
}
