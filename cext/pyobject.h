/* pyobject.h - what a CPython object looks like in memory, 3.8 to 3.15.
 *
 * An object is recognised by shape alone: a plausible reference count, a
 * pointer to something that is a type, and a body that fits that type.  No
 * symbol, no allocator and no thread is asked.  Everything read is hostile
 * until a check says otherwise; sizes are clamped to the mapping they lie in.
 *
 * For census and holders; knows neither. */

#ifndef MW_PYOBJECT_H
#define MW_PYOBJECT_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "regions.h"

/* Which interpreter it is. */
struct mw_interpreter {
	uint64_t type_type; /* the address of PyType_Type */
	uint32_t minor;	    /* of version 3.minor: 8 to 15 */
	uint32_t reserved;
};

/* Find PyType_Type in [start, end), the writable data of an interpreter, by
 * its shape: it is its own type and is named "type".  Return 0, or -ENOENT. */
int mw_python_find(struct mw_regions *regions, uint64_t start, uint64_t end, uint64_t *ret);

enum mw_type_kind {
	MW_TYPE_PLAIN = 0,
	MW_TYPE_INT,
	MW_TYPE_STR,
	MW_TYPE_BYTES,
	MW_TYPE_BYTEARRAY,
	MW_TYPE_LIST,
	MW_TYPE_TUPLE,
	MW_TYPE_DICT,
	MW_TYPE_SET,
	MW_TYPE_TYPE,
	MW_TYPE_DEQUE,
	MW_TYPE_WEAKREF,
	MW_TYPE_MODULE,
	MW_TYPE_CODE,
	MW_TYPE_FRAME,
	MW_TYPE_GENERATOR, /* coroutines too: from 3.11 on their frame lies inside them */
	MW_TYPE_KIND_COUNT,
};

#ifndef MW_CDEF

enum {
	MW_TYPES_MAX = 1 << 16,
	MW_TYPE_NAME_BYTES = 64,
};

enum mw_type_flag {					/* of tp_flags; the same in every version that has them */
		    MW_TPFLAG_INLINE_VALUES = 1 << 2,	/* 3.13 */
		    MW_TPFLAG_MANAGED_WEAKREF = 1 << 3, /* 3.12 */
		    MW_TPFLAG_MANAGED_DICT = 1 << 4,	/* 3.11 */
		    MW_TPFLAG_HEAPTYPE = 1 << 9,
		    MW_TPFLAG_READY = 1 << 12,
		    MW_TPFLAG_GC = 1 << 14,
};

struct mw_type {
	uint64_t address;
	uint64_t flags;
	uint64_t objects; /* for the census to count in */
	uint64_t bytes;
	uint32_t basic_bytes;
	uint32_t item_bytes;
	uint16_t front_bytes; /* GC header and managed pointers, which lie before the object */
	uint8_t kind;	      /* enum mw_type_kind */
	uint8_t reserved;
	uint32_t mark; /* for the holders' use */
	char name[MW_TYPE_NAME_BYTES];
};

/* Where things are in this version's structures. */
struct mw_python_layout {
	uint32_t minor;
	uint32_t ascii_header; /* of a str */
	uint32_t compact_header;
	uint32_t tuple_items;
	uint32_t qualname; /* of a heap type */
	uint32_t cached_keys;
	uint32_t locals; /* of a frame (3.11: of an interpreter frame) */
	uint32_t frame_code;
	uint32_t code_names; /* of a code object: names of its locals */
	uint32_t code_name;
	uint32_t pool_bytes;	  /* pymalloc */
	uint64_t count_forbidden; /* bits no reference count has */
	uint64_t count_needed;	  /* bits of which it has one */
};

/* The types of one interpreter, found as they are met. */
struct mw_types {
	struct mw_regions *regions;
	struct mw_type *all;
	struct mw_python_layout layout;
	uint64_t type_type;
	uint64_t probes_total;
	uint64_t untracked_total; /* types met beyond MW_TYPES_MAX: their objects count as one */
	uint32_t count;
	uint32_t *slots;   /* hash table of indexes into all, plus 1 */
	uint64_t *refused; /* words that proved to be no types; overwritten at will */
	struct {
		uint64_t address;
		struct mw_type *type; /* NULL: it is none */
	} recent[4096];
};

/* What is known of one object. */
struct mw_object {
	struct mw_type *type;
	uint64_t inline_bytes; /* from its address on: nothing else begins in there */
	uint64_t size_bytes;   /* as sys.getsizeof() says, but for a dict's keys */
	uint64_t buffer;       /* list items, set table, bytearray, first deque block; or 0 */
	uint64_t buffer_bytes;
	uint64_t keys;	 /* a dict's, or 0 */
	uint64_t values; /* a split dict's, or 0 */
};

/* 0, -ENOMEM, or -EINVAL for a version that is not known. */
int mw_types_create(struct mw_regions *regions, const struct mw_interpreter *python, struct mw_types **ret);
void mw_types_destroy(struct mw_types *types);

/* The type at address, or NULL if that is none. */
struct mw_type *mw_types_get(struct mw_types *types, uint64_t address);

/* Judge the 16 bytes and more at here: available bytes, which lie at address
 * in the process, in a mapping that ends at limit.  before, if not NULL, are
 * the 16 bytes in front.  Return whether they are an object. */
int mw_object_read(struct mw_types *types, const uint8_t *here, uint64_t available, const uint8_t *before,
		   uint64_t address, uint64_t limit, struct mw_object *ret);

/* The same for an object that is fetched from the process: for the few. */
int mw_object_fetch(struct mw_types *types, uint64_t address, struct mw_object *ret, uint8_t *body,
		    uint64_t body_bytes);

/* The size of a dict's key table of which header are the first 32 bytes. */
struct mw_keys {
	uint64_t size_bytes;  /* in all */
	uint64_t entries;     /* offset of the first entry */
	uint64_t usable;      /* how many entries there is room for */
	uint32_t entry_bytes; /* 16 {key, value}, or 24 {hash, key, value} */
	uint32_t is_shared;   /* not this dict's alone, or immortal */
};
int mw_keys_read(const struct mw_python_layout *layout, const uint8_t *header, struct mw_keys *ret);

/* A pymalloc pool by its header; 0 if it is none. */
struct mw_pool {
	uint64_t in_use_bytes;
	uint64_t pool_bytes;
	uint32_t block_bytes;
	uint32_t block_count; /* that were ever handed out */
	uint32_t used_count;
};
int mw_pool_read(const struct mw_python_layout *layout, const uint8_t *header, uint64_t address, struct mw_pool *ret);

/* Copy the text of a str, printable ASCII only, others as '?'; return its
 * length in buffer, or -1 if there is no str at address. */
int mw_python_str(struct mw_types *types, uint64_t address, char *buffer, uint32_t buffer_bytes);

/* Look key up in the dict at address by walking its entries (at most some
 * thousand); 0 if it is not there. */
uint64_t mw_python_dict_get(struct mw_types *types, uint64_t address, const char *key);

/* Copy "module.Qualified.name" of a type. */
void mw_type_full_name(struct mw_types *types, const struct mw_type *type, char *buffer, uint32_t buffer_bytes);

static inline uint64_t mw_word(const void *at)
{
	uint64_t word;

	__builtin_memcpy(&word, at, sizeof(word));
	return word;
}

static inline uint32_t mw_half(const void *at)
{
	uint32_t half;

	__builtin_memcpy(&half, at, sizeof(half));
	return half;
}

static inline uint64_t mw_hash(uint64_t word)
{
	word ^= word >> 33;
	word *= 0xff51afd7ed558ccdULL;
	return word ^ word >> 33;
}

/* From 3.11 on the locals of a generator, and of a frame that outlived its call,
 * lie behind the basic size: as many as their code says, not a size field. */
static inline int mw_type_has_frame_inside(const struct mw_python_layout *layout, const struct mw_type *type)
{
	return layout->minor >= 11 && (type->kind == MW_TYPE_GENERATOR || type->kind == MW_TYPE_FRAME);
}

/* The first, cheapest question: could these two words begin an object? */
static inline int mw_looks_like_object(const struct mw_python_layout *layout, uint64_t count, uint64_t type)
{
	return !(count & layout->count_forbidden) && (count & layout->count_needed) && !(type & 7) &&
	       type >= MW_PAGE_BYTES && !(type >> 47);
}

static inline struct mw_type *mw_types_recent(struct mw_types *types, uint64_t address)
{
	uint64_t slot = (address >> 4 ^ address >> 16) & 4095;

	if (types->recent[slot].address == address)
		return types->recent[slot].type;
	types->recent[slot].type = mw_types_get(types, address);
	types->recent[slot].address = address;
	return types->recent[slot].type;
}

#endif
#endif
