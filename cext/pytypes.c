#include "pyobject.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	SLOTS = MW_TYPES_MAX * 2,
	REFUSED = 1 << 16,
	TYPE_BYTES = 400, /* read of a type: the least that PyTypeObject has in any version */
	GC_HEADER_BYTES = 16,
	OLD_GC_HEADER_BYTES = 32, /* up to 3.7: with a count of its own, and aligned for long double */
	MANAGED_BYTES = 16,
	DICT_WALK_MAX = 4096,
	KEYS_HEADER_BYTES = 32,
};

enum offset { /* of PyTypeObject, the same from 3.8 to 3.15 */
	      TP_NAME = 24,
	      TP_BASICSIZE = 32,
	      TP_ITEMSIZE = 40,
	      TP_FLAGS = 168,
	      TP_DICT = 264,
};

/* qualname, cached keys: offsetof PyHeapTypeObject; from the headers of each version. */
static const struct mw_python_layout layouts[] = {
    {.minor = 7, /* and 3.6, but for the locals of a frame, which lie 16 bytes further there */
     .qualname = 848,
     .cached_keys = 856,
     .locals = 360,
     .frame_code = 32,
     .code_names = 64,
     .code_name = 104},
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
	uint32_t gc_bytes;
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
	gc_bytes = types->layout.minor < 8 ? OLD_GC_HEADER_BYTES : GC_HEADER_BYTES;
	ret->front_bytes =
	    (uint16_t)((ret->flags & MW_TPFLAG_GC ? gc_bytes : 0) + (ret->flags & managed ? MANAGED_BYTES : 0));
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
