/* Feeds ELF files to the symbol reader and to the search for jumps.  A corpus of a few small real
 * libraries is worth more than hours without: see seeds.py. */

#include "branches.h"
#include "symbols.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct mw_symbols_limits limits = {
    .table_bytes_max = 1 << 22,
    .names_bytes_max = 1 << 16,
    .sections_max = 256,
    .symbols_max = 512,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char names[] = "malloc\0free\0first";
	struct mw_symbol found[3], at;
	struct mw_symbols *symbols;
	struct mw_branch branches[4];
	uint64_t starts[] = {64, 128, 4096};
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	mw_symbols_find(fd, &limits, names, sizeof(names), 3, found);
	mw_branches_into(fd, 0, size, starts, 3, 64, branches, 4);
	if (mw_symbols_create(fd, &limits, &symbols) == 0) {
		const char *name;

		for (uint64_t offset = 0; offset < size; offset += 61)
			if (mw_symbols_at(symbols, offset, &at, &name) == 0 && *name == '\0')
				abort();
		if (mw_symbols_count(symbols) > limits.symbols_max)
			abort();
		mw_symbols_destroy(symbols);
	}
	close(fd);
	return 0;
}
