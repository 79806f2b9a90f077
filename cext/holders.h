/* holders.h - who refers to an object: a search backwards, one pass a level.
 *
 * Memory is searched for words that equal the addresses asked for.  Each hit is
 * then attributed: to the object it lies in, or through the table it lies in
 * to the list, dict, set or deque that owns the table, with the key or the
 * position.  What a path is, and which one is told, is decided elsewhere.
 *
 * Nothing is followed remotely but by the hundred; a level costs one pass at
 * the speed of memory, two where tables small enough for pymalloc were hit. */

#ifndef MW_HOLDERS_H
#define MW_HOLDERS_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "pyobject.h"
#include "regions.h"

enum {
	MW_SEARCHED_MAX = 1 << 16,
	MW_REFERENCES_MAX = 1 << 16, /* of one search */
	MW_LABEL_BYTES = 96,
};

enum mw_reference_how {
	MW_BY_FIELD = 1,      /* inside owner; place: byte offset, negative in front of it */
	MW_BY_ITEM = 2,	      /* tuple or list; place: index */
	MW_BY_KEY = 3,	      /* value of a dict; label: its key */
	MW_BY_BEING_KEY = 4,  /* key of a dict */
	MW_BY_ATTRIBUTE = 5,  /* attribute of an object; label: its name */
	MW_BY_MEMBER = 6,     /* in a set */
	MW_BY_QUEUE = 7,      /* in a deque */
	MW_BY_LOCAL = 8,      /* local variable of a frame; label: function and name; owner 0 or the frame object */
	MW_BY_STACK = 9,      /* on a stack of C; no owner */
	MW_BY_STATIC = 10,    /* in static data of a program or library; no owner */
	MW_BY_RAW = 11,	      /* in memory that is no Python object's; no owner */
	MW_BY_WEAK = 12,      /* a weak reference, or what a list once held: holds nothing */
	MW_BY_FREE_LIST = 13, /* in the interpreter's list of free objects: left behind, holds nothing */
};

struct mw_reference {
	uint64_t target;
	uint64_t location;
	uint64_t owner;	     /* object, or 0 */
	uint64_t owner_type; /* its type, or 0 */
	int64_t place;
	uint32_t how;	     /* enum mw_reference_how */
	uint32_t owner_kind; /* enum mw_type_kind */
	char label[MW_LABEL_BYTES];
};

struct mw_holders_totals {
	uint64_t tables;		   /* large tables whose owners are known */
	uint64_t tables_untracked_total;   /* beyond the limit: hits in them stay unexplained */
	uint64_t references_dropped_total; /* hits beyond MW_REFERENCES_MAX in a search */
	uint64_t passes_total;
	uint64_t elapsed_ns; /* of the last call */
	int32_t stopped;     /* of the last call: 0, -ETIME, -ECANCELED, -ESRCH */
	uint32_t reserved;
};

struct mw_holders;

/* Learn in one pass who owns the large tables, and pick up to sample_count
 * objects (evenly, by reservoir) of the type wanted (0: none).  Return 0,
 * -ENOMEM, -EINVAL for an unknown version; totals say if it was stopped. */
int mw_holders_open(struct mw_regions *regions, const struct mw_interpreter *python, uint64_t wanted,
		    uint32_t sample_count, const struct mw_budget *budget, struct mw_holders **ret);
void mw_holders_close(struct mw_holders *holders);

/* The samples, and how many objects of the type there are. */
uint32_t mw_holders_samples(const struct mw_holders *holders, const uint64_t **ret, uint64_t *ret_objects);

/* Find who refers to targets (count at most MW_SEARCHED_MAX, else -E2BIG).  The
 * references are the holders', valid until the next search.  0 or -ENOMEM. */
int mw_holders_search(struct mw_holders *holders, const uint64_t *targets, uint32_t count,
		      const struct mw_budget *budget, const struct mw_reference **ret, uint32_t *ret_count);

/* Reference count of the object at address, or -1. */
int64_t mw_holders_count(struct mw_holders *holders, uint64_t address);

/* What a person would call the object: a module's or class's name, a
 * function's; else "".  The full name of a type with mw_holders_type_name(). */
void mw_holders_label(struct mw_holders *holders, uint64_t address, char *buffer, uint32_t buffer_bytes);
void mw_holders_type_name(struct mw_holders *holders, uint64_t type, char *buffer, uint32_t buffer_bytes);

/* The file that defines the type: of a static type, or of one of the functions
 * that make it; "" for classes written in Python. */
void mw_holders_type_file(struct mw_holders *holders, uint64_t type, char *buffer, uint32_t buffer_bytes);

void mw_holders_get_totals(const struct mw_holders *holders, struct mw_holders_totals *ret);

#endif
