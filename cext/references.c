#include "references.h"
#include "pylabel.h"

#include <stdio.h>

enum {
	FRAME_WORDS_MAX = 96, /* locals and value stack searched through for the head of a frame */
	LINKS_MAX = 1 << 16,  /* of a deque */
	FREE_LIST_RUN = 8,    /* pointers to one type in a row; the interpreter has threes of its own */
};

static uint64_t read_word(struct mw_holders *holders, uint64_t address)
{
	uint64_t word;

	return mw_regions_read(holders->regions, address, &word, sizeof(word)) == sizeof(word) ? word : 0;
}

static void set_owner(struct mw_holders *holders, struct mw_reference *reference, uint64_t owner)
{
	struct mw_type *type = mw_types_get(holders->types, read_word(holders, owner + 8));

	reference->owner = owner;
	reference->owner_type = type ? type->address : 0;
	reference->owner_kind = type ? type->kind : 0;
}

/* The word is an entry of the key table of a dict. */
/* Behind a list's last item is room for more, with whatever lay there before: it
 * is not cleaned, and holds nothing. */
static void explain_item(struct mw_holders *holders, struct mw_reference *reference, uint64_t place, uint64_t list)
{
	set_owner(holders, reference, list);
	reference->how = place < read_word(holders, list + 16) ? MW_BY_ITEM : MW_BY_WEAK;
	reference->place = (int64_t)place;
}

static int explain_keys(struct mw_holders *holders, struct mw_reference *reference, uint64_t keys, uint64_t owner)
{
	uint64_t offset = reference->location - keys, entry, pair[2];
	struct mw_keys table;
	uint8_t header[32];

	if (mw_regions_read(holders->regions, keys, header, sizeof(header)) != sizeof(header) ||
	    !mw_keys_read(&holders->types->layout, header, &table) || offset < table.entries ||
	    offset >= table.entries + table.usable * table.entry_bytes)
		return 0;
	set_owner(holders, reference, owner);
	reference->place = (int64_t)((offset - table.entries) / table.entry_bytes);
	entry = keys + table.entries + (uint64_t)reference->place * table.entry_bytes + table.entry_bytes - 16;
	if (reference->location == entry) {
		reference->how = MW_BY_BEING_KEY;
		return 1;
	}
	reference->how = MW_BY_KEY;
	if (mw_regions_read(holders->regions, entry, pair, sizeof(pair)) == sizeof(pair))
		mw_label_key(holders->types, pair[0], reference->label, sizeof(reference->label));
	return 1;
}

/* The word is one of the values of a dict, or of an object (3.11), whose keys are shared. */
static void explain_values(struct mw_holders *holders, struct mw_reference *reference, uint64_t values, uint64_t keys,
			   uint64_t owner)
{
	char name[64];

	set_owner(holders, reference, owner);
	reference->place = (int64_t)(reference->location - values) / 8;
	reference->how = reference->owner_kind == MW_TYPE_DICT ? MW_BY_KEY : MW_BY_ATTRIBUTE;
	if (keys && mw_label_entry(holders->types, keys, (uint64_t)reference->place, name, sizeof(name)))
		snprintf(reference->label, sizeof(reference->label), reference->how == MW_BY_KEY ? "'%s'" : "%s", name);
}

void mw_reference_in_object(struct mw_holders *holders, struct mw_reference *reference, uint64_t object)
{
	const struct mw_python_layout *layout = &holders->types->layout;
	int64_t offset = (int64_t)(reference->location - object);
	struct mw_type *type;

	set_owner(holders, reference, object);
	type = mw_types_get(holders->types, reference->owner_type);
	reference->how = MW_BY_FIELD;
	reference->place = offset;
	if (!type || offset < 16)
		return;
	if (type->kind == MW_TYPE_WEAKREF && offset == 16) {
		reference->how = MW_BY_WEAK;
	} else if (type->kind == MW_TYPE_TUPLE && offset >= layout->tuple_items) {
		reference->how = MW_BY_ITEM;
		reference->place = (offset - layout->tuple_items) / 8;
	} else if (type->kind == MW_TYPE_SET) {
		reference->how = MW_BY_MEMBER; /* in the small table inside the object */
	} else if (type->kind == MW_TYPE_FRAME && layout->minor <= 10 && offset >= layout->locals) {
		reference->how = MW_BY_LOCAL;
		mw_label_local(holders->types, read_word(holders, object + layout->frame_code),
			       (offset - layout->locals) / 8, reference->label, sizeof(reference->label));
	} else if (mw_type_has_frame_inside(layout, type) && offset >= type->basic_bytes) {
		/* basic size: all before the locals of the frame inside */
		reference->how = MW_BY_LOCAL;
		mw_label_local(holders->types,
			       read_word(holders, object + type->basic_bytes - layout->locals + layout->frame_code) &
				   ~7ULL,
			       (offset - type->basic_bytes) / 8, reference->label, sizeof(reference->label));
	} else if (mw_label_field(holders->types, type, (uint64_t)offset, reference->label, sizeof(reference->label))) {
		reference->how = MW_BY_ATTRIBUTE;
	}
}

static int read_words(struct mw_holders *holders, uint64_t address, uint64_t *words, uint64_t count)
{
	return mw_regions_read(holders->regions, address, words, 8 * count) == (int64_t)(8 * count);
}

/* Look back for the head of a frame (3.11): its code, then so many words of locals. */
static int explain_frame(struct mw_holders *holders, struct mw_reference *reference)
{
	const struct mw_python_layout *layout = &holders->types->layout;
	const struct mw_mapping *own = mw_regions_find(holders->regions, reference->location);
	uint64_t words[FRAME_WORDS_MAX], room = own ? (reference->location - own->start) / 8 : 0;
	uint64_t locals_words = (layout->locals - layout->frame_code) / 8;

	room = room < FRAME_WORDS_MAX ? room : FRAME_WORDS_MAX;
	/* The first frames of a thread lie at the start of their memory: in front of it may be nothing. */
	if (!read_words(holders, reference->location - 8 * room, words, room)) {
		room = reference->location % MW_PAGE_BYTES / 8 < room ? reference->location % MW_PAGE_BYTES / 8 : room;
		if (!read_words(holders, reference->location - 8 * room, words, room))
			return 0;
	}
	if (layout->minor < 11)
		return 0;
	for (uint64_t back = locals_words; back <= room; back++) {
		uint64_t code = words[room - back] & ~7ULL;
		const struct mw_mapping *mapping = mw_regions_find(holders->regions, code);
		struct mw_type *type;

		if (!mapping || !(mapping->flags & MW_MAPPING_WRITE))
			continue;
		type = mw_types_get(holders->types, read_word(holders, code + 8));
		if (!type || type->kind != MW_TYPE_CODE)
			continue;
		reference->how = MW_BY_LOCAL;
		reference->place = (int64_t)(back - locals_words);
		mw_label_local(holders->types, code, reference->place, reference->label, sizeof(reference->label));
		return 1;
	}
	return 0;
}

/* A block of a deque by its neighbours: left and right links answer each other. */
static int explain_deque(struct mw_holders *holders, struct mw_reference *reference)
{
	for (uint64_t index = 0; index < MW_DEQUE_BLOCK_WORDS - 2; index++) {
		uint64_t block = reference->location - 8 - 8 * index, left = read_word(holders, block);

		for (uint32_t steps = 0; left && steps < LINKS_MAX; steps++) {
			uint64_t low = 0, high = holders->table_count;

			if ((left & 15) || read_word(holders, left + 8 * (MW_DEQUE_BLOCK_WORDS - 1)) != block)
				break;
			while (low < high) {
				uint64_t middle = (low + high) / 2;

				if (holders->tables[middle].start < left)
					low = middle + 1;
				else
					high = middle;
			}
			if (low < holders->table_count && holders->tables[low].start == left &&
			    (holders->tables[low].end_kind & 0xff) == TABLE_DEQUE) {
				set_owner(holders, reference, holders->tables[low].owner);
				reference->how = MW_BY_QUEUE;
				return 1;
			}
			block = left;
			left = read_word(holders, block);
		}
	}
	return 0;
}

/* The word lies in a large table whose owner the first pass noted. */
static int explain_table(struct mw_holders *holders, struct mw_reference *reference)
{
	uint32_t low = 0, high = holders->table_count;
	const struct table *table;
	uint64_t offset, bytes, keys;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (holders->tables[middle].start <= reference->location)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return 0;
	table = &holders->tables[low - 1];
	offset = reference->location - table->start;
	bytes = table->end_kind >> 8;
	switch (table->end_kind & 0xff) {
	case TABLE_KEYS:
		return explain_keys(holders, reference, table->start, table->owner);
	case TABLE_VALUES:
		keys = read_word(holders, table->owner + 32);
		if (offset >= bytes)
			return 0;
		explain_values(holders, reference, table->start, keys, table->owner);
		return 1;
	case TABLE_LIST:
		if (offset >= bytes)
			return 0;
		explain_item(holders, reference, offset / 8, table->owner);
		return 1;
	case TABLE_SET:
	case TABLE_DEQUE:
		if (offset >= bytes)
			return 0;
		set_owner(holders, reference, table->owner);
		reference->how = (table->end_kind & 0xff) == TABLE_SET ? MW_BY_MEMBER : MW_BY_QUEUE;
		reference->place = (int64_t)(offset / 8);
		return 1;
	case TABLE_TUPLE:
		if (offset >= bytes)
			return 0;
		mw_reference_in_object(holders, reference, table->owner);
		return 1;
	default:
		return 0;
	}
}

/* Up to 3.13 the interpreter keeps dead objects of a type in an array of its
 * static data.  What was taken out of it again stands there still. */
static int is_in_free_list(struct mw_holders *holders, const struct mw_reference *reference)
{
	const struct mw_mapping *own = mw_regions_find(holders->regions, reference->location);
	uint64_t type = read_word(holders, reference->target + 8), words[2 * FREE_LIST_RUN - 1];
	uint32_t run = 1;

	if (!own || own != mw_regions_find(holders->regions, holders->types->type_type) ||
	    !read_words(holders, reference->location - 8 * (FREE_LIST_RUN - 1), words, 2 * FREE_LIST_RUN - 1))
		return 0;
	for (uint32_t i = FREE_LIST_RUN - 1; i-- && !(words[i] & 15) && read_word(holders, words[i] + 8) == type;)
		run++;
	for (uint32_t i = FREE_LIST_RUN; i < 2 * FREE_LIST_RUN - 1; i++) {
		if ((words[i] & 15) || read_word(holders, words[i] + 8) != type)
			break;
		run++;
	}
	return run >= FREE_LIST_RUN;
}

/* A hit that no object's own body explains. */
void mw_reference_in_raw(struct mw_holders *holders, struct mw_reference *reference, uint32_t flags)
{
	if (flags & MW_MAPPING_STACK)
		reference->how = MW_BY_STACK;
	else if (explain_table(holders, reference))
		return;
	else if (flags & MW_MAPPING_FILE)
		reference->how = is_in_free_list(holders, reference) ? MW_BY_FREE_LIST : MW_BY_STATIC;
	else if (!explain_frame(holders, reference) && !explain_deque(holders, reference))
		reference->how = MW_BY_RAW;
}

void mw_reference_in_small(struct mw_holders *holders, struct mw_reference *reference, const struct small_table *table)
{
	switch (table ? table->kind : 0) {
	case TABLE_KEYS:
		if (!explain_keys(holders, reference, table->block, table->owner))
			reference->how = MW_BY_RAW;
		break;
	case TABLE_VALUES:
		explain_values(holders, reference, table->values, table->keys, table->owner);
		break;
	case TABLE_LIST:
		explain_item(holders, reference, (reference->location - table->block) / 8, table->owner);
		break;
	case TABLE_SET:
		set_owner(holders, reference, table->owner);
		reference->how = MW_BY_MEMBER;
		reference->place = (int64_t)(reference->location - table->block) / 8;
		break;
	default:
		reference->how = MW_BY_RAW;
	}
}
