/* engine.h - object in, program and map descriptors out (libbpf).
 *
 * One of the two engines; the other is bcc (engine_bcc.h).  Whoever uses a program
 * sees only descriptors, so it cannot know which engine made them.  Attaching
 * is not an engine's business: see links.h. */

#ifndef MW_ENGINE_H
#define MW_ENGINE_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#include <stddef.h>
#endif

struct mw_bpf_object;

/* Load every program of an ELF object held in memory.  name is for messages.
 * Programs named in disabled (comma-separated, may be NULL) are left out.
 * Ring buffers get ring_bytes each, a power of two of pages; 0: as declared.
 * log receives at most log_bytes of libbpf's and the verifier's words, NUL
 * terminated, also on success.
 *
 * Return 0, or a negative errno: -EPERM no privilege, -EINVAL refused by the
 * verifier or no object, -ENOENT a program or kernel type it needs is absent,
 * -ESRCH the kernel has no BTF. */
int mw_bpf_object_load(const void *bytes, size_t size_bytes, const char *name, const char *disabled,
		       uint32_t ring_bytes, char *log, size_t log_bytes, struct mw_bpf_object **ret);

/* Read such an object and load nothing: for its names, and what its programs
 * and maps are like.  log as above; a negative errno: no object. */
int mw_bpf_object_open(const void *bytes, size_t size_bytes, const char *name, char *log, size_t log_bytes,
		       struct mw_bpf_object **ret);

/* Close the object; programs stay as long as a link or descriptor holds them. */
void mw_bpf_object_destroy(struct mw_bpf_object *object);

/* A descriptor owned by the object, or -ENOENT. */
int mw_bpf_object_program_fd(const struct mw_bpf_object *object, const char *name);
int mw_bpf_object_map_fd(const struct mw_bpf_object *object, const char *name);

/* The set of names, one at a time: NULL past the end.  For checks and doctor. */
const char *mw_bpf_object_program_name(const struct mw_bpf_object *object, uint32_t index);
const char *mw_bpf_object_map_name(const struct mw_bpf_object *object, uint32_t index);

/* Write one element of an array-like map; return 0 or a negative errno. */
int mw_bpf_map_write(int map_fd, const void *key, const void *value);

/* Take one element out of a hash map; return 0 or a negative errno. */
int mw_bpf_map_delete(int map_fd, const void *key);

/* Read one element of an array-like map; return 0 or a negative errno. */
int mw_bpf_map_read(int map_fd, const void *key, void *ret);

/* CPUs that this kernel may ever bring up, or a negative errno. */
int mw_bpf_possible_cpus(void);

/* Add up all CPUs' values of slot key in a per-CPU array of u64. */
int mw_bpf_map_sum_cpus(int map_fd, uint32_t key, uint64_t *ret);

#endif
