#include "pylabel.h"

#include <stdio.h>
#include <string.h>

enum {
	TP_MEMBERS = 240,
	TP_BASE = 256,
	MEMBER_BYTES = 40, /* struct PyMemberDef */
	MEMBERS_MAX = 256,
	BASES_MAX = 16,
	MODULE_DICT = 16,
};

static uint64_t read_word(struct mw_types *types, uint64_t address)
{
	uint64_t word;

	return mw_regions_read(types->regions, address, &word, sizeof(word)) == sizeof(word) ? word : 0;
}

void mw_label_key(struct mw_types *types, uint64_t address, char *buffer, uint32_t buffer_bytes)
{
	struct mw_object object;
	char text[64] = "";
	uint8_t body[64];

	buffer[0] = 0;
	if (!mw_object_fetch(types, address, &object, body, sizeof(body)))
		return;
	if (object.type->kind == MW_TYPE_STR && mw_python_str(types, address, text, sizeof(text)) >= 0) {
		snprintf(buffer, buffer_bytes, "'%s'", text);
	} else if (object.type->kind == MW_TYPE_INT) {
		int64_t size = (int64_t)mw_word(body + 16), digits = size < 0 ? -size : size;
		int64_t value;

		if (types->layout.minor >= 12) {
			digits = size >> 3;
			size = (size & 3) == 2 ? -digits : digits;
		}
		value = digits >= 1 ? mw_half(body + 24) : 0;
		if (digits >= 2)
			value |= (int64_t)mw_half(body + 28) << 30;
		snprintf(buffer, buffer_bytes, digits > 2 ? "<int>" : "%lld", (long long)(size < 0 ? -value : value));
	} else {
		snprintf(buffer, buffer_bytes, "<%s>", object.type->name);
	}
}

int mw_label_entry(struct mw_types *types, uint64_t keys, uint64_t index, char *buffer, uint32_t buffer_bytes)
{
	uint8_t header[32];
	struct mw_keys table;
	uint64_t key;

	if (mw_regions_read(types->regions, keys, header, sizeof(header)) != sizeof(header) ||
	    !mw_keys_read(&types->layout, header, &table) || index >= table.usable)
		return 0;
	key = read_word(types, keys + table.entries + index * table.entry_bytes + table.entry_bytes - 16);
	return key && mw_python_str(types, key, buffer, buffer_bytes) > 0;
}

static int label_member(struct mw_types *types, uint64_t members, uint64_t offset, char *buffer, uint32_t buffer_bytes)
{
	for (uint32_t i = 0; members && i < MEMBERS_MAX; i++) {
		uint8_t member[MEMBER_BYTES];
		int64_t got;

		if (mw_regions_read(types->regions, members + i * MEMBER_BYTES, member, sizeof(member)) !=
			sizeof(member) ||
		    !mw_word(member))
			return 0;
		if (mw_word(member + 16) != offset)
			continue;
		got = mw_regions_read(types->regions, mw_word(member), buffer, buffer_bytes - 1);
		if (got <= 0)
			return 0;
		buffer[got] = 0;
		for (char *c = buffer; *c; c++)
			if (*c < 0x20 || *c > 0x7e)
				*c = '?';
		return buffer[0] != 0;
	}
	return 0;
}

int mw_label_field(struct mw_types *types, const struct mw_type *type, uint64_t offset, char *buffer,
		   uint32_t buffer_bytes)
{
	const struct mw_type *base = type;

	if (types->layout.minor >= 13 && (type->flags & MW_TPFLAG_INLINE_VALUES) && offset >= type->basic_bytes + 8) {
		uint64_t keys = read_word(types, type->address + types->layout.cached_keys);

		return keys && mw_label_entry(types, keys, (offset - type->basic_bytes - 8) / 8, buffer, buffer_bytes);
	}
	for (int i = 0; base && i < BASES_MAX; i++) {
		uint64_t next;

		if (label_member(types, read_word(types, base->address + TP_MEMBERS), offset, buffer, buffer_bytes))
			return 1;
		next = read_word(types, base->address + TP_BASE);
		base = next ? mw_types_get(types, next) : NULL;
	}
	return 0;
}

void mw_label_object(struct mw_types *types, uint64_t address, char *buffer, uint32_t buffer_bytes)
{
	struct mw_object object;
	uint8_t body[160];
	uint64_t name = 0;

	buffer[0] = 0;
	if (!mw_object_fetch(types, address, &object, body, sizeof(body)))
		return;
	if (object.type->kind == MW_TYPE_TYPE) {
		struct mw_type *type = mw_types_get(types, address);

		if (type)
			mw_type_full_name(types, type, buffer, buffer_bytes);
		return;
	}
	if (object.type->kind == MW_TYPE_MODULE)
		name = mw_python_dict_get(types, mw_word(body + MODULE_DICT), "__name__");
	else if (object.type->kind == MW_TYPE_CODE)
		name = mw_word(body + types->layout.code_name);
	else if (!strcmp(object.type->name, "function"))
		name = mw_word(body + (types->layout.minor >= 10 ? 40 : 104)); /* func_qualname */
	if (!name || mw_python_str(types, name, buffer, buffer_bytes) < 0)
		buffer[0] = 0;
}

void mw_label_local(struct mw_types *types, uint64_t code, int64_t index, char *buffer, uint32_t buffer_bytes)
{
	char function[48] = "?", name[40] = "";
	uint64_t names = read_word(types, code + types->layout.code_names), length = read_word(types, names + 16);

	mw_label_object(types, code, function, sizeof(function));
	if (names && index >= 0 && (uint64_t)index < length) {
		uint64_t text = read_word(types, names + types->layout.tuple_items + 8 * (uint64_t)index);

		if (!text || mw_python_str(types, text, name, sizeof(name)) < 0)
			name[0] = 0;
	}
	snprintf(buffer, buffer_bytes, "%s() %s", function, name[0] ? name : "on its value stack");
}
