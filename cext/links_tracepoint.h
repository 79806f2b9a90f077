/* links_tracepoint.h - programs tied to tracepoints through perf events.
 *
 * For what raw tracepoints cannot do: one system call, instead of all of them.
 * As links.h: a link dies with its descriptor; detaching takes 100 ms. */

#ifndef MW_LINKS_TRACEPOINT_H
#define MW_LINKS_TRACEPOINT_H

/* Attach a program of type tracepoint to category/name, as tracefs names it
 * (which need not be mounted).
 *
 * A descriptor owned by the caller, or a negative errno: -ENOENT this kernel
 * has none of that name; -EPERM, -EACCES. */
int mw_link_tracepoint(int program_fd, const char *category, const char *name);

#endif
