#include "pyobject.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	SLOTS = MW_TYPES_MAX * 2,
	REFUSED = 1 << 16,
	TYPE_BYTES = 416, /* read of a type: up to tp_version_tag in every version */
	GC_HEADER_BYTES = 16,
	MANAGED_BYTES = 16,
	DICT_WALK_MAX = 4096,
	KEYS_HEADER_BYTES = 32,
	STATIC_TYPE_BYTES = 408, /* at least; sizeof(PyTypeObject) */
	BLOCK_BYTES = 66 * 8,	 /* of a deque */
};

enum offset { /* of PyTypeObject, the same from 3.8 to 3.15 */
	      TP_NAME = 24,
	      TP_BASICSIZE = 32,
	      TP_ITEMSIZE = 40,
	      TP_FLAGS = 168,
	      TP_DICT = 264,
};

static const uint64_t size_max = 1ULL << 40;
static const uint64_t items_max = 1ULL << 36;

/* qualname, cached keys: offsetof PyHeapTypeObject; from the headers of each version. */
static const struct mw_python_layout layouts[] = {
    {.minor = 8,
     .qualname = 864,
     .cached_keys = 872,
     .locals = 360,
     .frame_code = 32,
     .code_names = 72,
     .code_name = 112},
    {.minor = 9,
     .qualname = 856,
     .cached_keys = 864,
     .locals = 360,
     .frame_code = 32,
     .code_names = 72,
     .code_name = 112},
    {.minor = 10,
     .qualname = 864,
     .cached_keys = 872,
     .locals = 352,
     .frame_code = 32,
     .code_names = 72,
     .code_name = 112},
    {.minor = 11,
     .qualname = 864,
     .cached_keys = 872,
     .locals = 72,
     .frame_code = 32,
     .code_names = 96,
     .code_name = 128},
    {.minor = 12,
     .qualname = 872,
     .cached_keys = 880,
     .locals = 72,
     .frame_code = 0,
     .code_names = 96,
     .code_name = 128},
    {.minor = 13,
     .qualname = 872,
     .cached_keys = 880,
     .locals = 72,
     .frame_code = 0,
     .code_names = 96,
     .code_name = 128},
    {.minor = 14,
     .qualname = 872,
     .cached_keys = 880,
     .locals = 80,
     .frame_code = 0,
     .code_names = 96,
     .code_name = 128},
    {.minor = 15,
     .qualname = 880,
     .cached_keys = 888,
     .locals = 80,
     .frame_code = 0,
     .code_names = 96,
     .code_name = 128},
};

static int layout_of(uint32_t minor, struct mw_python_layout *ret)
{
	for (uint32_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
		if (layouts[i].minor != minor)
			continue;
		*ret = layouts[i];
		/* 3.12 dropped wstr from str; 3.14 put the hash into tuple; arenas grew in 3.10. */
		ret->ascii_header = minor >= 12 ? 40 : 48;
		ret->compact_header = minor >= 12 ? 56 : 72;
		ret->tuple_items = minor >= 14 ? 32 : 24;
		ret->pool_bytes = minor >= 10 ? 16384 : 4096;
		ret->count_needed = 0xffffffffULL;
		/* 3.12: immortal objects fill the low half; 3.14: flags and overflow above it. */
		ret->count_forbidden = minor >= 14   ? 0xff00ff0000000000ULL
				       : minor >= 12 ? 0xffffffff00000000ULL
						     : 0xffffffff80000000ULL;
		return 0;
	}
	return -EINVAL;
}

int mw_types_create(struct mw_regions *regions, const struct mw_interpreter *python, struct mw_types **ret)
{
	struct mw_types *types = calloc(1, sizeof(*types));
	int rc = types ? layout_of(python->minor, &types->layout) : -ENOMEM;

	if (rc) {
		free(types);
		return rc;
	}
	types->regions = regions;
	types->type_type = python->type_type;
	/* Untouched pages of these cost nothing. */
	types->all = calloc(MW_TYPES_MAX + 1, sizeof(*types->all));
	types->slots = calloc(SLOTS, sizeof(*types->slots));
	types->refused = calloc(REFUSED, sizeof(*types->refused));
	if (!types->all || !types->slots || !types->refused) {
		mw_types_destroy(types);
		return -ENOMEM;
	}
	*ret = types;
	return 0;
}

void mw_types_destroy(struct mw_types *types)
{
	if (!types)
		return;
	free(types->all);
	free(types->slots);
	free(types->refused);
	free(types);
}

static int read_whole(struct mw_regions *regions, uint64_t address, void *buffer, uint64_t size_bytes)
{
	return mw_regions_read(regions, address, buffer, size_bytes) == (int64_t)size_bytes;
}

/* Copy a C string of printable characters that begins like a name. */
static int read_name(struct mw_regions *regions, uint64_t address, char *name)
{
	int64_t got = mw_regions_read(regions, address, name, MW_TYPE_NAME_BYTES - 1);

	if (got <= 0)
		return 0;
	name[got] = 0;
	for (const unsigned char *c = (unsigned char *)name; *c; c++)
		if (*c < 0x20 || *c == 0x7f || *c == '"' || *c == '\\')
			return 0;
	return (name[0] >= 'A' && name[0] <= 'Z') || (name[0] >= 'a' && name[0] <= 'z') || name[0] == '_' ||
	       (unsigned char)name[0] >= 0x80;
}

/* Whether body, read at address, has a metatype: type itself, or a subclass of it that is ready. */
static int has_metatype(struct mw_types *types, uint64_t address, const uint8_t *body)
{
	uint64_t metatype = mw_word(body + 8);
	uint8_t meta[TP_FLAGS + 8];

	if (metatype == types->type_type || address == types->type_type)
		return 1;
	if ((metatype & 7) || !read_whole(types->regions, metatype, meta, sizeof(meta)))
		return 0;
	return (mw_word(meta + TP_FLAGS) >> 31 & 1) && (mw_word(meta + TP_FLAGS) & MW_TPFLAG_READY) &&
	       (mw_word(meta + 8) == types->type_type || mw_regions_find(types->regions, mw_word(meta + 8)));
}

/* By the fast subclass bits of tp_flags, else by name for what has none. */
static enum mw_type_kind kind_of(const struct mw_type *type)
{
	static const struct {
		int bit;
		enum mw_type_kind kind;
	} bits[] = {{24, MW_TYPE_INT},	 {28, MW_TYPE_STR},  {27, MW_TYPE_BYTES}, {25, MW_TYPE_LIST},
		    {26, MW_TYPE_TUPLE}, {29, MW_TYPE_DICT}, {31, MW_TYPE_TYPE}};
	static const struct {
		const char *name;
		enum mw_type_kind kind;
		uint32_t basic_bytes; /* at least what its readers read */
	} names[] = {
	    {"set", MW_TYPE_SET, 64},
	    {"frozenset", MW_TYPE_SET, 64},
	    {"bytearray", MW_TYPE_BYTEARRAY, 48},
	    {"collections.deque", MW_TYPE_DEQUE, 56},
	    {"module", MW_TYPE_MODULE, 24},
	    {"code", MW_TYPE_CODE, 136},
	    {"frame", MW_TYPE_FRAME, 24},
	    {"generator", MW_TYPE_GENERATOR, 96},
	    {"coroutine", MW_TYPE_GENERATOR, 96},
	    {"async_generator", MW_TYPE_GENERATOR, 96},
	    {"weakref", MW_TYPE_WEAKREF, 24},
	    {"weakref.ReferenceType", MW_TYPE_WEAKREF, 24},
	    {"weakproxy", MW_TYPE_WEAKREF, 24},
	    {"weakref.ProxyType", MW_TYPE_WEAKREF, 24},
	    {"weakref.CallableProxyType", MW_TYPE_WEAKREF, 24},
	    {"weakcallableproxy", MW_TYPE_WEAKREF, 24},
	    {"KeyedRef", MW_TYPE_WEAKREF, 24},
	    {"WeakMethod", MW_TYPE_WEAKREF, 24},
	};

	for (uint32_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		if (type->flags >> bits[i].bit & 1)
			return bits[i].kind;
	for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(type->name, names[i].name) && type->basic_bytes >= names[i].basic_bytes)
			return names[i].kind;
	return MW_TYPE_PLAIN;
}

static int probe(struct mw_types *types, uint64_t address, struct mw_type *ret)
{
	uint8_t body[TYPE_BYTES];
	int64_t basic, item;
	uint64_t managed;

	types->probes_total++;
	if (!read_whole(types->regions, address, body, sizeof(body)) || !has_metatype(types, address, body))
		return 0;
	memset(ret, 0, sizeof(*ret));
	basic = (int64_t)mw_word(body + TP_BASICSIZE);
	item = (int64_t)mw_word(body + TP_ITEMSIZE);
	ret->address = address;
	ret->flags = mw_word(body + TP_FLAGS);
	if (!(ret->flags & MW_TPFLAG_READY) || basic < 16 || basic >= 1 << 20 || item < 0 || item >= 1 << 16)
		return 0;
	if (!read_name(types->regions, mw_word(body + TP_NAME), ret->name))
		return 0;
	ret->basic_bytes = (uint32_t)basic;
	ret->item_bytes = (uint32_t)item;
	managed = types->layout.minor >= 12   ? MW_TPFLAG_MANAGED_DICT | MW_TPFLAG_MANAGED_WEAKREF
		  : types->layout.minor == 11 ? MW_TPFLAG_MANAGED_DICT
					      : 0;
	ret->front_bytes =
	    (uint16_t)((ret->flags & MW_TPFLAG_GC ? GC_HEADER_BYTES : 0) + (ret->flags & managed ? MANAGED_BYTES : 0));
	ret->kind = (uint8_t)kind_of(ret);
	return 1;
}

struct mw_type *mw_types_get(struct mw_types *types, uint64_t address)
{
	uint64_t hash = mw_hash(address);
	uint32_t slot = hash & (SLOTS - 1);
	struct mw_type found, *added;

	for (; types->slots[slot]; slot = (slot + 1) & (SLOTS - 1))
		if (types->all[types->slots[slot] - 1].address == address)
			return &types->all[types->slots[slot] - 1];
	if (types->refused[hash & (REFUSED - 1)] == address)
		return NULL;
	if (!probe(types, address, &found)) {
		types->refused[hash & (REFUSED - 1)] = address;
		return NULL;
	}
	if (types->count == MW_TYPES_MAX) {
		/* One row for them all; the last type met says what it looks like. */
		types->untracked_total++;
		added = &types->all[MW_TYPES_MAX];
		found.objects = added->objects;
		found.bytes = added->bytes;
		*added = found;
		memcpy(added->name, "(other types)", 14);
		return added;
	}
	added = &types->all[types->count++];
	*added = found;
	types->slots[slot] = types->count;
	return added;
}

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
	} else if (type->item_bytes && type->kind != MW_TYPE_GENERATOR) { /* whose size field is overwritten */
		int64_t size = (int64_t)mw_word(here + 16);
		uint64_t items = (uint64_t)(size < 0 ? -size : size);

		if (items > items_max || type->basic_bytes + items * type->item_bytes > room + type->item_bytes)
			return 0;
		object->size_bytes += items * type->item_bytes;
		if (type->kind == MW_TYPE_FRAME || type->kind == MW_TYPE_CODE)
			object->inline_bytes += items * type->item_bytes;
	}
	if (types->layout.minor >= 13 && (type->flags & MW_TPFLAG_INLINE_VALUES) &&
	    type->basic_bytes + 8 <= available) {
		/* The values follow the object: 8 bytes of sizes, a pointer and a place in the order for each. */
		uint64_t capacity = here[type->basic_bytes];

		object->inline_bytes += 8 + 9 * capacity;
		object->size_bytes += 8 + 9 * capacity;
	}
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
		break;
	case MW_TYPE_SET:
		is_object = read_set(types, here, available, address, ret);
		break;
	case MW_TYPE_DICT:
		is_object = read_dict(types, here, available, ret);
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
	if ((type->flags & MW_TPFLAG_GC) && before) {
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
	*ret = (struct mw_pool){(uint64_t)used * block_bytes, layout->pool_bytes, block_bytes};
	return 1;
}

int mw_python_str(struct mw_types *types, uint64_t address, char *buffer, uint32_t buffer_bytes)
{
	const struct mw_python_layout *layout = &types->layout;
	uint8_t body[128], text[512];
	struct mw_object object;
	uint64_t length, width, start;
	uint32_t state, is_ascii, count = 0;
	int64_t got;

	if (!mw_object_fetch(types, address, &object, body, sizeof(body)) || object.type->kind != MW_TYPE_STR)
		return -1;
	length = mw_word(body + 16);
	state = mw_half(body + 32);
	width = state >> 2 & 7;
	is_ascii = state >> 6 & 1;
	if (!(state >> 5 & 1) || (width != 1 && width != 2 && width != 4))
		return -1;
	start = address + (is_ascii ? layout->ascii_header : layout->compact_header);
	got = length ? mw_regions_read(types->regions, start, text,
				       length * width < sizeof(text) ? length * width : sizeof(text))
		     : 0;
	for (uint64_t i = 0; i < length && (int64_t)((i + 1) * width) <= got && count + 1 < buffer_bytes; i++) {
		const uint8_t *at = text + i * width;
		uint32_t point = width == 1 ? *at : width == 2 ? (uint32_t)(at[0] | at[1] << 8) : mw_half(at);

		buffer[count++] = point >= 0x20 && point < 0x7f ? (char)point : '?';
	}
	buffer[count] = 0;
	return (int)count;
}

uint64_t mw_python_dict_get(struct mw_types *types, uint64_t address, const char *key)
{
	uint8_t body[64], header[KEYS_HEADER_BYTES];
	struct mw_object object;
	struct mw_keys keys;
	char name[64];

	if (!mw_object_fetch(types, address, &object, body, sizeof(body)) || object.type->kind != MW_TYPE_DICT)
		return 0;
	if (!read_whole(types->regions, object.keys, header, sizeof(header)) ||
	    !mw_keys_read(&types->layout, header, &keys))
		return 0;
	for (uint64_t i = 0; i < keys.usable && i < DICT_WALK_MAX; i++) {
		uint64_t entry = object.keys + keys.entries + i * keys.entry_bytes, pair[2], value;

		if (!read_whole(types->regions, entry + keys.entry_bytes - 16, pair, sizeof(pair)))
			return 0;
		if (!pair[0] || mw_python_str(types, pair[0], name, sizeof(name)) < 0 || strcmp(name, key))
			continue;
		if (!object.values)
			return pair[1];
		return read_whole(types->regions, object.values + 8 * i, &value, sizeof(value)) ? value : 0;
	}
	return 0;
}

void mw_type_full_name(struct mw_types *types, const struct mw_type *type, char *buffer, uint32_t buffer_bytes)
{
	char module[64] = "", name[128] = "";
	uint64_t words[1];

	/* A class written in Python has its bare name in tp_name, and its module in its dict. */
	if ((type->flags & MW_TPFLAG_HEAPTYPE) && !strchr(type->name, '.')) {
		if (read_whole(types->regions, type->address + TP_DICT, words, 8) && words[0]) {
			uint64_t value = mw_python_dict_get(types, words[0], "__module__");

			if (!value || mw_python_str(types, value, module, sizeof(module)) < 0)
				module[0] = 0;
		}
		if (!read_whole(types->regions, type->address + types->layout.qualname, words, 8) ||
		    mw_python_str(types, words[0], name, sizeof(name)) < 0)
			name[0] = 0;
	}
	if (!name[0])
		strcpy(name, type->name);
	if (!strcmp(module, "builtins"))
		module[0] = 0;
	buffer[0] = 0;
	strncat(buffer, module, buffer_bytes - 1);
	if (module[0])
		strncat(buffer, ".", buffer_bytes - 1 - strlen(buffer));
	strncat(buffer, name, buffer_bytes - 1 - strlen(buffer));
}

int mw_python_find(struct mw_regions *regions, uint64_t start, uint64_t end, uint64_t *ret)
{
	enum { CHUNK = 1 << 16 };
	uint64_t low, high;
	uint8_t *chunk = malloc(CHUNK);
	int rc = -ENOENT;

	if (!chunk)
		return -ENOMEM;
	while (rc && mw_regions_next(regions, start, end, &low, &high)) {
		uint64_t wanted = high - low < CHUNK ? high - low : CHUNK;
		int64_t got = mw_regions_read(regions, low, chunk, wanted);

		start = low + wanted;
		for (int64_t i = 0; i + 16 <= got; i += 8) {
			uint64_t address = low + (uint64_t)i, words[1];
			char name[MW_TYPE_NAME_BYTES];

			if (mw_word(chunk + i + 8) != address)
				continue;
			if (read_whole(regions, address + TP_NAME, words, 8) && read_name(regions, words[0], name) &&
			    !strcmp(name, "type") && read_whole(regions, address + TP_FLAGS, words, 8) &&
			    (words[0] & MW_TPFLAG_READY) && (words[0] >> 31 & 1)) {
				*ret = address;
				rc = 0;
				break;
			}
		}
	}
	free(chunk);
	return rc;
}
