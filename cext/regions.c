#include "regions.h"
#include "memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	RUN_ANON = 1, /* kept in the low bits of a run's end, which is page aligned */
	RUN_FLAGS = MW_PAGE_BYTES - 1,
	NAMES_BYTES_MAX = 8 << 20,
	NAME_BYTES_MAX = 4096,
	LINE_BYTES_MAX = NAME_BYTES_MAX + 128,
	BATCH_REGIONS = 1024,
	BATCH_PAGES = 8192,
};

/* Without PAGEMAP_SCAN a hole costs as much as a page: a reservation of
 * terabytes (sanitizers, Go) would never end. */
static const uint64_t walk_bytes_max = 1ULL << 38;

/* linux/fs.h since 6.7; written out because build hosts have older headers. */
struct page_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

struct pm_scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

static const uint64_t page_is_file = 1 << 2;
static const uint64_t page_is_present = 1 << 3;
static const uint64_t page_is_swapped = 1 << 4;
static const uint64_t page_is_zero = 1 << 5;

struct run {
	uint64_t start;
	uint64_t end_flags;
};

struct mw_regions {
	struct mw_mapping *mappings;
	struct run *runs;
	char *names;
	const struct mw_piece *pieces; /* of an image; NULL for a process */
	uint64_t names_bytes;
	uint64_t runs_capacity;
	uint32_t mappings_capacity;
	uint32_t mapping_count;
	uint32_t run_count;
	uint32_t pid;
	uint32_t last_mapping; /* where the last lookups ended: the next is mostly near */
	uint32_t last_run;
	uint32_t file_mapping; /* whose file_fd is open */
	int file_fd;
	int memory_fd;
	int pagemap_fd; /* bound to the address space at open: an exec empties it */
	int has_scan;
	struct mw_regions_counters counters;
};

uint64_t mw_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int mw_budget_check(const struct mw_budget *budget)
{
	if (!budget)
		return 0;
	if (budget->cancel && *budget->cancel)
		return -ECANCELED;
	if (budget->deadline_ns && mw_now_ns() > budget->deadline_ns)
		return -ETIME;
	return 0;
}

static uint64_t run_end(const struct run *run)
{
	return run->end_flags & ~(uint64_t)RUN_FLAGS;
}

/* Grow *array, of size_bytes elements, so that count + 1 fit.  0 or -ENOMEM. */
static int reserve(void **array, uint64_t count, uint64_t *capacity, uint64_t size_bytes)
{
	uint64_t wanted = *capacity ? *capacity * 2 : 256;
	void *grown;

	if (count < *capacity)
		return 0;
	grown = realloc(*array, wanted * size_bytes);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*capacity = wanted;
	return 0;
}

static int add_run(struct mw_regions *regions, uint64_t start, uint64_t end, uint64_t flags)
{
	struct run *last = regions->run_count ? &regions->runs[regions->run_count - 1] : NULL;

	if (last && last->end_flags == (start | flags)) {
		last->end_flags = end | flags;
		return 0;
	}
	if (regions->run_count >= MW_RUNS_MAX) {
		regions->counters.runs_untracked_total++;
		return 0;
	}
	if (reserve((void **)&regions->runs, regions->run_count, &regions->runs_capacity, sizeof(*regions->runs)))
		return -ENOMEM;
	regions->runs[regions->run_count++] = (struct run){start, end | flags};
	return 0;
}

/* Pages [start, end) of mapping are of one kind. */
static int take_pages(struct mw_regions *regions, struct mw_mapping *mapping, uint64_t start, uint64_t end,
		      uint64_t categories)
{
	if (start < mapping->start || end > mapping->end || start >= end)
		return 0;
	if (categories & page_is_swapped) {
		mapping->swap_bytes += end - start;
		return 0;
	}
	if (!(categories & page_is_present))
		return 0;
	if (categories & page_is_file)
		mapping->file_bytes += end - start;
	else if (categories & page_is_zero)
		mapping->zero_bytes += end - start;
	else
		mapping->anon_bytes += end - start;
	/* Zero pages hold nothing to read. */
	if ((categories & page_is_zero) || (mapping->flags & MW_MAPPING_KERNEL))
		return 0;
	return add_run(regions, start, end, categories & page_is_file ? 0 : RUN_ANON);
}

static int scan_mapping(struct mw_regions *regions, struct mw_mapping *mapping)
{
	struct page_region batch[BATCH_REGIONS];
	uint64_t from = mapping->start, taken = from;

	while (from < mapping->end) {
		struct pm_scan_arg arg = {
		    .size = sizeof(arg),
		    .start = from,
		    .end = mapping->end,
		    .vec = (uint64_t)(uintptr_t)batch,
		    .vec_len = BATCH_REGIONS,
		    .category_anyof_mask = page_is_present | page_is_swapped,
		    .return_mask = page_is_present | page_is_swapped | page_is_file | page_is_zero,
		};
		int count = ioctl(regions->pagemap_fd, _IOWR('f', 16, struct pm_scan_arg), &arg);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -errno;
		for (int i = 0; i < count; i++) {
			/* Past 512 stretches walk_end lags behind what was told (seen on 6.18): they come again. */
			uint64_t start = batch[i].start > taken ? batch[i].start : taken;

			if (take_pages(regions, mapping, start, batch[i].end, batch[i].categories))
				return -ENOMEM;
			taken = batch[i].end > taken ? batch[i].end : taken;
		}
		if (arg.walk_end <= from)
			break;
		from = arg.walk_end;
	}
	return 0;
}

/* The same from the pagemap file, for kernels before 6.7.  It cannot tell the
 * zero page from memory: what was only read then counts as private. */
static int walk_mapping(struct mw_regions *regions, struct mw_mapping *mapping)
{
	uint64_t entries[BATCH_PAGES];

	if (mapping->end - mapping->start > walk_bytes_max) {
		regions->counters.mappings_unscanned_total++;
		return 0;
	}
	for (uint64_t from = mapping->start; from < mapping->end;) {
		uint64_t pages = (mapping->end - from) / MW_PAGE_BYTES;
		ssize_t got;

		pages = pages < BATCH_PAGES ? pages : BATCH_PAGES;
		got = pread(regions->pagemap_fd, entries, pages * 8, (off_t)(from / MW_PAGE_BYTES * 8));
		if (got < 8)
			return got < 0 ? -errno : 0;
		for (ssize_t i = 0; i < got / 8; i++) {
			uint64_t entry = entries[i], address = from + (uint64_t)i * MW_PAGE_BYTES;
			uint64_t categories = (entry >> 63 ? page_is_present : 0) |
					      (entry >> 62 & 1 ? page_is_swapped : 0) |
					      (entry >> 61 & 1 ? page_is_file : 0);

			if (take_pages(regions, mapping, address, address + MW_PAGE_BYTES, categories))
				return -ENOMEM;
		}
		from += (uint64_t)got / 8 * MW_PAGE_BYTES;
	}
	return 0;
}

static uint32_t flags_of(const char *permissions, uint64_t inode, const char *name)
{
	uint32_t flags = 0;

	flags |= permissions[0] == 'r' ? MW_MAPPING_READ : 0;
	flags |= permissions[1] == 'w' ? MW_MAPPING_WRITE : 0;
	flags |= permissions[2] == 'x' ? MW_MAPPING_EXEC : 0;
	flags |= permissions[3] == 's' ? MW_MAPPING_SHARED : 0;
	flags |= inode ? MW_MAPPING_FILE : 0;
	if (!inode && !strcmp(name, "[heap]"))
		flags |= MW_MAPPING_HEAP;
	if (!inode && !strncmp(name, "[stack", 6))
		flags |= MW_MAPPING_STACK;
	if (!inode && (!strncmp(name, "[v", 2) || !strncmp(name, "[uprobes", 8)))
		flags |= MW_MAPPING_KERNEL;
	return flags;
}

static int add_mapping(struct mw_regions *regions, const struct mw_mapping *mapping, const char *name)
{
	uint64_t capacity = regions->mappings_capacity, size_bytes = strlen(name) + 1;
	struct mw_mapping *added;

	/* Readers of maps under way may show a mapping twice when it moves. */
	if (regions->mapping_count && mapping->start < regions->mappings[regions->mapping_count - 1].end)
		return 0;
	if (regions->mapping_count >= MW_MAPPINGS_MAX) {
		regions->counters.mappings_untracked_total++;
		return 0;
	}
	if (reserve((void **)&regions->mappings, regions->mapping_count, &capacity, sizeof(*mapping)))
		return -ENOMEM;
	regions->mappings_capacity = (uint32_t)capacity;
	added = &regions->mappings[regions->mapping_count];
	*added = *mapping;
	added->name = 0;
	if (regions->mapping_count && !strcmp(name, mw_regions_name(regions, added[-1].name))) {
		added->name = added[-1].name;
	} else if (size_bytes > 1 && regions->names_bytes + size_bytes <= NAMES_BYTES_MAX) {
		char *grown = realloc(regions->names, regions->names_bytes + size_bytes);

		if (!grown)
			return -ENOMEM;
		regions->names = grown;
		memcpy(grown + regions->names_bytes, name, size_bytes);
		added->name = (uint32_t)regions->names_bytes;
		regions->names_bytes += size_bytes;
	}
	regions->mapping_count++;
	return 0;
}

static int read_maps(struct mw_regions *regions)
{
	char path[64], line[LINE_BYTES_MAX];
	FILE *file;
	int rc = 0;

	snprintf(path, sizeof(path), "/proc/%u/maps", regions->pid);
	file = fopen(path, "re");
	if (!file)
		return errno == ENOENT ? -ESRCH : -errno;
	while (!rc && fgets(line, sizeof(line), file)) {
		struct mw_mapping mapping = {0};
		unsigned long long start, end, offset, inode;
		char permissions[5];
		int name = 0;

		if (sscanf(line, "%llx-%llx %4s %llx %*s %llu %n", &start, &end, permissions, &offset, &inode, &name) <
		    5)
			continue;
		/* A path that does not fit must not be read as a line of its own. */
		if (!strchr(line, '\n'))
			for (int c = 0; c != '\n' && c != EOF;)
				c = fgetc(file);
		line[strcspn(line, "\n")] = 0;
		if (start >= end || (start | end) % MW_PAGE_BYTES)
			continue;
		mapping.start = start;
		mapping.end = end;
		mapping.file_offset = offset;
		mapping.inode = inode;
		mapping.flags = flags_of(permissions, inode, line + name);
		rc = add_mapping(regions, &mapping, line + name);
	}
	if (!rc && ferror(file))
		rc = -EIO;
	fclose(file);
	/* Kernel threads and processes that are ending have no mappings. */
	if (!rc && !regions->mapping_count)
		rc = -ESRCH;
	return rc;
}

static int read_pagemap(struct mw_regions *regions)
{
	char path[64];

	regions->memory_fd = mw_memory_open(regions->pid);
	if (regions->memory_fd < 0)
		return regions->memory_fd;
	snprintf(path, sizeof(path), "/proc/%u/pagemap", regions->pid);
	regions->pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (regions->pagemap_fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	regions->has_scan = 1;
	for (uint32_t i = 0; i < regions->mapping_count; i++) {
		struct mw_mapping *mapping = &regions->mappings[i];
		int rc = 0;

		if (regions->has_scan)
			rc = scan_mapping(regions, mapping);
		if (rc == -ENOTTY || rc == -EINVAL || rc == -EOPNOTSUPP)
			regions->has_scan = 0;
		if (!regions->has_scan)
			rc = walk_mapping(regions, mapping);
		if (rc == -ENOMEM || rc == -EPERM || rc == -EACCES)
			return rc;
	}
	return 0;
}

static struct mw_regions *create(void)
{
	struct mw_regions *regions = calloc(1, sizeof(*regions));

	if (!regions)
		return NULL;
	regions->memory_fd = regions->pagemap_fd = -1;
	regions->file_fd = -1;
	/* Name 0 is the empty one. */
	regions->names = calloc(1, 1);
	regions->names_bytes = 1;
	if (!regions->names) {
		free(regions);
		return NULL;
	}
	return regions;
}

int mw_regions_open(uint32_t pid, struct mw_regions **ret)
{
	struct mw_regions *regions = create();
	int rc;

	if (!regions)
		return -ENOMEM;
	regions->pid = pid;
	rc = read_maps(regions);
	if (!rc)
		rc = read_pagemap(regions);
	if (rc) {
		mw_regions_close(regions);
		return rc;
	}
	*ret = regions;
	return 0;
}

int mw_regions_open_image(const struct mw_piece *pieces, uint32_t count, struct mw_regions **ret)
{
	struct mw_regions *regions = create();
	int rc = regions ? 0 : -ENOMEM;

	for (uint32_t i = 0; !rc && i < count; i++) {
		const struct mw_piece *piece = &pieces[i];
		struct mw_mapping mapping = {
		    .start = piece->address,
		    .end = piece->address + piece->size_bytes,
		    .inode = piece->flags & MW_MAPPING_FILE ? 1 : 0,
		    .anon_bytes = piece->size_bytes,
		    .flags = piece->flags,
		};

		if (!piece->bytes || (piece->address | piece->size_bytes) % MW_PAGE_BYTES ||
		    mapping.end <= mapping.start || (i && piece->address < regions->mappings[i - 1].end))
			rc = -EINVAL;
		if (!rc)
			rc = add_mapping(regions, &mapping, "");
		if (!rc)
			rc = add_run(regions, mapping.start, mapping.end, RUN_ANON);
	}
	if (rc) {
		mw_regions_close(regions);
		return rc;
	}
	regions->pieces = pieces;
	*ret = regions;
	return 0;
}

void mw_regions_close(struct mw_regions *regions)
{
	if (!regions)
		return;
	if (regions->memory_fd >= 0)
		close(regions->memory_fd);
	if (regions->pagemap_fd >= 0)
		close(regions->pagemap_fd);
	if (regions->file_fd >= 0)
		close(regions->file_fd);
	free(regions->mappings);
	free(regions->runs);
	free(regions->names);
	free(regions);
}

uint32_t mw_regions_mapping_count(const struct mw_regions *regions)
{
	return regions->mapping_count;
}

const struct mw_mapping *mw_regions_mapping(const struct mw_regions *regions, uint32_t index)
{
	return index < regions->mapping_count ? &regions->mappings[index] : NULL;
}

const char *mw_regions_name(const struct mw_regions *regions, uint32_t name)
{
	return name < regions->names_bytes ? regions->names + name : "";
}

const struct mw_mapping *mw_regions_find(struct mw_regions *regions, uint64_t address)
{
	uint32_t low = 0, high = regions->mapping_count;

	if (regions->last_mapping < high) {
		const struct mw_mapping *last = &regions->mappings[regions->last_mapping];

		if (address >= last->start && address < last->end)
			return last;
	}
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (address >= regions->mappings[middle].end)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == regions->mapping_count || address < regions->mappings[low].start)
		return NULL;
	regions->last_mapping = low;
	return &regions->mappings[low];
}

/* The first run that ends behind address; run_count if there is none. */
static uint32_t find_run(struct mw_regions *regions, uint64_t address)
{
	uint32_t low = 0, high = regions->run_count, last = regions->last_run;

	if (last < high && address < run_end(&regions->runs[last]) &&
	    (!last || address >= run_end(&regions->runs[last - 1])))
		return last;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (address >= run_end(&regions->runs[middle]))
			low = middle + 1;
		else
			high = middle;
	}
	regions->last_run = low;
	return low;
}

int mw_regions_next(struct mw_regions *regions, uint64_t from, uint64_t end, uint64_t *start, uint64_t *stop)
{
	uint32_t i = find_run(regions, from);

	if (i == regions->run_count || regions->runs[i].start >= end)
		return 0;
	*start = regions->runs[i].start > from ? regions->runs[i].start : from;
	*stop = run_end(&regions->runs[i]);
	while (++i < regions->run_count && regions->runs[i].start == *stop && *stop < end)
		*stop = run_end(&regions->runs[i]);
	if (*stop > end)
		*stop = end;
	return *start < *stop;
}

uint64_t mw_regions_anon_bytes(struct mw_regions *regions, uint64_t start, uint64_t end)
{
	uint64_t sum = 0;

	for (uint32_t i = find_run(regions, start); i < regions->run_count && regions->runs[i].start < end; i++) {
		const struct run *run = &regions->runs[i];
		uint64_t low = run->start > start ? run->start : start;
		uint64_t high = run_end(run) < end ? run_end(run) : end;

		if ((run->end_flags & RUN_ANON) && low < high)
			sum += high - low;
	}
	return sum;
}

static int64_t read_image(const struct mw_regions *regions, uint32_t mapping, uint64_t address, void *buffer,
			  uint64_t size_bytes)
{
	const struct mw_piece *piece = &regions->pieces[mapping];

	if (size_bytes > piece->address + piece->size_bytes - address)
		size_bytes = piece->address + piece->size_bytes - address;
	memcpy(buffer, (const char *)piece->bytes + (address - piece->address), size_bytes);
	return (int64_t)size_bytes;
}

/* A page of a private file mapping that is absent holds what the file holds:
 * mostly names in read-only data that nobody has printed yet. */
static int64_t read_file(struct mw_regions *regions, const struct mw_mapping *mapping, uint64_t address, void *buffer,
			 uint64_t size_bytes)
{
	uint32_t index = (uint32_t)(mapping - regions->mappings);
	ssize_t got;

	if (!(mapping->flags & MW_MAPPING_FILE) || (mapping->flags & MW_MAPPING_SHARED) || mapping->swap_bytes)
		return -EFAULT;
	if (regions->file_fd < 0 || regions->file_mapping != index) {
		struct stat status;
		char path[96];

		if (regions->file_fd >= 0)
			close(regions->file_fd);
		snprintf(path, sizeof(path), "/proc/%u/map_files/%llx-%llx", regions->pid,
			 (unsigned long long)mapping->start, (unsigned long long)mapping->end);
		/* Opening a device can do things: regular files only. */
		regions->file_fd = -1;
		if (!stat(path, &status) && S_ISREG(status.st_mode))
			regions->file_fd = open(path, O_RDONLY | O_CLOEXEC);
		regions->file_mapping = index;
	}
	if (regions->file_fd < 0)
		return -EFAULT;
	/* Only to the end of the absent page: the next one may have been written to. */
	if (size_bytes > MW_PAGE_BYTES - address % MW_PAGE_BYTES)
		size_bytes = MW_PAGE_BYTES - address % MW_PAGE_BYTES;
	got = pread(regions->file_fd, buffer, size_bytes, (off_t)(mapping->file_offset + (address - mapping->start)));
	if (got <= 0)
		return -EFAULT;
	regions->counters.reads_from_file_total++;
	return got;
}

int64_t mw_regions_read(struct mw_regions *regions, uint64_t address, void *buffer, uint64_t size_bytes)
{
	const struct mw_mapping *mapping;
	uint64_t start, stop;
	int64_t got;

	if (!size_bytes || size_bytes > UINT64_MAX - address)
		return -EFAULT;
	mapping = mw_regions_find(regions, address);
	if (!mapping || (mapping->flags & MW_MAPPING_KERNEL)) {
		regions->counters.reads_refused_total++;
		return -EFAULT;
	}
	regions->counters.reads_total++;
	if (regions->pieces) {
		got = read_image(regions, (uint32_t)(mapping - regions->mappings), address, buffer, size_bytes);
	} else if (mw_regions_next(regions, address, address + size_bytes, &start, &stop) && start == address) {
		got = mw_memory_read(regions->memory_fd, address, buffer, stop - start);
		if (got < 0)
			regions->counters.reads_failed_total++;
	} else {
		got = read_file(regions, mapping, address, buffer, size_bytes);
		if (got < 0)
			regions->counters.reads_refused_total++;
	}
	if (got > 0)
		regions->counters.read_bytes_total += (uint64_t)got;
	return got;
}

int mw_regions_is_same(const struct mw_regions *regions)
{
	uint64_t entry;

	if (regions->pieces)
		return 1;
	/* Empty once the address space that was opened has no user any more. */
	return pread(regions->pagemap_fd, &entry, sizeof(entry),
		     (off_t)(regions->mappings[0].start / MW_PAGE_BYTES * 8)) == sizeof(entry);
}

void mw_regions_get_counters(const struct mw_regions *regions, struct mw_regions_counters *ret)
{
	*ret = regions->counters;
}
