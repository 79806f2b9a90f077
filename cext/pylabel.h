/* pylabel.h - names for people: keys, attributes, members, functions, modules.
 *
 * Every call reads the target a few times (2 us each): for what is shown, not
 * for what is counted.  All text is printable ASCII and bounded. */

#ifndef MW_PYLABEL_H
#define MW_PYLABEL_H

#include "pyobject.h"

/* A dict key: 'text', 123, (…), else the type's name in <>. */
void mw_label_key(struct mw_types *types, uint64_t address, char *buffer, uint32_t buffer_bytes);

/* The key of entry index in the key table at keys. */
int mw_label_entry(struct mw_types *types, uint64_t keys, uint64_t index, char *buffer, uint32_t buffer_bytes);

/* The attribute that lies offset bytes into an object of type: a slot, or an
 * inline value (3.13).  0 if it has no name. */
int mw_label_field(struct mw_types *types, const struct mw_type *type, uint64_t offset, char *buffer,
		   uint32_t buffer_bytes);

/* A module's, class's, function's or code's name; "" for all else. */
void mw_label_object(struct mw_types *types, uint64_t address, char *buffer, uint32_t buffer_bytes);

/* "function name" for local variable index of the code object. */
void mw_label_local(struct mw_types *types, uint64_t code, int64_t index, char *buffer, uint32_t buffer_bytes);

#endif
