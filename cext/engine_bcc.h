/* engine_bcc.h - programs that another compiler made, loaded as an object's.
 *
 * bcc gives nothing but instructions.  What a program is (its type, what it can
 * attach to) and what its maps are like is in the object that was compiled from
 * the same text when mwtrace was built; it is opened for that and not loaded.
 *
 * Must not know bcc. */

#ifndef MW_ENGINE_BCC_H
#define MW_ENGINE_BCC_H

#include "engine.h"

/* Make an empty map like the object's of that name; ring_bytes as for
 * mw_bpf_object_load().  A descriptor owned by the caller, or a negative errno:
 * -ENOENT the object has none. */
int mw_bpf_object_map_create(const struct mw_bpf_object *object, const char *name, uint32_t ring_bytes);

/* Load count instructions (8 bytes each) in place of the object's program of
 * that name.  callbacks are the first instructions of the functions behind the
 * program that helpers call back, in order.  log as in mw_bpf_object_load().
 *
 * A descriptor owned by the caller, or a negative errno: -ENOENT the object has
 * none, -EPERM no privilege, -EACCES or -EINVAL refused by the verifier. */
int mw_bpf_object_program_replace(const struct mw_bpf_object *object, const char *name, const void *instructions,
				  uint32_t count, const uint32_t *callbacks, uint32_t callback_count, char *log,
				  size_t log_bytes);

#endif
