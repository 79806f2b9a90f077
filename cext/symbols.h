/* symbols.h - names and addresses of one ELF file's functions.
 *
 * The file is hostile input: any user of the host can write it, and change or
 * truncate it while it is read.  So it is read by pread through libelf and
 * never mapped (a truncated mapping kills with SIGBUS), every size is checked
 * against a bound before memory is asked for, and the caller opens it (regular
 * file or nothing: see mwtrace/host/elf.py).
 *
 * Knows no process: addresses are those of the file, offsets are what probes
 * and mappings are given in. */

#ifndef MW_SYMBOLS_H
#define MW_SYMBOLS_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

/* Bounds of one file; past symbols_max and names_bytes_max the rest is left
 * out and counted, past sections_max the file is refused. */
struct mw_symbols_limits {
	uint64_t table_bytes_max; /* of one section that is read whole */
	uint64_t names_bytes_max; /* all names of a table kept in memory */
	uint32_t sections_max;
	uint32_t symbols_max;
};

struct mw_symbol {
	uint64_t address;     /* as the file says, before relocation */
	uint64_t file_offset; /* of the first instruction */
	uint64_t size_bytes;  /* 0: the file does not say */
	uint32_t is_local;    /* 1: a static function; its name need not be the only one */
	uint32_t reserved;
};

/* Look for count names (NUL-terminated, one after the other in names) among
 * the defined functions of .dynsym and .symtab, in one pass without keeping a
 * table.  rets[i].file_offset is UINT64_MAX where name i was not found; where
 * it is found more than once (versions), the first in .dynsym wins.
 *
 * Return how many were found; -EINVAL: not a 64-bit ELF file of this byte
 * order, or broken; -E2BIG: past a bound; else a negative errno. */
int mw_symbols_find(int fd, const struct mw_symbols_limits *limits, const char *names, uint64_t names_bytes,
		    uint32_t count, struct mw_symbol *rets);

struct mw_symbols;

/* A sorted table of the file's functions, for symbolizing.  The descriptor is
 * not kept.  0, or as mw_symbols_find(). */
int mw_symbols_create(int fd, const struct mw_symbols_limits *limits, struct mw_symbols **ret);
void mw_symbols_destroy(struct mw_symbols *symbols);

/* The function that covers file_offset: the nearest that begins at or below it
 * and whose size, where the file states one, reaches it.  The name lives as
 * long as the table; it is bytes of the file's choosing, not UTF-8.
 *
 * Return 0, or -ENOENT. */
int mw_symbols_at(const struct mw_symbols *symbols, uint64_t file_offset, struct mw_symbol *ret, const char **name);

/* Functions kept, and left out for want of room. */
uint32_t mw_symbols_count(const struct mw_symbols *symbols);
uint64_t mw_symbols_omitted(const struct mw_symbols *symbols);

/* Memory the table holds, for whoever bounds a cache of tables. */
uint64_t mw_symbols_in_use_bytes(const struct mw_symbols *symbols);

#endif
