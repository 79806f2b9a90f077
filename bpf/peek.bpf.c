/* peek.bpf.c - one page of kernel memory, for whoever measures where this kernel
 * keeps what (cext/offsets.h).
 *
 * Never attached: it is run by hand, in a task of our own, and unloaded.  Needs
 * no type information.  Must not know what is looked for. */

#include "compat.h"

struct peek_window {
	uint8_t bytes[4096];
};

MAP_ARRAY(peek_window, BPF_MAP_TYPE_ARRAY, struct peek_window, 1);

/* args: an address, 0 for the current task; and what to add to it.  Return 0 if
 * the window holds what is there. */
SEC("raw_tracepoint")
int peek(struct bpf_raw_tracepoint_args *ctx)
{
	struct peek_window *window;
	uint64_t from = ctx->args[0];
	uint32_t key = 0;

	window = bpf_map_lookup_elem(MAP(peek_window), &key);
	if (!window)
		return 1;
	if (!from)
		from = bpf_get_current_task();
	return bpf_probe_read_kernel(window, sizeof(*window), (void *)(from + ctx->args[1])) ? 1 : 0;
}

LICENSE_GPL;
