/* Counts hits by attach cookie, and adds up one argument: what the tests of
 * places and windows need to know, and nothing of the product's programs. */

#include <linux/bpf.h>
#include <stdbool.h>
#include <stdint.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";
extern bool bpf_session_is_return(void) __ksym __weak;

/* The beginning of what the kernel hands to uprobe programs on x86-64. */
struct registers {
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, flags, rsp;
};

struct counts {
	uint64_t hits_total;
	uint64_t returns_total;
	uint64_t stopped_hits_total;
};

struct target {
	uint64_t unused;
	uint32_t slot;
	uint32_t flags; /* 1: stopped */
};

struct seen {
	uint64_t hits;
	uint64_t returns;
	uint64_t sum;
	uint64_t nulls;
	uint64_t other_pids;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, uint32_t);
	__type(value, struct counts);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, uint32_t);
	__type(value, struct target);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, uint32_t);
	__type(value, struct seen);
} seen SEC(".maps");

/* Cookie: index into seen | argument number << 8. */
static __always_inline void count(struct registers *registers, void *context, bool is_return)
{
	uint64_t cookie = bpf_get_attach_cookie(context);
	uint32_t pid = bpf_get_current_pid_tgid() >> 32, index = cookie & 0xff;
	struct target *target = bpf_map_lookup_elem(&targets, &pid);
	struct seen *entry = bpf_map_lookup_elem(&seen, &index);
	struct counts *slot;
	/* Both, so that the compiler reads each at its own constant offset, as the verifier wants. */
	uint64_t first = ((volatile struct registers *)registers)->rdi;
	uint64_t second = ((volatile struct registers *)registers)->rsi;
	uint64_t argument;

	if (!entry)
		return;
	if (!target) {
		__sync_fetch_and_add(&entry->other_pids, 1);
		return;
	}
	slot = bpf_map_lookup_elem(&counts, &target->slot);
	if (!slot)
		return;
	if (target->flags & 1) {
		slot->stopped_hits_total++;
		return;
	}
	if (is_return) {
		slot->returns_total++;
		__sync_fetch_and_add(&entry->returns, 1);
		return;
	}
	slot->hits_total++;
	__sync_fetch_and_add(&entry->hits, 1);
	argument = cookie >> 8 ? second : first;
	__sync_fetch_and_add(&entry->sum, argument);
	if (!argument)
		__sync_fetch_and_add(&entry->nulls, 1);
}

SEC("uprobe")
int enter(struct registers *context)
{
	count(context, context, false);
	return 0;
}

SEC("uprobe")
int leave(struct registers *context)
{
	count(context, context, true);
	return 0;
}

SEC("uprobe")
int session(struct registers *context)
{
	count(context, context, bpf_session_is_return());
	return 0;
}
