/* links.h - programs tied to the kernel, by descriptors alone.
 *
 * Plain bpf(2), because the distribution's libbpf may be older than the kernel
 * (bookworm's 1.1 knows no uprobe_multi), and because a descriptor is all that
 * the bcc engine has to give.  Every link here dies with its descriptor: a
 * killed daemon leaves nothing behind.
 *
 * All return a descriptor owned by the caller, or a negative errno. */

#ifndef MW_LINKS_H
#define MW_LINKS_H

/* A link for an iter/task program; what mw_aggregator_tick() reads. */
int mw_link_iterator(int program_fd);

/* Open such a link for one reading to its end: the kernel cannot rewind it. */
int mw_link_iterator_open(int link_fd);

/* Attach to the raw tracepoint of that name; -ENOENT: this kernel has none. */
int mw_link_raw_tracepoint(int program_fd, const char *name);

/* Attach a program of type tracepoint to category/name, as tracefs names it
 * (which need not be mounted). -ENOENT: this kernel has none of that name.
 * Costs 100 ms to detach; use it where a raw tracepoint would see too much. */
int mw_link_tracepoint(int program_fd, const char *category, const char *name);

enum mw_uprobe_flag {
	MW_UPROBE_RETURN = 1,  /* when the function returns, not when it is entered */
	MW_UPROBE_SESSION = 2, /* both, by one program (6.13 and later) */
};

/* Put probes on count places of the file at path: offsets into the file, and a
 * cookie (may be NULL) for each.  pid confines them to one process, 0 does not.
 *
 * -EINVAL: this kernel cannot (6.6 and later can), or another tool holds a probe
 * at one of the places with a semaphore; -ESRCH: no such process; -EOPNOTSUPP or
 * -EIO: the instruction there cannot be probed. */
int mw_link_uprobe_multi(int program_fd, const char *path, const uint64_t *offsets, const uint64_t *cookies,
			 uint32_t count, uint32_t pid, uint32_t flags);

/* The same for one place, by perf: for kernels that lack the above.  pid 0: every
 * process.  MW_UPROBE_SESSION is -EINVAL.  -ENOENT: no perf uprobes here. */
int mw_link_uprobe_perf(int program_fd, const char *path, uint64_t offset, uint64_t cookie, uint32_t pid,
			uint32_t flags);

#endif
