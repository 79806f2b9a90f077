/* stacks.c - open addressing over descriptors; the words of each in a block of
 * their own, since a process' stacks go together and leave no holes to manage. */

#include "stacks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mix.h"

struct mw_stacks {
	struct mw_stack *slots; /* words NULL: empty */
	uint32_t slot_count;
	uint32_t count;
	uint32_t stacks_max;
	uint32_t word_count;
	uint32_t words_max;
};

struct mw_stacks *mw_stacks_create(uint32_t stacks_max, uint32_t words_max)
{
	struct mw_stacks *stacks;

	if (!stacks_max || stacks_max > UINT32_MAX / 2)
		return NULL;
	stacks = calloc(1, sizeof(*stacks));
	if (!stacks)
		return NULL;
	stacks->stacks_max = stacks_max;
	stacks->words_max = words_max;
	stacks->slot_count = mw_slots_for(stacks_max);
	stacks->slots = calloc(stacks->slot_count, sizeof(*stacks->slots));
	if (!stacks->slots) {
		free(stacks);
		return NULL;
	}
	return stacks;
}

void mw_stacks_destroy(struct mw_stacks *stacks)
{
	if (!stacks)
		return;
	for (uint32_t slot = 0; slot < stacks->slot_count; slot++)
		free((void *)stacks->slots[slot].words);
	free(stacks->slots);
	free(stacks);
}

static uint32_t slot_of(const struct mw_stacks *stacks, uint32_t pid, uint64_t stack)
{
	uint32_t slot = mw_spread(mw_mix(stack ^ ((uint64_t)pid << 32)), stacks->slot_count);

	while (stacks->slots[slot].words && (stacks->slots[slot].stack != stack || stacks->slots[slot].pid != pid))
		slot = slot + 1 == stacks->slot_count ? 0 : slot + 1;
	return slot;
}

static int is_same(const struct mw_stack *one, const struct mw_stack *other)
{
	return one->kind == other->kind && one->word_count == other->word_count &&
	       !memcmp(one->words, other->words, one->word_count * sizeof(*one->words));
}

int mw_stacks_add(struct mw_stacks *stacks, const struct mw_stack *stack)
{
	struct mw_stack *slot;
	uint64_t *words;

	if (!stack->stack || !stack->word_count)
		return -EINVAL;
	slot = &stacks->slots[slot_of(stacks, stack->pid, stack->stack)];
	if (slot->words)
		return is_same(slot, stack) ? 1 : -EEXIST;
	if (stacks->count == stacks->stacks_max || stack->word_count > stacks->words_max - stacks->word_count)
		return -ENOSPC;
	words = malloc(stack->word_count * sizeof(*words));
	if (!words)
		return -ENOSPC;
	memcpy(words, stack->words, stack->word_count * sizeof(*words));
	*slot = *stack;
	slot->words = words;
	stacks->count++;
	stacks->word_count += stack->word_count;
	return 0;
}

const struct mw_stack *mw_stacks_find(const struct mw_stacks *stacks, uint32_t pid, uint64_t stack)
{
	const struct mw_stack *slot = &stacks->slots[slot_of(stacks, pid, stack)];

	return slot->words ? slot : NULL;
}

uint32_t mw_stacks_forget(struct mw_stacks *stacks, uint32_t pid)
{
	uint32_t forgotten = 0, start = 0;

	/* Remove, then put every stack into place again, begun behind a slot that was
	 * empty before: no chain leads over it, so each only moves towards its home. */
	while (stacks->slots[start].words)
		start++;
	for (uint32_t slot = 0; slot < stacks->slot_count; slot++) {
		struct mw_stack *stack = &stacks->slots[slot];

		if (!stack->words || stack->pid != pid)
			continue;
		stacks->word_count -= stack->word_count;
		free((void *)stack->words);
		*stack = (struct mw_stack){0};
		forgotten++;
	}
	if (!forgotten)
		return 0;
	stacks->count -= forgotten;
	for (uint32_t step = 0, slot = start; step < stacks->slot_count; step++) {
		struct mw_stack stack = stacks->slots[slot];

		if (stack.words) {
			stacks->slots[slot] = (struct mw_stack){0};
			stacks->slots[slot_of(stacks, stack.pid, stack.stack)] = stack;
		}
		slot = slot + 1 == stacks->slot_count ? 0 : slot + 1;
	}
	return forgotten;
}

uint32_t mw_stacks_count(const struct mw_stacks *stacks)
{
	return stacks->count;
}

uint32_t mw_stacks_word_count(const struct mw_stacks *stacks)
{
	return stacks->word_count;
}
