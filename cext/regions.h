/* regions.h - what of a process's memory is there to be read, and the one door
 * through which the heap readers read it.
 *
 * Looking must change nothing in the target: reading a page that was never
 * touched maps the zero page into it, a swapped one would come back in.  So the
 * pagemap is read first, and the door opens only onto pages that are present
 * (or onto the file behind them).  An image held in our own memory can stand in
 * for a process: the heap readers cannot tell, which is how they are tested
 * against hostile heaps.
 *
 * Knows no interpreter and no allocator. */

#ifndef MW_REGIONS_H
#define MW_REGIONS_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

struct mw_regions;

enum {
	MW_PAGE_BYTES = 4096,
	MW_MAPPINGS_MAX = 1 << 18, /* the kernel's own default limit is 65,530 */
	MW_RUNS_MAX = 1 << 20,	   /* 16 bytes each */
};

enum mw_mapping_flag {
	MW_MAPPING_READ = 1,
	MW_MAPPING_WRITE = 2,
	MW_MAPPING_EXEC = 4,
	MW_MAPPING_SHARED = 8,
	MW_MAPPING_FILE = 16,	 /* a file, or shared memory, stands behind it */
	MW_MAPPING_HEAP = 32,	 /* the kernel calls it [heap] */
	MW_MAPPING_STACK = 64,	 /* the kernel calls it [stack] */
	MW_MAPPING_KERNEL = 128, /* [vvar], [vdso] and their like: not memory of the program */
};

/* A line of /proc/PID/maps, with the sums of its pagemap. */
struct mw_mapping {
	uint64_t start;
	uint64_t end;
	uint64_t file_offset;
	uint64_t inode;
	uint64_t anon_bytes; /* present pages that are no file's: private memory */
	uint64_t file_bytes; /* present pages of a file or of shared memory */
	uint64_t zero_bytes; /* the shared zero page: mapped, but nobody's memory */
	uint64_t swap_bytes;
	uint32_t flags; /* enum mw_mapping_flag */
	uint32_t name;	/* for mw_regions_name() */
};

/* What was not looked at, and what the door refused. */
struct mw_regions_counters {
	uint64_t mappings_untracked_total; /* beyond MW_MAPPINGS_MAX */
	uint64_t runs_untracked_total;	   /* runs of present pages beyond MW_RUNS_MAX */
	uint64_t mappings_unscanned_total; /* too large to walk on a kernel without PAGEMAP_SCAN */
	uint64_t reads_total;
	uint64_t read_bytes_total;
	uint64_t reads_refused_total;	/* absent or swapped pages: reading would have changed the target */
	uint64_t reads_failed_total;	/* present a moment ago, gone when read */
	uint64_t reads_from_file_total; /* of absent pages of a private file mapping, from the file itself */
};

/* A stop for long work; both may be unset. */
struct mw_budget {
	uint64_t deadline_ns;		/* CLOCK_MONOTONIC; 0: none */
	const volatile int32_t *cancel; /* another thread makes it nonzero; NULL: nobody does */
};

/* Read maps and pagemap of a process.  Return 0, -ESRCH it is gone, -EPERM or
 * -EACCES we may not, -ENOMEM. */
int mw_regions_open(uint32_t pid, struct mw_regions **ret);
void mw_regions_close(struct mw_regions *regions);

/* A piece of memory for an image. */
struct mw_piece {
	uint64_t address;    /* page aligned */
	uint64_t size_bytes; /* whole pages */
	const void *bytes;   /* the caller's, until mw_regions_close(); readable to size_bytes */
	uint32_t flags;	     /* enum mw_mapping_flag */
	uint32_t reserved;
};

/* An image of count pieces, ascending and disjoint (else -EINVAL). */
int mw_regions_open_image(const struct mw_piece *pieces, uint32_t count, struct mw_regions **ret);

uint32_t mw_regions_mapping_count(const struct mw_regions *regions);
const struct mw_mapping *mw_regions_mapping(const struct mw_regions *regions, uint32_t index); /* NULL past the end */
const char *mw_regions_name(const struct mw_regions *regions, uint32_t name); /* never NULL; valid until close */

/* The mapping that address lies in, or NULL. */
const struct mw_mapping *mw_regions_find(struct mw_regions *regions, uint64_t address);

/* Copy what can be read at address without changing the target, up to
 * size_bytes.  Return the bytes read (short where the present pages end), or
 * -EFAULT for none, -ESRCH when the process is gone. */
int64_t mw_regions_read(struct mw_regions *regions, uint64_t address, void *buffer, uint64_t size_bytes);

/* The first stretch of present pages within [from, end): return 1 and its
 * bounds, or 0 if there is none. */
int mw_regions_next(struct mw_regions *regions, uint64_t from, uint64_t end, uint64_t *start, uint64_t *stop);

/* How many bytes of [start, end) are present and private. */
uint64_t mw_regions_anon_bytes(struct mw_regions *regions, uint64_t start, uint64_t end);

/* Whether the process still is the program that was opened: false after its end or an exec. */
int mw_regions_is_same(const struct mw_regions *regions);

void mw_regions_get_counters(const struct mw_regions *regions, struct mw_regions_counters *ret);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t mw_now_ns(void);

/* Whether the work that budget bounds must stop: 0 no, -ETIME, -ECANCELED. */
int mw_budget_check(const struct mw_budget *budget);

#endif
