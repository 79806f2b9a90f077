#include "outside_parts.h"

#include <string.h>

enum {
	TP_DICT = 264,
	TP_WEAKLIST_OFFSET = 208,
	FRAME_BYTES_MAX = 2048, /* of a generator's locals and value stack */
	VALUES_MAX = 256,	/* shared keys are at most 30 */
	KEYS_HEADER_BYTES = 48,
};

static uint64_t read_word(struct mw_outside *outside, uint64_t address)
{
	uint64_t word;

	return mw_regions_read(outside->regions, address, &word, 8) == 8 ? word : 0;
}

const struct mw_type_facts *mw_outside_facts(struct mw_outside *outside, const struct mw_type *type)
{
	struct mw_type_facts *facts = &outside->facts[mw_type_index(outside, type)];
	uint64_t offset;

	if (facts->known)
		return facts;
	facts->known = 1;
	facts->names_left = 4096;
	offset = read_word(outside, type->address + TP_WEAKLIST_OFFSET);
	/* below 3.12's managed ones, and never a GC word */
	facts->weak_offset = offset >= 16 && offset < type->basic_bytes ? (int32_t)offset : 0;
	if (outside->types->layout.minor < 11 || !(type->flags & MW_TPFLAG_HEAPTYPE) ||
	    !(type->flags & (MW_TPFLAG_MANAGED_DICT | MW_TPFLAG_INLINE_VALUES)))
		return facts;
	facts->shared_keys = read_word(outside, type->address + outside->types->layout.cached_keys);
	return facts;
}

/* How many of the values that a shared key table orders may be set.  An array
 * may have more room than that, or less than the table: it was made as large as
 * the table was expected to grow then (3.11). */
static uint64_t shared_count(struct mw_outside *outside, uint64_t table)
{
	uint32_t minor = outside->types->layout.minor;
	uint8_t header[KEYS_HEADER_BYTES];
	struct mw_keys keys;
	uint64_t slot = (table >> 4 ^ table >> 14) & (MW_SHARED_RECENT - 1), count = 0;

	if (outside->shared[slot].table == table)
		return outside->shared[slot].count;
	if (mw_regions_read(outside->regions, table, header, sizeof(header)) == sizeof(header) &&
	    mw_keys_read(&outside->types->layout, header, &keys) && keys.usable <= VALUES_MAX)
		count = mw_word(header + (minor >= 11 ? 24 : 32));
	outside->shared[slot].table = table;
	outside->shared[slot].count = count < VALUES_MAX ? count : VALUES_MAX;
	return outside->shared[slot].count;
}

static struct mw_span *add(struct mw_span *spans, uint32_t *count, uint64_t address, uint64_t size_bytes,
			   enum mw_span_shape shape)
{
	struct mw_span *span = &spans[*count];

	*span = (struct mw_span){
	    .address = address,
	    .size_bytes = size_bytes,
	    .mask = ~0ULL,
	    .shape = (uint8_t)shape,
	    .name_kind = MW_NAME_NONE,
	};
	if (address && size_bytes && !(address & 7))
		++*count;
	return span;
}

/* The words of the body in [from, to), but for the list of weak references, which holds nothing. */
static void add_body(struct mw_outside *outside, const struct mw_object *object, uint64_t address, uint64_t from,
		     uint64_t to, struct mw_span *spans, uint32_t *count)
{
	uint64_t weak = (uint64_t)mw_outside_facts(outside, object->type)->weak_offset;
	uint64_t ends[2] = {to, to}, starts[2] = {from, to};

	if (weak >= from && weak + 8 <= to) {
		ends[0] = weak;
		starts[1] = weak + 8;
	}
	for (int i = 0; i < 2; i++) {
		struct mw_span *span;

		if (starts[i] + 8 > ends[i])
			continue;
		span = add(spans, count, address + starts[i], (ends[i] - starts[i]) & ~7ULL, MW_SPAN_WORDS);
		span->first_offset = (int32_t)starts[i];
		span->name_kind = MW_NAME_ATTRIBUTE;
		/* 3.14 tags references on frames' stacks */
		if (object->type->kind == MW_TYPE_GENERATOR || object->type->kind == MW_TYPE_FRAME)
			span->mask = ~7ULL;
		if (object->type->kind == MW_TYPE_TUPLE)
			span->name_kind = MW_NAME_NONE;
	}
}

/* How much of a key table to read: with its header it says more.  The table is
 * at least as large as its entries need. */
static uint64_t keys_guess(const struct mw_python_layout *layout, uint64_t used)
{
	uint64_t size = 8;

	while (size * 2 / 3 < used)
		size *= 2;
	size *= 2; /* it grows by more than it must */
	return (layout->minor >= 11 ? 32 : 40) + size * (size <= 0xff ? 1 : size <= 0xffff ? 2 : 4) + used * 24;
}

static void add_dict(struct mw_outside *outside, const struct mw_object *object, const uint8_t *here, uint64_t address,
		     struct mw_span *spans, uint32_t *count)
{
	enum mw_name_kind kind = mw_outside_namespace(outside, address);
	uint64_t used = mw_word(here + 16);
	struct mw_span *span;

	/* Shared keys are their class's; the dict's own are the values. */
	if (!object->values) {
		span = add(spans, count, object->keys, keys_guess(&outside->types->layout, used), MW_SPAN_KEYS);
		span->name_kind = (uint8_t)kind;
	} else {
		span = add(spans, count, object->values, 8 * shared_count(outside, object->keys), MW_SPAN_WORDS);
		span->label = object->keys;
		span->name_kind = MW_NAME_ATTRIBUTE;
	}
}

/* Where 3.11 to 3.13 keep an instance's attributes: in front of it is a pointer
 * to a dict, or to its values (3.11: one of each; 3.12: which it is says a tag). */
static void add_managed(struct mw_outside *outside, const struct mw_object *object, const uint8_t *before,
			uint64_t address, struct mw_span *spans, uint32_t *count)
{
	const struct mw_type_facts *facts = mw_outside_facts(outside, object->type);
	uint32_t minor = outside->types->layout.minor;
	uint64_t dict = mw_word(before + MW_CHUNK_FRONT_BYTES - 24), values = 0;
	struct mw_span *span;

	if (minor == 11)
		values = mw_word(before + MW_CHUNK_FRONT_BYTES - 32);
	else if (minor == 12 && (dict & 1))
		values = dict + 1;
	if (!(minor == 12 && (dict & 1))) {
		span = add(spans, count, address - 24, 8, MW_SPAN_WORDS);
		span->first_offset = -24;
	}
	if (values && facts->shared_keys) {
		span = add(spans, count, values, 8 * shared_count(outside, facts->shared_keys), MW_SPAN_WORDS);
		span->label = facts->shared_keys;
		span->name_kind = MW_NAME_ATTRIBUTE;
	}
}

/* A block is a link, 64 items and a link. */
static void add_deque(const uint8_t *here, struct mw_span *spans, uint32_t *count)
{
	uint64_t length = mw_word(here + 16), block = mw_word(here + 24), left = mw_word(here + 40);

	struct mw_span *span;

	if (left + length <= MW_DEQUE_ITEMS) {
		add(spans, count, block + 8 + 8 * left, 8 * length, MW_SPAN_WORDS);
		return;
	}
	span = add(spans, count, block, 8 * length, MW_SPAN_CHAIN);
	span->first_offset = (int32_t)left;
}

uint32_t mw_outside_spans(struct mw_outside *outside, const struct mw_object *object, const uint8_t *here,
			  const uint8_t *before, uint64_t address, uint64_t end, struct mw_span *ret)
{
	const struct mw_python_layout *layout = &outside->types->layout;
	const struct mw_type *type = object->type;
	uint64_t body = 16, body_end = type->basic_bytes;
	uint32_t count = 0;

	switch (type->kind) {
	case MW_TYPE_INT:
	case MW_TYPE_BYTES:
		body = body_end;
		break;
	case MW_TYPE_STR: /* a subclass keeps its own behind the struct */
		body = layout->compact_header + 8;
		if (object->inline_bytes != type->basic_bytes)
			body = body_end;
		break;
	case MW_TYPE_BYTEARRAY:
		body = 56;
		break;
	case MW_TYPE_LIST: /* what lies behind its last item was left there, and is not held */
		if (object->buffer)
			add(ret, &count, object->buffer, 8 * mw_word(here + 16), MW_SPAN_WORDS);
		body = 40;
		break;
	case MW_TYPE_TUPLE:
		body = layout->tuple_items;
		body_end = object->inline_bytes;
		break;
	case MW_TYPE_DICT:
		add_dict(outside, object, here, address, ret, &count);
		body = 48;
		break;
	case MW_TYPE_SET: /* a small table is part of the body */
		if (object->buffer)
			add(ret, &count, object->buffer, object->buffer_bytes, MW_SPAN_FIRSTS);
		body = 48;
		break;
	case MW_TYPE_DEQUE:
		add_deque(here, ret, &count);
		break;
	case MW_TYPE_WEAKREF: /* its callback, and what a subclass adds */
		add(ret, &count, address + 24, 8, MW_SPAN_WORDS);
		body = 56;
		break;
	case MW_TYPE_GENERATOR: /* basic size: all before the locals of the frame inside (3.11) */
		if (layout->minor >= 11 && end > address + body_end)
			body_end =
			    end - address < body_end + FRAME_BYTES_MAX ? end - address : body_end + FRAME_BYTES_MAX;
		break;
	case MW_TYPE_TYPE:
	case MW_TYPE_FRAME:
	case MW_TYPE_PLAIN:
	case MW_TYPE_MODULE:
		body_end = object->inline_bytes;
		break;
	default:
		break;
	}
	/* what a class of 3.14 adds to any of these lies behind it */
	if (type->kind == MW_TYPE_LIST || type->kind == MW_TYPE_DICT || type->kind == MW_TYPE_SET)
		body_end = object->inline_bytes;
	/* An object holds what fits into one body; only a tuple's may be longer than that. */
	if (type->kind != MW_TYPE_TUPLE && body_end > body + MW_BIG_SPAN_BYTES)
		body_end = body + MW_BIG_SPAN_BYTES;
	if (body < body_end)
		add_body(outside, object, address, body, body_end, ret, &count);
	if (before && (type->flags & MW_TPFLAG_MANAGED_DICT) && layout->minor >= 11)
		add_managed(outside, object, before, address, ret, &count);
	return count;
}

int mw_outside_entries(struct mw_outside *outside, const uint8_t *header, uint64_t available, struct mw_span *span,
		       uint64_t *ret_size_bytes)
{
	const struct mw_python_layout *layout = &outside->types->layout;
	struct mw_keys keys;
	uint64_t entries;

	if (available < KEYS_HEADER_BYTES - 8 || !mw_keys_read(layout, header, &keys))
		return 0;
	/* nentries: of those that are in use, and those that were */
	entries = mw_word(header + (layout->minor >= 11 ? 24 : 32));
	if (entries > keys.usable)
		entries = keys.usable;
	*ret_size_bytes = keys.is_shared ? 0 : keys.size_bytes;
	span->address += keys.entries;
	span->size_bytes = entries * keys.entry_bytes;
	span->shape = keys.entry_bytes == 16 ? MW_SPAN_PAIRS : MW_SPAN_TRIPLES;
	return 1;
}

uint32_t mw_outside_take(struct mw_outside *outside, const struct mw_span *span, const uint8_t *bytes,
			 uint64_t size_bytes, uint64_t *ret)
{
	struct mw_starts *starts = &outside->starts;
	uint64_t step = span->shape == MW_SPAN_FIRSTS ? 16 : 8, mask = span->mask;
	uint32_t count = 0;

	if (span->shape == MW_SPAN_TRIPLES) {
		for (uint64_t i = 0; i + 24 <= size_bytes; i += 24) {
			uint64_t key = mw_word(bytes + i + 8), value = mw_word(bytes + i + 16);

			if (mw_starts_has(starts, key))
				ret[count++] = key;
			if (mw_starts_has(starts, value))
				ret[count++] = value;
		}
		return count;
	}
	for (uint64_t i = 0; i + 8 <= size_bytes; i += step) {
		uint64_t word = mw_word(bytes + i) & mask;

		if (mw_starts_has(starts, word))
			ret[count++] = word;
	}
	return count;
}
