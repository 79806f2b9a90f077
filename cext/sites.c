/* sites.c - an array of sites and a hash table of their indices. */

#include "sites.h"

#include <stdlib.h>
#include <string.h>

#include "mix.h"

struct mw_sites {
	struct mw_site *sites;
	uint32_t *slots; /* index of a site, 0: empty */
	uint32_t *free;	 /* stack of indices given back */
	uint32_t slot_count;
	uint32_t free_count;
	uint32_t sites_max;
	uint32_t end;
	uint64_t refused_total;
};

struct mw_sites *mw_sites_create(uint32_t sites_max)
{
	struct mw_sites *sites;

	if (!sites_max || sites_max > UINT32_MAX / 2)
		return NULL;
	sites = calloc(1, sizeof(*sites));
	if (!sites)
		return NULL;
	sites->sites_max = sites_max;
	sites->slot_count = mw_slots_for(sites_max);
	sites->sites = calloc((size_t)sites_max + 1, sizeof(*sites->sites));
	sites->slots = calloc(sites->slot_count, sizeof(*sites->slots));
	sites->free = calloc(sites_max, sizeof(*sites->free));
	if (!sites->sites || !sites->slots || !sites->free) {
		mw_sites_destroy(sites);
		return NULL;
	}
	sites->end = 1;
	sites->sites[MW_SITE_OTHER].is_used = 1;
	return sites;
}

void mw_sites_destroy(struct mw_sites *sites)
{
	if (!sites)
		return;
	free(sites->free);
	free(sites->slots);
	free(sites->sites);
	free(sites);
}

static uint64_t hash_of(uint32_t pid, uint16_t domain, uint64_t native_stack, uint64_t python_stack)
{
	return mw_mix(mw_mix(native_stack ^ ((uint64_t)domain << 48)) + python_stack + pid);
}

static uint32_t slot_of(const struct mw_sites *sites, uint32_t pid, uint16_t domain, uint64_t native_stack,
			uint64_t python_stack)
{
	uint32_t slot = mw_spread(hash_of(pid, domain, native_stack, python_stack), sites->slot_count);

	for (;;) {
		const struct mw_site *site = &sites->sites[sites->slots[slot]];

		if (!sites->slots[slot] || (site->pid == pid && site->native_stack == native_stack &&
					    site->python_stack == python_stack && site->domain == domain))
			return slot;
		slot = slot + 1 == sites->slot_count ? 0 : slot + 1;
	}
}

uint32_t mw_sites_intern(struct mw_sites *sites, uint32_t pid, uint16_t domain, uint64_t native_stack,
			 uint64_t python_stack, uint64_t since_ns)
{
	uint32_t slot = slot_of(sites, pid, domain, native_stack, python_stack);
	uint32_t index = sites->slots[slot];

	if (index)
		return index;
	if (sites->free_count) {
		index = sites->free[--sites->free_count];
	} else if (sites->end <= sites->sites_max) {
		index = sites->end++;
	} else {
		sites->refused_total++;
		return MW_SITE_OTHER;
	}
	sites->slots[slot] = index;
	sites->sites[index] = (struct mw_site){
	    .native_stack = native_stack,
	    .python_stack = python_stack,
	    .since_ns = since_ns,
	    .pid = pid,
	    .domain = domain,
	    .is_used = 1,
	};
	return index;
}

struct mw_site *mw_sites_at(struct mw_sites *sites, uint32_t index)
{
	return &sites->sites[index];
}

uint32_t mw_sites_end(const struct mw_sites *sites)
{
	return sites->end;
}

uint64_t mw_site_live_weight_bytes(const struct mw_site *site)
{
	return site->allocated.weight_bytes - site->freed.weight_bytes;
}

void mw_sites_tick(struct mw_sites *sites, const struct mw_ticks *ticks, int index)
{
	for (uint32_t i = 0; i < sites->end; i++) {
		struct mw_site *site = &sites->sites[i];

		if (!site->is_used)
			continue;
		if (ticks->thinned)
			mw_past_thin(&site->live);
		site->live.values[index] = mw_site_live_weight_bytes(site);
	}
}

uint32_t mw_sites_forget(struct mw_sites *sites, uint32_t pid)
{
	uint32_t forgotten = 0;

	for (uint32_t i = 1; i < sites->end; i++) {
		struct mw_site *site = &sites->sites[i];

		if (!site->is_used || site->pid != pid)
			continue;
		site->is_used = 0;
		sites->free[sites->free_count++] = i;
		forgotten++;
	}
	if (!forgotten)
		return 0;
	/* Rare, so rebuilt rather than repaired. */
	memset(sites->slots, 0, sites->slot_count * sizeof(*sites->slots));
	for (uint32_t i = 1; i < sites->end; i++) {
		const struct mw_site *site = &sites->sites[i];

		if (site->is_used)
			sites->slots[slot_of(sites, site->pid, site->domain, site->native_stack, site->python_stack)] =
			    i;
	}
	return forgotten;
}

uint32_t mw_sites_count(const struct mw_sites *sites)
{
	return sites->end - 1 - sites->free_count;
}

uint64_t mw_sites_refused(const struct mw_sites *sites)
{
	return sites->refused_total;
}
