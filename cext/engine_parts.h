/* engine_parts.h - what the engines' C sides share, and nobody else sees. */

#ifndef MW_ENGINE_PARTS_H
#define MW_ENGINE_PARTS_H

#include <bpf/libbpf.h>

struct mw_bpf_object {
	struct bpf_object *libbpf;
};

#endif
