/* outside_names.c - what the edges of the graph are called.
 *
 * A name costs one or two reads of the target for its text, so names wait until
 * they are many, and a text is read once.  Nobody needs the key of each of a
 * million entries: dicts of the same keys and instances of a class are named so
 * many times, and dicts that hold data rather than fields not at all.
 *
 * Texts go out only if they are like identifiers, so no JSON needs escaping and
 * no value of the program gets into the file. */

#include "outside_parts.h"
#include "pylabel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	LABELS_MAX = 1 << 18,
	LABEL_SLOTS = 2 * LABELS_MAX,
	WAITING_MAX = 1 << 16,
	NAMES_MAX = 4000000,
	SHAPES = 1 << 16,
	PER_SHAPE_MAX = 4096,
	RECORD_KEYS_MAX = 64, /* a dict with more keys holds data, not fields */
	DIGITS_MAX = 3,	      /* more: a token, an id, a date */
	TEXT_BYTES_MAX = 1 << 18,
	NO_STRING = 0x7fffffff,
	TP_DICTOFFSET = 288, /* of PyTypeObject, in every version */
};

/* What a label's key means, above the bits of an address. */
enum label_source {
	LABEL_STR = 0,	  /* a str at the address */
	LABEL_SHARED = 1, /* the address of a key table plus an index into it */
	LABEL_FIELD = 2,  /* the number of a type, and an offset into its instances */
};

int mw_names_init(struct mw_names *names)
{
	names->labels = calloc(LABEL_SLOTS, sizeof(*names->labels));
	names->sources = malloc(WAITING_MAX * sizeof(*names->sources));
	names->targets = malloc(WAITING_MAX * sizeof(*names->targets));
	names->keys = malloc(WAITING_MAX * sizeof(*names->keys));
	names->kinds = malloc(WAITING_MAX);
	names->shapes = calloc(SHAPES, sizeof(*names->shapes));
	names->text = malloc(TEXT_BYTES_MAX);
	return names->labels && names->sources && names->targets && names->keys && names->kinds && names->shapes &&
		       names->text
		   ? 0
		   : -ENOMEM;
}

void mw_names_deinit(struct mw_names *names)
{
	free(names->labels);
	free(names->sources);
	free(names->targets);
	free(names->keys);
	free(names->kinds);
	free(names->shapes);
	free(names->text);
}

/* ---- text */

static int is_identifier(const char *text, enum mw_name_kind kind)
{
	uint32_t digits = 0, length = 0;

	for (; text[length]; length++) {
		char c = text[length];
		int is_digit = c >= '0' && c <= '9';

		digits += (uint32_t)is_digit;
		if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && c != '_' && !(is_digit && length))
			return 0;
	}
	return length && length < MW_LABEL_BYTES && (kind != MW_NAME_KEY || digits <= DIGITS_MAX);
}

static int read_text(struct mw_outside *outside, uint64_t key, char *text)
{
	uint64_t place = key & ((1ULL << 60) - 1);
	const struct mw_type *type;
	int32_t offset;

	text[0] = 0;
	switch (key >> 60) {
	case LABEL_STR:
		return mw_python_str(outside->types, place, text, MW_LABEL_BYTES + 1) > 0;
	case LABEL_SHARED:
		return mw_label_entry(outside->types, place >> 8, place & 0xff, text, MW_LABEL_BYTES + 1);
	default:
		type = &outside->types->all[place >> 32];
		offset = (int32_t)(uint32_t)place;
		if (offset < 0) {
			strcpy(text, "__dict__"); /* all that lies in front and is not a list's link */
			return 1;
		}
		/* up to 3.11 a class says where its instances have their dict; no member of it does */
		if (mw_regions_read(outside->regions, type->address + TP_DICTOFFSET, &place, 8) == 8 &&
		    place == (uint64_t)offset) {
			strcpy(text, "__dict__");
			return 1;
		}
		return mw_label_field(outside->types, type, (uint64_t)offset, text, MW_LABEL_BYTES + 1);
	}
}

static void put_strings(struct mw_outside *outside)
{
	struct mw_names *names = &outside->names;

	if (!names->new_strings || outside->pack_error)
		return;
	names->text[names->text_bytes++] = ']';
	outside->pack_error = mw_pack_begin(outside->pack, "STRS", names->text_bytes);
	if (!outside->pack_error)
		outside->pack_error = mw_pack_put(outside->pack, names->text, names->text_bytes);
	names->new_strings = names->text_bytes = 0;
}

static uint32_t add_string(struct mw_outside *outside, const char *text)
{
	struct mw_names *names = &outside->names;
	uint32_t length = (uint32_t)strlen(text);

	if (names->text_bytes + length + 4 > TEXT_BYTES_MAX)
		put_strings(outside);
	names->text[names->text_bytes++] = names->new_strings++ ? ',' : '[';
	names->text[names->text_bytes++] = '"';
	memcpy(names->text + names->text_bytes, text, length);
	names->text_bytes += length;
	names->text[names->text_bytes++] = '"';
	return names->strings++;
}

/* The number of a label's string, NO_STRING if it has none that may be told. */
static uint32_t string_of(struct mw_outside *outside, uint64_t key, enum mw_name_kind kind)
{
	struct mw_names *names = &outside->names;
	uint32_t slot = (uint32_t)mw_hash(key) & (LABEL_SLOTS - 1);
	char text[MW_LABEL_BYTES + 1];

	/* an address may be no key's, but type 0 and offset 0 are never asked for together */
	while (names->labels[slot].key && names->labels[slot].key != key)
		slot = (slot + 1) & (LABEL_SLOTS - 1);
	if (!names->labels[slot].key) {
		if (names->label_count == LABELS_MAX)
			return NO_STRING;
		names->label_count++;
		names->labels[slot].key = key;
		names->labels[slot].string =
		    read_text(outside, key, text) && is_identifier(text, kind) ? add_string(outside, text) : NO_STRING;
	}
	return names->labels[slot].string;
}

int mw_outside_flush_names(struct mw_outside *outside)
{
	struct mw_names *names = &outside->names;
	uint32_t *strings = malloc(WAITING_MAX * sizeof(*strings)), kept = 0;

	if (!strings)
		return -ENOMEM;
	for (uint32_t i = 0; i < names->waiting; i++) {
		uint32_t string = string_of(outside, names->keys[i], names->kinds[i]);

		if (string == NO_STRING) {
			names->omitted_total++;
			continue;
		}
		names->sources[kept] = names->sources[i];
		names->targets[kept] = names->targets[i];
		names->kinds[kept] = names->kinds[i];
		strings[kept++] = string;
	}
	put_strings(outside);
	if (kept && !outside->pack_error)
		outside->pack_error = mw_pack_begin(outside->pack, "NAME", 4 + 21ULL * kept);
	if (kept && !outside->pack_error) {
		mw_pack_put(outside->pack, &kept, 4);
		mw_pack_put(outside->pack, names->sources, 8ULL * kept);
		mw_pack_put(outside->pack, names->targets, 8ULL * kept);
		mw_pack_put(outside->pack, strings, 4ULL * kept);
		outside->pack_error = mw_pack_put(outside->pack, names->kinds, kept);
	}
	names->names += kept;
	names->waiting = 0;
	free(strings);
	return outside->pack_error;
}

/* ---- what is named */

static void add_name(struct mw_outside *outside, uint64_t source, uint64_t target, uint64_t key, enum mw_name_kind kind)
{
	struct mw_names *names = &outside->names;

	if (names->names + names->waiting >= NAMES_MAX) {
		names->omitted_total++;
		return;
	}
	names->sources[names->waiting] = source;
	names->targets[names->waiting] = target;
	names->keys[names->waiting] = key;
	names->kinds[names->waiting++] = (uint8_t)kind;
	if (names->waiting == WAITING_MAX && !outside->pack_error)
		outside->pack_error = mw_outside_flush_names(outside);
}

/* Whether one more of a shape is to be named. */
static int take_turn(struct mw_names *names, uint64_t shape)
{
	uint16_t *count = &names->shapes[shape & (SHAPES - 1)];

	*count += *count < PER_SHAPE_MAX;
	return *count < PER_SHAPE_MAX;
}

/* Whether a dict with these keys is still to be named. */
static int take_shape(struct mw_names *names, const struct mw_span *span, uint64_t step)
{
	uint64_t hash = span->size_bytes;

	for (uint64_t i = 0; i + step <= span->size_bytes; i += step)
		hash = mw_hash(hash ^ mw_word(span->bytes + i + step - 16));
	return take_turn(names, hash);
}

static void name_entries(struct mw_outside *outside, uint64_t object, const struct mw_span *span)
{
	uint64_t step = span->shape == MW_SPAN_PAIRS ? 16 : 24;

	if (span->name_kind == MW_NAME_KEY &&
	    (span->size_bytes > RECORD_KEYS_MAX * step || !take_shape(&outside->names, span, step))) {
		outside->names.omitted_total += span->size_bytes / step;
		return;
	}
	for (uint64_t i = 0; i + step <= span->size_bytes; i += step) {
		uint64_t key = mw_word(span->bytes + i + step - 16), value = mw_word(span->bytes + i + step - 8);

		if (mw_starts_has(&outside->starts, value) && mw_starts_has(&outside->starts, key))
			add_name(outside, object, value, key, span->name_kind);
	}
}

void mw_outside_name_span(struct mw_outside *outside, const struct mw_type *type, uint64_t object,
			  const struct mw_span *span)
{
	uint32_t index = mw_type_index(outside, type);
	struct mw_type_facts *facts = &outside->facts[index];

	if (span->shape == MW_SPAN_PAIRS || span->shape == MW_SPAN_TRIPLES) {
		name_entries(outside, object, span);
		return;
	}
	if (span->shape != MW_SPAN_WORDS)
		return;
	mw_outside_facts(outside, type);
	/* up to 3.10 the instances of all classes keep their attributes in dicts: those of one class share keys */
	if (span->label ? !take_turn(&outside->names, mw_hash(span->label)) : !facts->names_left) {
		outside->names.omitted_total++;
		return;
	}
	facts->names_left -= !span->label;
	for (uint64_t i = 0; i + 8 <= span->size_bytes; i += 8) {
		uint64_t target = mw_word(span->bytes + i) & span->mask, key;
		int32_t offset = span->first_offset + (int32_t)i;

		if (!mw_starts_has(&outside->starts, target))
			continue;
		if (span->label)
			key = (uint64_t)LABEL_SHARED << 60 | span->label << 8 | (i / 8 & 0xff);
		else
			key = (uint64_t)LABEL_FIELD << 60 | (uint64_t)index << 32 | (uint32_t)offset;
		add_name(outside, object, target, key, MW_NAME_ATTRIBUTE);
	}
}
