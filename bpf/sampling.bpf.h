/* sampling.bpf.h - byte-weighted Poisson sampling, in whole numbers.
 *
 * Sample points lie on the line of all allocated bytes at exponential distances
 * of mean R; a block is sampled if at least one falls into it, which happens
 * with p = 1 - exp(-size/R) whatever was sampled before.  A sampled block
 * stands for size/p bytes (Horvitz-Thompson), so every sum is unbiased; the
 * other usual choice, max(size, R), is not: it is 37% off at size = R.
 *
 * Logarithm and exponential are polynomials of Abramowitz & Stegun, 4.1.43 and
 * 4.2.43; the weights come out right to 1e-4 and a byte.  A block of 0 bytes is sampled as
 * one of 1 byte.  Must not know what a block is. */

#ifndef MW_SAMPLING_BPF_H
#define MW_SAMPLING_BPF_H

#include "trace.bpf.h"

enum {
	UNIT_BITS = 20, /* fixed point of distances and ratios */
	UNIT = 1 << UNIT_BITS,
	LN2_UNITS = 726817, /* ln(2) */
	RATIO_MAX = 16,	    /* exp(-16) is 1e-7: a block so large is always sampled */
};

/* coefficient + x * y, all with 30 fractional bits. */
static __always_inline int64_t horner(int64_t coefficient, int64_t x, int64_t y)
{
	return coefficient + ((x * y) >> 30);
}

/* -ln(random / 2^32) with UNIT_BITS fractional bits; random 0 counts as 1. */
static __always_inline uint64_t exponential_units(uint32_t random)
{
	uint32_t mantissa = random | !random;
	uint32_t power = 31;
	int64_t x, y;

#define NORMALIZE(bits)                                                                                                \
	if (!(mantissa >> (32 - (bits)))) {                                                                            \
		mantissa <<= (bits);                                                                                   \
		power -= (bits);                                                                                       \
	}
	NORMALIZE(16)
	NORMALIZE(8)
	NORMALIZE(4)
	NORMALIZE(2)
	NORMALIZE(1)
#undef NORMALIZE
	x = (mantissa & 0x7fffffff) >> 1; /* mantissa - 1, in [0, 1) */
	y = horner(-146096265, x, 34529873);
	y = horner(310821178, x, y);
	y = horner(-528183224, x, y);
	y = horner(1073200186, x, y);
	y = (x * y) >> 30; /* ln(1 + x) */
	y = (32 - (int64_t)power) * LN2_UNITS - (y >> (30 - UNIT_BITS));
	return y > 0 ? (uint64_t)y : 0;
}

/* exp(-ratio) for ratio in [1, RATIO_MAX), UNIT_BITS fractional bits. */
static __always_inline uint64_t exp_minus_units(uint64_t ratio)
{
	uint64_t halvings = ratio / LN2_UNITS;
	int64_t x = (int64_t)(ratio - halvings * LN2_UNITS) << (30 - UNIT_BITS);
	int64_t y = horner(-171297469, x, 31529462);

	y = horner(535037605, x, y);
	y = horner(-1073600520, x, y);
	y = horner(1073741824, x, y);
	return (uint64_t)y >> (30 - UNIT_BITS) >> halvings;
}

/* What a sampled block stands for.  interval below 2^38. */
static __always_inline uint64_t sample_weight(uint64_t size_bytes, uint64_t interval)
{
	uint64_t size = size_bytes ? size_bytes : 1;
	uint64_t ratio, squared;

	if (!interval || size / RATIO_MAX >= interval)
		return size_bytes;
	ratio = (size << UNIT_BITS) / interval;
	if (ratio >= UNIT)
		return (size << UNIT_BITS) / (UNIT - exp_minus_units(ratio));
	/* R * x / (1 - exp(-x)) by its series in x = size/R: no small differences. */
	squared = (ratio * ratio) >> UNIT_BITS;
	return interval + size / 2 +
	       ((interval * (squared / 12 - ((squared * squared) >> UNIT_BITS) / 720)) >> UNIT_BITS);
}

/* At least 1: a countdown of 0 means that none was drawn yet. */
static __always_inline int64_t draw_distance(uint64_t interval)
{
	return 1 + (int64_t)((interval * exponential_units(bpf_get_prandom_u32())) >> UNIT_BITS);
}

/* Move on by one block; true if a sample point fell into it.  The distance left
 * is kept per target and CPU.  Two threads in here at once on one CPU (preempted)
 * may lose a step: rare, and as likely for any block. */
static __always_inline bool is_sampled(struct hit *hit, uint64_t size_bytes)
{
	uint64_t interval = hit->target->interval_bytes;
	int64_t size = size_bytes ? (int64_t)size_bytes : 1;
	int64_t left = hit->counts->until_sample_bytes;

	if (hit->target->flags & MW_TARGET_QUIET)
		return false;
	if (!interval || size < 0)
		return true;
	if (!left)
		left = draw_distance(interval);
	if (left > size) {
		hit->counts->until_sample_bytes = left - size;
		return false;
	}
	/* The exponential has no memory: the next distance starts behind this block. */
	hit->counts->until_sample_bytes = draw_distance(interval);
	return true;
}

#endif
