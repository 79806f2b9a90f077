/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * watch.bpf.c - the first tier: what is said of every process, always.
 *
 * One task iterator, read once per tick, and three tracepoints that tell what
 * happened between two ticks.  No probe sits in any process.
 *
 * Must not know who is suspect: it reports, user space judges. */

#include "compat.h"
#include "events.h"

enum {
	PF_KTHREAD = 0x00200000,
	EOVERFLOW = 75,

	/* The kernel's order of an mm's counters; the same since 4.5 (eca56ff906bd). */
	MM_FILEPAGES = 0,
	MM_ANONPAGES = 1,
	MM_SWAPENTS = 2,
	MM_SHMEMPAGES = 3,
	MM_COUNTERS = 4,

	PID_LEVELS_MAX = 32, /* MAX_PID_NS_LEVEL */

	/* 14,563 events of 64 bytes and a header of 8. */
	LIFECYCLE_BYTES = 1 << 20,
};

MAP_RING(lifecycle, LIFECYCLE_BYTES);
MAP_ARRAY(losses, BPF_MAP_TYPE_PERCPU_ARRAY, uint64_t, MW_LOSSES);
MAP_ARRAY(watch_config, BPF_MAP_TYPE_ARRAY, struct mw_watch_config, 1);

/* NULL if user space was built with another events.h, or has not spoken yet. */
static __always_inline const struct mw_watch_config *config(void)
{
	uint32_t key = 0;
	const struct mw_watch_config *config = bpf_map_lookup_elem(MAP(watch_config), &key);

	return config && config->events_abi == MW_EVENTS_ABI ? config : 0;
}

static __always_inline void count_loss(uint32_t loss)
{
	uint64_t *count = bpf_map_lookup_elem(MAP(losses), &loss);

	if (count)
		(*count)++; /* per CPU; a program of ours that interrupts another one here is not worth an atomic */
}

static __always_inline uint64_t cgroup_id(struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
}

/* How far a per-CPU pointer must be moved to reach each CPU's part is in
 * __per_cpu_offset[], which only a kernel with CONFIG_KALLSYMS_ALL lets us name.
 * So measure it: the kernel tells the address of a CPU's part of our own map
 * (helper of 5.19), and the map holds the per-CPU pointer that it was made of.
 *
 * Return that pointer, or 0. */
static __always_inline uint64_t losses_per_cpu_pointer(void)
{
	void *map = MAP(losses);
	uint64_t address = 0, pointer = 0;

	/* A map's address becomes a number only by reading it as bytes. */
	bpf_probe_read_kernel(&address, sizeof(address), &map);
	bpf_probe_read_kernel(&pointer, sizeof(pointer),
			      (void *)(address + bpf_core_field_offset(struct bpf_array, pptrs)));
	return pointer;
}

/* Add the CPUs' parts to the batched totals: up to 32 pages or twice the number
 * of CPUs wait in each of them (percpu_counter_batch). */
static __always_inline void add_cpus(int64_t pages[MM_COUNTERS], uint64_t parts[MM_COUNTERS], uint32_t cpus)
{
	uint64_t origin = losses_per_cpu_pointer();
	/* Since 6.6 (percpu_counter_init_many) the four lie side by side: one read per CPU. */
	bool adjacent = parts[1] == parts[0] + 4 && parts[2] == parts[0] + 8 && parts[3] == parts[0] + 12;

	if (!origin)
		return;
#pragma clang loop unroll(disable)
	for (uint32_t cpu = 0; cpu < MW_CPUS_SUMMED_MAX; cpu++) {
		int32_t part[MM_COUNTERS] = {};
		uint32_t key = 0;
		void *here;
		uint64_t offset;

		if (cpu >= cpus)
			break;
		here = bpf_map_lookup_percpu_elem(MAP(losses), &key, cpu);
		if (!here)
			break;
		bpf_probe_read_kernel(&offset, sizeof(offset), &here);
		offset -= origin;
		if (adjacent) {
			bpf_probe_read_kernel(part, sizeof(part), (void *)(parts[0] + offset));
		} else {
			for (int i = 0; i < MM_COUNTERS; i++)
				bpf_probe_read_kernel(&part[i], sizeof(part[i]), (void *)(parts[i] + offset));
		}
		for (int i = 0; i < MM_COUNTERS; i++)
			pages[i] += part[i];
	}
}

/* One counter of mm.  The index must be a constant: only then is the access
 * relocated, and a percpu_counter is larger in the kernel than here. */
#define READ_COUNTER(index)                                                                                            \
	do {                                                                                                           \
		pages[index] = BPF_CORE_READ(mm, rss_stat[index].count);                                               \
		parts[index] = (uint64_t)BPF_CORE_READ(mm, rss_stat[index].counters);                                  \
	} while (0)

/* mm's pages by kind.  If neither description fits the running kernel, the
 * relocation of the newer one fails and with it the load: better no answer
 * than zeros. */
static __always_inline void read_pages(struct mm_struct *mm, uint32_t cpus, int64_t pages[MM_COUNTERS])
{
	struct mm_struct___old *old = (void *)mm;
	uint64_t parts[MM_COUNTERS];

	if (bpf_core_field_exists(old->rss_stat.count)) {
		pages[MM_FILEPAGES] = BPF_CORE_READ(old, rss_stat.count[MM_FILEPAGES].counter);
		pages[MM_ANONPAGES] = BPF_CORE_READ(old, rss_stat.count[MM_ANONPAGES].counter);
		pages[MM_SWAPENTS] = BPF_CORE_READ(old, rss_stat.count[MM_SWAPENTS].counter);
		pages[MM_SHMEMPAGES] = BPF_CORE_READ(old, rss_stat.count[MM_SHMEMPAGES].counter);
	} else {
		READ_COUNTER(MM_FILEPAGES);
		READ_COUNTER(MM_ANONPAGES);
		READ_COUNTER(MM_SWAPENTS);
		READ_COUNTER(MM_SHMEMPAGES);
		if (cpus)
			add_cpus(pages, parts, cpus);
	}
}

/* What a process, given by its leader, is called in the pid namespace of whoever
 * reads; 0 if it is not to be seen there. */
static __always_inline uint32_t pid_there(struct task_struct *leader, const struct mw_watch_config *watch)
{
	struct pid *pid;
	uint32_t levels;

	if (!watch->pid_namespace)
		return BPF_CORE_READ(leader, tgid);
	pid = BPF_CORE_READ(leader, thread_pid);
	levels = BPF_CORE_READ(pid, level);
	/* Level 0 is the host's, which the caller is not in. */
#pragma clang loop unroll(disable)
	for (uint32_t level = 1; level <= PID_LEVELS_MAX; level++) {
		struct upid *number =
		    (void *)pid + bpf_core_field_offset(struct pid, numbers) + level * bpf_core_type_size(struct upid);

		if (level > levels)
			break;
		if (BPF_CORE_READ(number, ns, ns.inum) == watch->pid_namespace)
			return BPF_CORE_READ(number, nr);
	}
	return 0;
}

/* One record per process.  Threads add nothing, but for one case: when the main
 * thread has ended and others live, the leader has no memory map any more, and
 * theirs is taken; user space keeps the last of several equal records. */
SEC("iter/task")
int process_table(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	const struct mw_watch_config *watch = config();
	struct mw_process_record record = {};
	int64_t pages[MM_COUNTERS] = {};
	struct task_struct *leader;
	struct mm_struct *mm;
	uint32_t pid;
	long error;

	if (!task || !watch)
		return 0;
	mm = task->mm;
	if (!mm || task->flags & PF_KTHREAD)
		return 0;
	leader = task->group_leader;
	if (task->pid != task->tgid && leader->mm)
		return 0;
	pid = pid_there(leader, watch);
	if (!pid)
		return 0;

	read_pages(mm, watch->cpus_summed, pages);
	record.start_time_ns = leader->start_boottime;
	record.cgroup_id = cgroup_id(task);
	record.anon_pages = pages[MM_ANONPAGES];
	record.file_pages = pages[MM_FILEPAGES];
	record.shmem_pages = pages[MM_SHMEMPAGES];
	record.swap_pages = pages[MM_SWAPENTS];
	record.total_vm_pages = mm->total_vm;
	record.pid = pid;
	record.parent_pid = pid_there(BPF_CORE_READ(leader, real_parent, group_leader), watch);
	bpf_probe_read_kernel_str(record.comm, sizeof(record.comm), &leader->comm);

	/* A full buffer (EOVERFLOW) is no loss: the kernel takes the half-written
	 * record back and shows us the same task again at the next read. */
	error = bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	if (error && error != -EOVERFLOW)
		count_loss(MW_LOSS_RECORD_UNWRITTEN);
	return 0;
}

static __always_inline void tell(struct mw_lifecycle_event *event)
{
	/* Readers are woken once per tick by their clock.  Not so when somebody is
	 * about to die, or when the ring fills faster than ticks come. */
	bool urgent = event->kind == MW_EVENT_OOM_VICTIM ||
		      bpf_ringbuf_query(MAP(lifecycle), BPF_RB_AVAIL_DATA) > LIFECYCLE_BYTES / 2;

	event->time_ns = bpf_ktime_get_ns();
	if (bpf_ringbuf_output(MAP(lifecycle), event, sizeof(*event), urgent ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP))
		count_loss(MW_LOSS_LIFECYCLE_DROPPED);
}

/* cpus: as in mw_watch_config.  Where programs start and end at a high rate,
 * the batched totals must do. */
static __always_inline void tell_task(struct task_struct *task, uint32_t kind, const struct mw_watch_config *watch,
				      uint32_t cpus)
{
	struct mw_lifecycle_event event = {.kind = kind};
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	int64_t pages[MM_COUNTERS] = {};

	event.pid = pid_there(BPF_CORE_READ(task, group_leader), watch);
	if (!event.pid)
		return;
	if (mm)
		read_pages(mm, cpus, pages);
	event.start_time_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	event.cgroup_id = cgroup_id(task);
	event.anon_pages = pages[MM_ANONPAGES];
	event.swap_pages = pages[MM_SWAPENTS];
	BPF_CORE_READ_STR_INTO(&event.comm, task, group_leader, comm);
	tell(&event);
}

SEC("raw_tracepoint/sched_process_exec")
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	const struct mw_watch_config *watch = config();

	if (watch)
		tell_task((struct task_struct *)ctx->args[0], MW_EVENT_EXEC, watch, 0);
	return 0;
}

/* Every thread passes here; the process ends with its last one.  Older
 * kernels' tracepoint does not say so, and two threads that end at once on two CPUs
 * may both see no other alive: the event can then come twice. */
SEC("raw_tracepoint/sched_process_exit")
int process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	const struct mw_watch_config *watch = config();
	bool group_dead;

	if (!watch)
		return 0;
	if (bpf_core_field_exists(struct trace_event_raw_sched_process_exit, group_dead))
		group_dead = (bool)ctx->args[1];
	else
		group_dead = BPF_CORE_READ(task, signal, live.counter) == 0;
	if (group_dead)
		tell_task(task, MW_EVENT_EXIT, watch, 0);
	return 0;
}

/* The argument is the victim's task in newer kernels (72ba14deb40a) and a pid in
 * older ones.  Nothing here tells which, but no pid looks like a kernel address.
 * A pid is all there is then, and it may be that of a thread. */
SEC("raw_tracepoint/mark_victim")
int oom_victim(struct bpf_raw_tracepoint_args *ctx)
{
	const struct mw_watch_config *watch = config();
	struct mw_lifecycle_event event = {.kind = MW_EVENT_OOM_VICTIM};
	uint64_t victim = ctx->args[0];

	if (!watch)
		return 0;
	if (victim >> 32) {
		tell_task((struct task_struct *)victim, MW_EVENT_OOM_VICTIM, watch, watch->cpus_summed);
	} else if (!watch->pid_namespace) {
		event.pid = (uint32_t)victim;
		tell(&event);
	} else {
		/* A pid of the host's, which means nothing to the reader: that somebody died cannot be told. */
		count_loss(MW_LOSS_VICTIM_UNTRANSLATED);
	}
	return 0;
}

STORE_EVENTS_ABI;
LICENSE_GPL;
