#include "pyobject.h"

#include <string.h>

enum {
	TP_FLAGS = 168, /* of PyTypeObject */
	KEYS_HEADER_BYTES = 32,
	STATIC_TYPE_BYTES = 408, /* at least; sizeof(PyTypeObject) */
	BLOCK_BYTES = 66 * 8,	 /* of a deque */
};

static const uint64_t size_max = 1ULL << 40;
static const uint64_t items_max = 1ULL << 36;

/* Whether [address, address + size_bytes) lies in one readable mapping. */
static int is_mapped(struct mw_types *types, uint64_t address, uint64_t size_bytes)
{
	const struct mw_mapping *mapping;

	if ((address & 7) || address >> 47)
		return 0;
	mapping = mw_regions_find(types->regions, address);
	return mapping && (mapping->flags & MW_MAPPING_READ) && size_bytes <= mapping->end - address;
}

static int read_int(struct mw_types *types, const uint8_t *here, uint64_t room, struct mw_object *object)
{
	int64_t size = (int64_t)mw_word(here + 16);
	uint64_t digits = (uint64_t)(size < 0 ? -size : size);

	if (types->layout.minor >= 12) { /* lv_tag: sign in the low bits, digits above */
		if ((size & 7) > 6)
			return 0;
		digits = (uint64_t)size >> 3;
	}
	if (digits >= 1 << 26 || 24 + 4 * digits > room)
		return 0;
	if (types->layout.minor >= 12 && !digits)
		digits = 1;
	object->inline_bytes = 24 + 4 * digits;
	object->size_bytes = object->inline_bytes + object->type->front_bytes;
	return 1;
}

static int read_str(struct mw_types *types, const uint8_t *here, uint64_t available, uint64_t room,
		    struct mw_object *object)
{
	const struct mw_python_layout *layout = &types->layout;
	uint64_t length = mw_word(here + 16), size_bytes;
	uint32_t state, width, is_compact, is_ascii;

	if (available < 40 || length >= size_max)
		return 0;
	state = mw_half(here + 32);
	width = state >> 2 & 7;
	is_compact = state >> 5 & 1;
	is_ascii = state >> 6 & 1;
	if ((width != 1 && width != 2 && width != 4 && !(width == 0 && layout->minor < 12)) || (is_ascii && width != 1))
		return 0;
	if (!is_compact)
		return object->type->basic_bytes <= room;
	size_bytes =
	    is_ascii ? layout->ascii_header + length + 1 : layout->compact_header + (length + 1) * (width ? width : 1);
	if (size_bytes > room || (is_ascii && size_bytes <= available && here[size_bytes - 1]))
		return 0;
	object->inline_bytes = size_bytes;
	object->size_bytes = size_bytes + object->type->front_bytes;
	return 1;
}

static int read_bytes(const uint8_t *here, uint64_t available, uint64_t room, struct mw_object *object)
{
	uint64_t length = mw_word(here + 16);

	if (length >= size_max || 33 + length > room || (33 + length <= available && here[32 + length]))
		return 0;
	object->inline_bytes = 33 + length;
	object->size_bytes = object->inline_bytes + object->type->front_bytes;
	return 1;
}

static int read_tuple(const uint8_t *here, uint64_t room, struct mw_object *object)
{
	uint64_t length = mw_word(here + 16), size_bytes;

	if (length >= items_max)
		return 0;
	size_bytes = object->type->basic_bytes + 8 * length;
	if (size_bytes > room + 8)
		return 0;
	object->inline_bytes = size_bytes;
	object->size_bytes = size_bytes + object->type->front_bytes;
	return 1;
}

static int read_list(struct mw_types *types, const uint8_t *here, uint64_t available, struct mw_object *object)
{
	uint64_t length = mw_word(here + 16), items = mw_word(here + 24), allocated;

	if (available < 40)
		return 0;
	allocated = mw_word(here + 32);
	if (length > allocated || allocated >= items_max || (allocated && !is_mapped(types, items, 8 * allocated)))
		return 0;
	object->buffer = allocated ? items : 0;
	object->buffer_bytes = 8 * allocated;
	object->size_bytes += 8 * allocated;
	return 1;
}

static int read_set(struct mw_types *types, const uint8_t *here, uint64_t available, uint64_t address,
		    struct mw_object *object)
{
	uint64_t mask, table;

	if (available < 48)
		return 0;
	mask = mw_word(here + 32);
	table = mw_word(here + 40);
	if (mask < 7 || (mask & (mask + 1)) || mask >= items_max)
		return 0;
	if (table < address || table >= address + object->type->basic_bytes) {
		if (!is_mapped(types, table, 16 * (mask + 1)))
			return 0;
		object->buffer = table;
		object->buffer_bytes = 16 * (mask + 1);
	}
	object->size_bytes += object->buffer_bytes;
	return 1;
}

static int read_dict(struct mw_types *types, const uint8_t *here, uint64_t available, struct mw_object *object)
{
	if (available < 48 || mw_word(here + 16) >= items_max)
		return 0;
	object->keys = mw_word(here + 32);
	object->values = mw_word(here + 40) & ~7ULL;
	return object->keys && is_mapped(types, object->keys, KEYS_HEADER_BYTES);
}

static int read_bytearray(const uint8_t *here, uint64_t available, struct mw_object *object)
{
	uint64_t allocated;

	if (available < 40)
		return 0;
	allocated = mw_word(here + 24);
	if (allocated >= size_max || mw_word(here + 16) > allocated)
		return 0;
	object->buffer = allocated ? mw_word(here + 32) : 0;
	object->buffer_bytes = allocated;
	object->size_bytes += allocated;
	return 1;
}

static int read_deque(struct mw_types *types, const uint8_t *here, uint64_t available, struct mw_object *object)
{
	uint64_t length, left, right;

	if (available < 56)
		return 0;
	/* A block holds 64 items between its two links; left and right are indexes in the end blocks. */
	length = mw_word(here + 16);
	left = mw_word(here + 40);
	right = mw_word(here + 48);
	if (length >= items_max || left > 64 || right > 63 || ((left + length - 1) & 63) != right)
		return 0;
	object->buffer = mw_word(here + 24);
	object->buffer_bytes = (length + left + 63) / 64 * BLOCK_BYTES;
	object->size_bytes += object->buffer_bytes;
	return is_mapped(types, object->buffer, BLOCK_BYTES);
}

/* What follows an object of 3.13 and later: 8 bytes of sizes, then for each attribute a pointer and
 * a place in the order. */
static uint64_t inline_values(const struct mw_types *types, const struct mw_type *type, const uint8_t *here,
			      uint64_t available)
{
	if (types->layout.minor < 13 || !(type->flags & MW_TPFLAG_INLINE_VALUES) || type->basic_bytes + 8 > available)
		return 0;
	return 8 + 9 * (uint64_t)here[type->basic_bytes];
}

/* Objects whose type says no more than basic and item size. */
static int read_plain(struct mw_types *types, const uint8_t *here, uint64_t available, uint64_t room,
		      struct mw_object *object)
{
	const struct mw_type *type = object->type;

	if (type->kind == MW_TYPE_TYPE) {
		uint64_t members = mw_word(here + 16);

		object->size_bytes += members < 4096 ? members * type->item_bytes : 0;
		/* a static type has none of what PyHeapTypeObject adds: other data follows it */
		if (available >= TP_FLAGS + 8 && !(mw_word(here + TP_FLAGS) & MW_TPFLAG_HEAPTYPE) &&
		    object->inline_bytes > STATIC_TYPE_BYTES)
			object->inline_bytes = STATIC_TYPE_BYTES;
	} else if (type->item_bytes && !mw_type_has_frame_inside(&types->layout, type)) {
		int64_t size = (int64_t)mw_word(here + 16);
		uint64_t items = (uint64_t)(size < 0 ? -size : size);

		if (items > items_max || type->basic_bytes + items * type->item_bytes > room + type->item_bytes)
			return 0;
		object->size_bytes += items * type->item_bytes;
		if (type->kind == MW_TYPE_FRAME || type->kind == MW_TYPE_CODE)
			object->inline_bytes += items * type->item_bytes;
	}
	object->size_bytes += inline_values(types, type, here, available);
	object->inline_bytes += inline_values(types, type, here, available);
	return type->basic_bytes <= room;
}

int mw_object_read(struct mw_types *types, const uint8_t *here, uint64_t available, const uint8_t *before,
		   uint64_t address, uint64_t limit, struct mw_object *ret)
{
	uint64_t room = limit - address, link;
	struct mw_type *type;
	int is_object;

	if (available < 16 || !mw_looks_like_object(&types->layout, mw_word(here), mw_word(here + 8)))
		return 0;
	type = mw_types_recent(types, mw_word(here + 8));
	if (!type)
		return 0;
	*ret = (struct mw_object){
	    .type = type,
	    .inline_bytes = type->basic_bytes,
	    .size_bytes = (uint64_t)type->basic_bytes + type->front_bytes,
	};
	if (available < 24)
		return type->basic_bytes <= available;
	switch (type->kind) {
	case MW_TYPE_INT:
		is_object = read_int(types, here, room, ret);
		break;
	case MW_TYPE_STR:
		is_object = read_str(types, here, available, room, ret);
		break;
	case MW_TYPE_BYTES:
		is_object = read_bytes(here, available, room, ret);
		break;
	case MW_TYPE_TUPLE:
		is_object = read_tuple(here, room, ret);
		break;
	case MW_TYPE_LIST:
		is_object = read_list(types, here, available, ret);
		ret->inline_bytes += inline_values(types, type, here, available); /* of a subclass (3.14) */
		break;
	case MW_TYPE_SET:
		is_object = read_set(types, here, available, address, ret);
		ret->inline_bytes += inline_values(types, type, here, available);
		break;
	case MW_TYPE_DICT:
		is_object = read_dict(types, here, available, ret);
		ret->inline_bytes += inline_values(types, type, here, available);
		break;
	case MW_TYPE_BYTEARRAY:
		is_object = read_bytearray(here, available, ret);
		break;
	case MW_TYPE_DEQUE:
		is_object = read_deque(types, here, available, ret);
		break;
	default:
		is_object = read_plain(types, here, available, room, ret);
	}
	if (!is_object || ret->inline_bytes > room + 16)
		return 0;
	if ((type->flags & MW_TPFLAG_GC) && before && types->layout.minor >= 8) {
		/* The list link in front of a tracked object: 3.13's heads are 4-byte aligned. */
		link = mw_word(before);
		if ((link & ~3ULL) && ((link & 4) || link >> 47))
			return types->layout.minor >= 13 && !(link >> 47);
	}
	return 1;
}

int mw_object_fetch(struct mw_types *types, uint64_t address, struct mw_object *ret, uint8_t *body, uint64_t body_bytes)
{
	const struct mw_mapping *mapping = mw_regions_find(types->regions, address);
	int64_t got;

	if (!mapping || (address & 7))
		return 0;
	got = mw_regions_read(types->regions, address, body, body_bytes);
	if (got < 16)
		return 0;
	memset(body + got, 0, body_bytes - (uint64_t)got);
	return mw_object_read(types, body, (uint64_t)got, NULL, address, mapping->end, ret);
}

int mw_keys_read(const struct mw_python_layout *layout, const uint8_t *header, struct mw_keys *ret)
{
	int64_t count = (int64_t)mw_word(header);

	*ret = (struct mw_keys){.is_shared = count != 1};
	if (count <= 0)
		return 0;
	if (layout->minor >= 11) {
		uint8_t log2_size = header[8], log2_index_bytes = header[9], kind = header[10];

		/* an index is 1, 2, 4 or 8 bytes wide, as the size needs */
		if (log2_size > 40 || kind > 2 ||
		    log2_index_bytes != log2_size + (log2_size < 8    ? 0
						     : log2_size < 16 ? 1
						     : log2_size < 32 ? 2
								      : 3))
			return 0;
		ret->usable = (2ULL << log2_size) / 3;
		if (mw_word(header + 16) > ret->usable || mw_word(header + 24) > ret->usable)
			return 0;
		ret->entries = 32 + (1ULL << log2_index_bytes);
		ret->entry_bytes = kind ? 16 : 24;
		ret->size_bytes = log2_size ? ret->entries + ret->usable * ret->entry_bytes : 0;
		if (count >= 1 << 30)
			ret->size_bytes = 0;
	} else {
		uint64_t size = mw_word(header + 8);

		if (!size || size >= size_max || (size & (size - 1)))
			return 0;
		ret->usable = size * 2 / 3;
		if (mw_word(header + 24) > ret->usable)
			return 0;
		ret->entries = 40 + size * (size <= 0xff ? 1 : size <= 0xffff ? 2 : size <= 0xffffffffULL ? 4 : 8);
		ret->entry_bytes = 24;
		ret->size_bytes = size > 1 ? ret->entries + ret->usable * 24 : 0;
	}
	return 1;
}

int mw_pool_read(const struct mw_python_layout *layout, const uint8_t *header, uint64_t address, struct mw_pool *ret)
{
	enum { OVERHEAD = 48, CLASSES = 32, CLASS_BYTES = 16 };
	uint32_t used = mw_half(header), class = mw_half(header + 36), next = mw_half(header + 40),
		 last = mw_half(header + 44), block_bytes;
	uint64_t free_block = mw_word(header + 8);

	if (class >= CLASSES || (address & (layout->pool_bytes - 1)))
		return 0;
	block_bytes = (class + 1) * CLASS_BYTES;
	if (last != layout->pool_bytes - block_bytes || next < OVERHEAD + block_bytes || next > layout->pool_bytes ||
	    used > (layout->pool_bytes - OVERHEAD) / block_bytes || mw_half(header + 32) > 1 << 24)
		return 0;
	if (free_block && (free_block < address + OVERHEAD || free_block > address + last))
		return 0;
	if (next > last + block_bytes)
		next = last + block_bytes;
	*ret = (struct mw_pool){
	    .in_use_bytes = (uint64_t)used * block_bytes,
	    .pool_bytes = layout->pool_bytes,
	    .block_bytes = block_bytes,
	    .block_count = (next - OVERHEAD) / block_bytes,
	    .used_count = used,
	};
	return 1;
}
