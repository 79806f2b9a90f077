/* outside.h - a process's object graph, read from outside and written as a snapshot.
 *
 * Two passes over private memory.  The first one notes where objects begin; the
 * second one writes each with its size, its count of references and every word
 * in its body and its tables that is another object's address: so edges are
 * conservative, never missing but for a process that runs on meanwhile.  Nothing
 * is stopped, and nothing in the target is touched; a frozen image (a forked
 * child that waits) gives one moment, a live process nearly that.
 *
 * Memory is bounded: 8 KiB for each MiB that holds objects, up to the limit
 * given, and about 40 MiB of buffers.  What is cut is counted. */

#ifndef MW_OUTSIDE_H
#define MW_OUTSIDE_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "pack.h"
#include "pyobject.h"
#include "regions.h"

struct mw_outside;

struct mw_outside_totals {
	uint64_t objects; /* written */
	uint64_t edges;
	uint64_t names;
	uint64_t object_bytes;
	uint64_t found_objects;		  /* by the first pass */
	uint64_t objects_untracked_total; /* no room to note them: not written */
	uint64_t vanished_total;	  /* ended between the passes */
	uint64_t edges_dropped_total;	  /* of a table that changed or could not be read */
	uint64_t names_omitted_total;	  /* beyond the limits on names, or not like an identifier */
	uint64_t types_untracked_total;
	uint64_t unread_bytes;
	uint64_t first_pass_ns;
	uint64_t second_pass_ns;
	uint32_t types; /* of which objects were written */
	uint32_t modules;
	int32_t stopped; /* 0: seen to the end; -ETIME, -ECANCELED, -ESRCH: not */
	uint32_t reserved;
};

/* Make the first pass.  starts_mib: for how many MiB of objects there is room.
 * Return 0, also when stopped early (totals.stopped says so), -EINVAL or -ENOMEM. */
int mw_outside_open(struct mw_regions *regions, const struct mw_interpreter *python, uint32_t starts_mib,
		    const struct mw_budget *budget, struct mw_outside **ret);
void mw_outside_close(struct mw_outside *outside);

/* Make the second one: OBJS, BIGS, NAME and STRS chunks go to pack.  Once.
 * Return 0, also when stopped early, or the errno that ended pack. */
int mw_outside_write(struct mw_outside *outside, struct mw_pack *pack, const struct mw_budget *budget);

void mw_outside_get_totals(const struct mw_outside *outside, struct mw_outside_totals *ret);

/* A type of which objects were written; 0 past the last one. */
int mw_outside_type(struct mw_outside *outside, uint32_t index, uint64_t *ret_address, uint32_t *ret_basic_bytes,
		    char *name, uint32_t name_bytes);

/* The objects that one object refers to; return how many there are, of which
 * at most max are copied, or -ENOENT if no object begins there. */
int64_t mw_outside_referents(struct mw_outside *outside, uint64_t address, uint64_t *ret, uint32_t max);

/* Keep of count words only those at which an object begins; return how many. */
uint32_t mw_outside_filter(struct mw_outside *outside, uint64_t *words, uint32_t count);

/* Modules met in the first pass, at most 65,536, and what they are called. */
uint64_t mw_outside_module(struct mw_outside *outside, uint32_t index, char *name, uint32_t name_bytes);

/* What local variable index of a code object is called; "" if nobody knows. */
void mw_outside_local(struct mw_outside *outside, uint64_t code, uint32_t index, char *name, uint32_t name_bytes);

/* How many strings the STRS chunks have so far: whoever writes more goes on counting there. */
uint32_t mw_outside_strings(const struct mw_outside *outside);

#endif
