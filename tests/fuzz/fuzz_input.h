/* fuzz_input.h - libFuzzer's bytes as a stream of values.
 *
 * Past the end everything is 0, so that an input cut short is an input too.
 * Knows nobody who is fuzzed. */

#ifndef MW_FUZZ_INPUT_H
#define MW_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct input {
	const uint8_t *bytes;
	size_t left;
};

static inline void take(struct input *input, void *ret, size_t size)
{
	size_t there = size < input->left ? size : input->left;

	memset(ret, 0, size);
	if (there)
		memcpy(ret, input->bytes, there);
	input->bytes += there;
	input->left -= there;
}

static inline uint8_t take_u8(struct input *input)
{
	uint8_t value;

	take(input, &value, sizeof(value));
	return value;
}

static inline uint16_t take_u16(struct input *input)
{
	uint16_t value;

	take(input, &value, sizeof(value));
	return value;
}

static inline uint64_t take_u64(struct input *input)
{
	uint64_t value;

	take(input, &value, sizeof(value));
	return value;
}

#endif
