/* mix.h - one good 64-bit hash step and a fair way to spread it over n slots.
 *
 * Inline, because the tables that use it do nothing else of note per event.
 * Not a header for Python, and it must not know any table. */

#ifndef MW_MIX_H
#define MW_MIX_H

#include <stdint.h>

/* The finaliser of MurmurHash3: every input bit moves every output bit, so
 * that addresses (low bits 0) and pids (few bits) spread alike. */
static inline uint64_t mw_mix(uint64_t value)
{
	value ^= value >> 33;
	value *= 0xff51afd7ed558ccdull;
	value ^= value >> 33;
	value *= 0xc4ceb9fe1a85ec53ull;
	return value ^ (value >> 33);
}

/* hash -> [0, count): multiply and shift, so that count need not be a power of
 * two and a table can be exactly as large as its bound asks for. */
static inline uint32_t mw_spread(uint64_t hash, uint32_t count)
{
	return (uint32_t)(((unsigned __int128)hash * count) >> 64);
}

/* Slots for an open-addressing table that never holds more than max entries:
 * a quarter more, so that probes stay short when it is full. */
static inline uint32_t mw_slots_for(uint32_t max)
{
	return max + max / 4 + 8;
}

#endif
