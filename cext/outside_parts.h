/* outside_parts.h - the inside of an outside snapshot.
 *
 * outside.c makes the passes, outside_spans.c knows where an object keeps its
 * references, outside_names.c what they are called.  For the three of them
 * only: callers see outside.h. */

#ifndef MW_OUTSIDE_PARTS_H
#define MW_OUTSIDE_PARTS_H

#include "outside.h"
#include "pools.h"
#include "starts.h"
#include "sweep.h"

enum {
	MW_SPANS_MAX = 8, /* of one object */
	MW_ROWS_MAX = 65536,
	MW_NAMESPACES_MAX = 1 << 16, /* modules and classes, whose dicts are namespaces */
	MW_BIG_SPAN_BYTES = 1 << 18, /* a longer table is read piece by piece, twice */
	MW_LABEL_BYTES = 81,
	MW_SHARED_RECENT = 1024,
	MW_DEQUE_ITEMS = 64, /* of a block */
	MW_DEQUE_BLOCK_BYTES = 8 * (MW_DEQUE_ITEMS + 2),
};

enum mw_name_kind { /* of the file */
		    MW_NAME_GLOBAL = 0,
		    MW_NAME_ATTRIBUTE = 1,
		    MW_NAME_KEY = 2,
		    MW_NAME_NONE = 255,
};

enum mw_span_shape {
	MW_SPAN_WORDS,	 /* each word may be a reference */
	MW_SPAN_FIRSTS,	 /* {key, hash} of a set */
	MW_SPAN_KEYS,	 /* a dict's key table, whole; becomes one of the next two */
	MW_SPAN_PAIRS,	 /* {key, value} */
	MW_SPAN_TRIPLES, /* {hash, key, value} */
	MW_SPAN_CHAIN,	 /* the items of a deque, in linked blocks; first_offset: the first one's place in its block */
};

/* Memory of one object that holds references. */
struct mw_span {
	uint64_t address;
	uint64_t size_bytes;
	const uint8_t *bytes; /* NULL: not read */
	uint64_t mask;	      /* bits of a word that are no tag */
	uint64_t label;	      /* of MW_SPAN_WORDS: the key table that names them, or 0 */
	uint8_t shape;	      /* enum mw_span_shape */
	uint8_t name_kind;    /* enum mw_name_kind */
	uint16_t reserved;
	int32_t first_offset; /* of a body: where in the object it begins */
};

/* What is found out once about a type. */
struct mw_type_facts {
	uint64_t shared_keys; /* that its instances' values are ordered by, or 0 */
	uint32_t names_left;  /* instances that still get their attributes named */
	int32_t weak_offset;  /* of the list of weak references in an instance; 0: none */
	uint8_t known;
	uint8_t written; /* there is a row of this type */
};

/* Strings and waiting names. */
struct mw_names {
	struct {
		uint64_t key; /* address of a str; or of a type, plus an offset into its instances */
		uint32_t string;
		uint32_t reserved;
	} * labels;			    /* hash table */
	uint64_t *sources, *targets, *keys; /* of names that wait for their text */
	uint8_t *kinds;
	uint16_t *shapes; /* how often dicts with such keys were named */
	char *text;	  /* of new strings, as JSON */
	uint32_t text_bytes;
	uint32_t label_count, waiting;
	uint32_t strings, new_strings;
	uint64_t names, omitted_total;
};

struct mw_outside {
	struct mw_regions *regions;
	struct mw_types *types;
	struct mw_type_facts *facts; /* by type */
	struct mw_starts starts;
	uint64_t *namespaces; /* hash table: address of a dict << 8 | enum mw_name_kind + 1 */
	uint64_t modules[MW_NAMESPACES_MAX];
	struct mw_names names;
	struct {
		uint64_t table, count;
	} shared[MW_SHARED_RECENT]; /* how many values go with a shared key table */
	/* the first pass */
	const struct mw_mapping *mapping;
	struct mw_pool_marks pool;
	uint64_t skip_until;
	uint32_t namespace_count, module_count;
	/* the second one */
	struct mw_pack *pack;
	struct mw_batch *batch;
	int pack_error;
	struct mw_outside_totals totals;
};

static inline uint32_t mw_type_index(const struct mw_outside *outside, const struct mw_type *type)
{
	return (uint32_t)(type - outside->types->all);
}

const struct mw_type_facts *mw_outside_facts(struct mw_outside *outside, const struct mw_type *type);

/* What kind of namespace the dict at address is. */
enum mw_name_kind mw_outside_namespace(const struct mw_outside *outside, uint64_t address);

/* Where the object at here keeps references: at most MW_SPANS_MAX spans.
 * before: MW_CHUNK_FRONT_BYTES in front of it, or NULL.  end: nothing of the
 * object lies behind it.  Return how many. */
uint32_t mw_outside_spans(struct mw_outside *outside, const struct mw_object *object, const uint8_t *here,
			  const uint8_t *before, uint64_t address, uint64_t end, struct mw_span *ret);

/* Make of a key table whose first available bytes are at header the span of its
 * entries; 0 if it is none.  *ret_size_bytes: what it adds to its dict's size. */
int mw_outside_entries(struct mw_outside *outside, const uint8_t *header, uint64_t available, struct mw_span *span,
		       uint64_t *ret_size_bytes);

/* Copy the references among size_bytes of a span to ret; return how many. */
uint32_t mw_outside_take(struct mw_outside *outside, const struct mw_span *span, const uint8_t *bytes,
			 uint64_t size_bytes, uint64_t *ret);

int mw_names_init(struct mw_names *names);
void mw_names_deinit(struct mw_names *names);

/* Name what the bytes of a span refer to, within the limits. */
void mw_outside_name_span(struct mw_outside *outside, const struct mw_type *type, uint64_t object,
			  const struct mw_span *span);

/* Write the names that wait.  Return 0 or pack's error. */
int mw_outside_flush_names(struct mw_outside *outside);

#endif
