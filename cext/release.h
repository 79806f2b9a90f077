/* release.h - closing uprobe links so that no SIGKILL can leave a breakpoint.
 *
 * Whoever closes the last descriptor of a link removes its breakpoints, which
 * takes 30 to 110 ms.  If SIGKILL comes meanwhile, the kernel cannot touch the
 * target's memory any more on our behalf (get_user_pages() gives up for a task
 * with a fatal signal), says "failed to unregister, leaking uprobe", and the
 * target keeps trapping until it execs.  A task that is already exiting has no
 * such signal any more, and gets none.  So the last descriptor is always closed
 * by the exit of a process: a child of ours that does nothing else; one for each
 * link, so that all breakpoints are gone within milliseconds. */

#ifndef MW_RELEASE_H
#define MW_RELEASE_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

/* Close the descriptors and wait until their links are gone.  0, or a negative
 * errno if there could be no child; they were then closed the ordinary way. */
int mw_links_release(const int *fds, uint32_t count);

/* Attach an empty program to places that may have been left with breakpoints in
 * the process pid, and release it: the kernel then removes them.  0 or a
 * negative errno, as mw_link_uprobes(). */
int mw_uprobes_heal(const char *path, const uint64_t *file_offsets, uint32_t count, int32_t pid);

/* A program of two instructions that returns value, loaded for the attach type
 * (enum bpf_attach_type; 0: none in particular): a descriptor or a negative errno. */
int mw_program_empty(uint32_t attach_type, int32_t value);

#endif
