#include "outside_parts.h"
#include "pylabel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t namespace_slot(const struct mw_outside *outside, uint64_t address)
{
	enum { MASK = 4 * MW_NAMESPACES_MAX - 1 };
	uint32_t slot = (uint32_t)mw_hash(address) & MASK;

	while (outside->namespaces[slot] && outside->namespaces[slot] >> 8 != address)
		slot = (slot + 1) & MASK;
	return slot;
}

enum mw_name_kind mw_outside_namespace(const struct mw_outside *outside, uint64_t address)
{
	uint64_t found = outside->namespaces[namespace_slot(outside, address)];

	return found ? (enum mw_name_kind)((found & 0xff) - 1) : MW_NAME_KEY;
}

static void add_namespace(struct mw_outside *outside, uint64_t dict, enum mw_name_kind kind)
{
	uint32_t slot = namespace_slot(outside, dict);

	if (!dict || outside->namespaces[slot] || outside->namespace_count == 2 * MW_NAMESPACES_MAX)
		return;
	outside->namespace_count++;
	outside->namespaces[slot] = dict << 8 | ((uint64_t)kind + 1);
}

static void take_start(struct mw_outside *outside, const struct mw_object *object, const uint8_t *here,
		       uint64_t available, uint64_t address)
{
	enum { MODULE_DICT = 16, TYPE_DICT = 264 };

	outside->totals.found_objects++;
	if (mw_starts_add(&outside->starts, address))
		return;
	if (object->type->kind == MW_TYPE_MODULE && available >= MODULE_DICT + 8) {
		add_namespace(outside, mw_word(here + MODULE_DICT), MW_NAME_GLOBAL);
		if (outside->module_count < MW_NAMESPACES_MAX)
			outside->modules[outside->module_count++] = address;
	}
	if (object->type->kind == MW_TYPE_TYPE && available >= TYPE_DICT + 8)
		add_namespace(outside, mw_word(here + TYPE_DICT), MW_NAME_ATTRIBUTE);
}

static int visit_first(void *context, const struct mw_chunk *chunk)
{
	struct mw_outside *outside = context;
	const struct mw_python_layout *layout = &outside->types->layout;

	if (outside->mapping != chunk->mapping) {
		outside->mapping = chunk->mapping;
		outside->skip_until = 0;
		outside->pool = (struct mw_pool_marks){0};
	}
	for (uint64_t i = 0; i < chunk->size_bytes; i += 16) {
		const uint8_t *here = chunk->bytes + i;
		uint64_t address = chunk->address + i;
		struct mw_object object;
		struct mw_pool pool;

		if (address < outside->skip_until) {
			i = (outside->skip_until - chunk->address) - 16;
			continue;
		}
		if (!(address & (layout->pool_bytes - 1)) && mw_pool_read(layout, here, address, &pool))
			mw_pool_marks_set(&outside->pool, &pool, address, here, chunk->available - i);
		if (!mw_looks_like_object(layout, mw_word(here), mw_word(here + 8)) ||
		    mw_pool_marks_has_free(&outside->pool, address) ||
		    !mw_object_read(outside->types, here, chunk->available - i,
				    chunk->has_front || i ? here - 16 : NULL, address, chunk->mapping->end, &object))
			continue;
		/* Nothing begins in the 16 bytes that it ends in, whatever was left there. */
		outside->skip_until = address + ((object.inline_bytes + 15) & ~15ULL);
		take_start(outside, &object, here, chunk->available - i, address);
	}
	return 0;
}

int mw_outside_open(struct mw_regions *regions, const struct mw_interpreter *python, uint32_t starts_mib,
		    const struct mw_budget *budget, struct mw_outside **ret)
{
	uint64_t begin_ns = mw_now_ns();
	struct mw_outside *outside = calloc(1, sizeof(*outside));
	int rc;

	if (!outside)
		return -ENOMEM;
	outside->regions = regions;
	rc = mw_types_create(regions, python, &outside->types);
	if (!rc)
		rc = mw_starts_init(&outside->starts, starts_mib);
	if (!rc)
		rc = mw_names_init(&outside->names);
	outside->facts = calloc(MW_TYPES_MAX + 1, sizeof(*outside->facts));
	outside->namespaces = calloc(4 * MW_NAMESPACES_MAX, sizeof(*outside->namespaces));
	if (!rc && (!outside->facts || !outside->namespaces))
		rc = -ENOMEM;
	if (rc) {
		mw_outside_close(outside);
		return rc;
	}
	outside->totals.stopped = mw_sweep(regions, 0, budget, visit_first, outside, &outside->totals.unread_bytes);
	outside->totals.first_pass_ns = mw_now_ns() - begin_ns;
	*ret = outside;
	return 0;
}

void mw_outside_close(struct mw_outside *outside)
{
	if (!outside)
		return;
	mw_types_destroy(outside->types);
	mw_starts_deinit(&outside->starts);
	mw_names_deinit(&outside->names);
	free(outside->facts);
	free(outside->namespaces);
	free(outside);
}

void mw_outside_get_totals(const struct mw_outside *outside, struct mw_outside_totals *ret)
{
	*ret = outside->totals;
	ret->objects_untracked_total = outside->starts.untracked_total;
	ret->types_untracked_total = outside->types->untracked_total;
	ret->names = outside->names.names;
	ret->names_omitted_total = outside->names.omitted_total;
	ret->modules = outside->module_count;
	for (uint32_t i = 0; i < outside->types->count; i++)
		ret->types += outside->facts[i].written;
}

int mw_outside_type(struct mw_outside *outside, uint32_t index, uint64_t *ret_address, uint32_t *ret_basic_bytes,
		    char *name, uint32_t name_bytes)
{
	/* one more than there are: the row of those that had no room */
	for (uint32_t i = 0; i <= MW_TYPES_MAX && (i <= outside->types->count || i == MW_TYPES_MAX); i++) {
		if (!outside->facts[i].written || index--)
			continue;
		*ret_address = outside->types->all[i].address;
		*ret_basic_bytes = outside->types->all[i].basic_bytes;
		mw_type_full_name(outside->types, &outside->types->all[i], name, name_bytes);
		return 1;
	}
	return 0;
}

uint32_t mw_outside_filter(struct mw_outside *outside, uint64_t *words, uint32_t count)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < count; i++)
		if (mw_starts_has(&outside->starts, words[i]))
			words[kept++] = words[i];
	return kept;
}

uint64_t mw_outside_module(struct mw_outside *outside, uint32_t index, char *name, uint32_t name_bytes)
{
	if (index >= outside->module_count)
		return 0;
	mw_label_object(outside->types, outside->modules[index], name, name_bytes);
	return outside->modules[index];
}

void mw_outside_local(struct mw_outside *outside, uint64_t code, uint32_t index, char *name, uint32_t name_bytes)
{
	static const char no_name[] = " on its value stack";
	char text[256], *space;

	name[0] = text[0] = 0;
	mw_label_local(outside->types, code, index, text, sizeof(text));
	if (strstr(text, no_name))
		return;
	space = strrchr(text, ' '); /* "function() name" */
	strncat(name, space ? space + 1 : text, name_bytes - 1);
}

uint32_t mw_outside_strings(const struct mw_outside *outside)
{
	return outside->names.strings;
}
