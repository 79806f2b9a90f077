/* privilege.h - giving back what is needed no more.
 *
 * Must not know who needs what. */

#ifndef MW_PRIVILEGE_H
#define MW_PRIVILEGE_H

/* Take a capability (CAP_* of linux/capability.h) from this thread and those it
 * starts from now on, for good: call it before there are others.  Return 1, 0 if
 * we did not have it, or a negative errno. */
int mw_capability_drop(int capability);

#endif
