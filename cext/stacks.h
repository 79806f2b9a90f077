/* stacks.h - what the hashes in block events stand for.
 *
 * The kernel sends a stack whole once and its hash ever after, so a stack that
 * is not kept here is lost until the kernel forgets that it sent it.  Stacks
 * are kept per process: the same hash in another address space is other code.
 * Knows no symbol: words are addresses, resolved outside. */

#ifndef MW_STACKS_H
#define MW_STACKS_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "trace_events.h"

struct mw_stacks;

/* A stack, leaf first: one word a frame if native, two if Python (enum
 * mw_stack_kind).  The words are the table's, valid until mw_stacks_forget(). */
struct mw_stack {
	uint64_t stack; /* the hash */
	const uint64_t *words;
	uint32_t pid;
	uint32_t word_count;
	uint16_t kind;	    /* enum mw_stack_kind */
	uint16_t truncated; /* 1: the root is missing */
	uint32_t reserved;
};

/* An empty table for at most stacks_max stacks (40 bytes each, taken at
 * creation) of at most words_max words in all (8 bytes each, taken as they
 * come), or NULL if there is no memory for it.  Past either bound a stack is
 * refused: the sites that name it then have no frames, and say so. */
struct mw_stacks *mw_stacks_create(uint32_t stacks_max, uint32_t words_max);
void mw_stacks_destroy(struct mw_stacks *stacks);

/* Keep a copy of a stack.  Return 0 if it is new, 1 if it was known, -EEXIST
 * if its hash stands for other words already (the first ones stay), -ENOSPC
 * past a bound, -EINVAL if it has no hash or no words. */
int mw_stacks_add(struct mw_stacks *stacks, const struct mw_stack *stack);

/* The stack of that hash, or NULL. */
const struct mw_stack *mw_stacks_find(const struct mw_stacks *stacks, uint32_t pid, uint64_t stack);

/* Forget every stack of pid; return how many. */
uint32_t mw_stacks_forget(struct mw_stacks *stacks, uint32_t pid);

uint32_t mw_stacks_count(const struct mw_stacks *stacks);
uint32_t mw_stacks_word_count(const struct mw_stacks *stacks);

#endif
