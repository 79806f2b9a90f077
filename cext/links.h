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

#endif
