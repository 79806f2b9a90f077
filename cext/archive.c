/* archive.c - see archive.h.
 *
 * A saved tick is: struct mw_saved_tick, the clock, a value per process, a
 * value per service, histories of processes, histories of services.  All sizes
 * follow from the counts in its head, so one comparison tells whether it is
 * whole. */

#include <errno.h>
#include <string.h>

#include "archive_parts.h"

static const uint64_t MAGIC = 0x6b6369742d776d01; /* 01 "mw-tick": also tells the byte order */

static const uint32_t NO_SAMPLE = UINT32_MAX;

struct process_value {
	uint32_t pid;
	uint32_t private_pages; /* or NO_SAMPLE */
	uint32_t service_id;
	uint32_t flags;
};

struct service_value {
	uint32_t service_id;
	uint32_t births;
	uint64_t private_pages; /* or UINT64_MAX */
};

struct process_history {
	uint64_t start_time_ns;
	uint64_t cgroup_id;
	uint32_t pid;
	uint32_t reserved;
	uint8_t history[MW_HISTORY_BYTES];
};

struct service_history {
	uint64_t founded_ns;
	uint32_t service_id;
	uint32_t reserved;
	uint8_t history[MW_HISTORY_BYTES];
};

/* Where the parts of one saved tick begin. */
struct layout {
	const uint8_t *clock;
	const uint8_t *processes;
	const uint8_t *services;
	const uint8_t *process_histories;
	const uint8_t *service_histories;
	uint64_t size_bytes;
};

static uint64_t size_of(const struct mw_saved_tick *head)
{
	return sizeof(*head) + MW_CLOCK_BYTES + (uint64_t)head->process_count * sizeof(struct process_value) +
	       (uint64_t)head->service_count * sizeof(struct service_value) +
	       (uint64_t)head->process_histories * sizeof(struct process_history) +
	       (uint64_t)head->service_histories * sizeof(struct service_history);
}

static struct layout layout_of(const struct mw_saved_tick *head, const uint8_t *data)
{
	struct layout layout = {.clock = data + sizeof(*head), .size_bytes = size_of(head)};

	layout.processes = layout.clock + MW_CLOCK_BYTES;
	layout.services = layout.processes + (uint64_t)head->process_count * sizeof(struct process_value);
	layout.process_histories = layout.services + (uint64_t)head->service_count * sizeof(struct service_value);
	layout.service_histories =
	    layout.process_histories + (uint64_t)head->process_histories * sizeof(struct process_history);
	return layout;
}

uint64_t mw_archive_bytes_max(const struct mw_archive_parts *parts)
{
	struct mw_saved_tick head = {
	    .process_count = mw_processes_count(parts->processes),
	    .service_count = mw_services_end(parts->services),
	    .process_histories = MW_SAVED_HISTORIES_MAX,
	};

	return size_of(&head);
}

/* New, cleared or older than its turn.  Turns differ, so that those who were
 * saved together first are not for ever. */
static int is_due(const struct mw_subject *subject, uint32_t tick, uint32_t number)
{
	uint32_t turn = MW_SAVED_TICKS / 2 + number % (MW_SAVED_TICKS / 2);

	return !subject->saved_tick || tick - subject->saved_tick >= turn;
}

/* Whether this one's history goes along now. */
static int takes_part(struct mw_subject *subject, struct mw_saved_tick *head, uint32_t number)
{
	if (!is_due(subject, head->tick, number))
		return 0;
	if (head->process_histories + head->service_histories == MW_SAVED_HISTORIES_MAX) {
		head->histories_deferred++;
		return 0;
	}
	subject->saved_tick = head->tick;
	return 1;
}

static void note_age(struct mw_saved_tick *head, const struct mw_subject *subject)
{
	if (subject->saved_tick && (!head->oldest_tick || subject->saved_tick < head->oldest_tick))
		head->oldest_tick = subject->saved_tick;
}

static int is_kept(const struct mw_service *service)
{
	return service->is_occupied && service->subject.history;
}

static uint32_t bounded(uint64_t pages)
{
	return pages < NO_SAMPLE ? (uint32_t)pages : NO_SAMPLE - 1;
}

static void put(uint8_t **end, const void *bytes, uint64_t size_bytes)
{
	memcpy(*end, bytes, size_bytes);
	*end += size_bytes;
}

static void save_values(const struct mw_archive_parts *parts, struct mw_saved_tick *head, uint8_t **end)
{
	struct mw_process *process = NULL;

	while ((process = mw_processes_next(parts->processes, process))) {
		/* None if this tick did not see it, or if it ran another program since. */
		int has_sample = mw_history_has_sample(process->subject.history, parts->clock);
		struct process_value value = {
		    .pid = process->pid,
		    .private_pages = has_sample ? bounded(mw_process_private_pages(process)) : NO_SAMPLE,
		    .service_id = process->service_id,
		    .flags = process->flags,
		};

		put(end, &value, sizeof(value));
		head->process_count++;
	}
	for (uint32_t id = 1; id < mw_services_end(parts->services); id++) {
		const struct mw_service *service = mw_services_get(parts->services, id);
		struct service_value value = {.service_id = id, .births = service->births, .private_pages = UINT64_MAX};

		if (!is_kept(service))
			continue;
		/* Without a whole table it took no sample. */
		if (mw_history_has_sample(service->subject.history, parts->clock))
			value.private_pages = service->anon_pages + service->swap_pages;
		put(end, &value, sizeof(value));
		head->service_count++;
	}
}

/* Services first: there are fewer, and they are what is told. */
static void save_histories(const struct mw_archive_parts *parts, struct mw_saved_tick *head, uint8_t **end)
{
	struct mw_process *process = NULL;
	struct service_history saved;
	uint32_t id;

	for (id = 1; id < mw_services_end(parts->services); id++) {
		struct mw_service *service = mw_services_get(parts->services, id);

		if (is_kept(service) && takes_part(&service->subject, head, id))
			head->service_histories++;
	}
	while ((process = mw_processes_next(parts->processes, process))) {
		struct process_history entry = {
		    .start_time_ns = process->start_time_ns,
		    .cgroup_id = process->cgroup_id,
		    .pid = process->pid,
		};

		if (takes_part(&process->subject, head, process->pid)) {
			mw_history_save(process->subject.history, entry.history);
			put(end, &entry, sizeof(entry));
			head->process_histories++;
		}
		note_age(head, &process->subject);
	}
	for (id = 1; id < mw_services_end(parts->services); id++) {
		struct mw_service *service = mw_services_get(parts->services, id);

		if (!is_kept(service))
			continue;
		note_age(head, &service->subject);
		if (service->subject.saved_tick != head->tick)
			continue;
		saved = (struct service_history){.founded_ns = service->founded_ns, .service_id = id};
		mw_history_save(service->subject.history, saved.history);
		put(end, &saved, sizeof(saved));
	}
}

int64_t mw_archive_save(const struct mw_archive_parts *parts, void *buffer, uint64_t size_bytes)
{
	struct mw_saved_tick head = {
	    .magic = MAGIC,
	    .time_ns = parts->time_ns,
	    .version = MW_ARCHIVE_VERSION,
	    .tick = parts->tick,
	};
	uint8_t *end = buffer;

	if (!parts->tick)
		return -EAGAIN;
	if (size_bytes < mw_archive_bytes_max(parts))
		return -ENOSPC;
	end += sizeof(head);
	mw_clock_save(parts->clock, end);
	end += MW_CLOCK_BYTES;
	save_values(parts, &head, &end);
	save_histories(parts, &head, &end);
	memcpy(buffer, &head, sizeof(head));
	return end - (uint8_t *)buffer;
}

void mw_archive_unsave(const struct mw_archive_parts *parts, uint32_t tick)
{
	struct mw_process *process = NULL;

	while ((process = mw_processes_next(parts->processes, process))) {
		if (!tick || process->subject.saved_tick == tick)
			process->subject.saved_tick = 0;
	}
	for (uint32_t id = 1; id < mw_services_end(parts->services); id++) {
		struct mw_service *service = mw_services_get(parts->services, id);

		if (!tick || service->subject.saved_tick == tick)
			service->subject.saved_tick = 0;
	}
}

static void end_process(struct mw_archive_parts *parts, struct mw_process *process)
{
	mw_services_leave(parts->services, process);
	mw_processes_end(parts->processes, process);
}

/* Enter a process anew or bring it up to this tick.  What cannot be a history
 * of this clock is left out, and so is what does not fit into our tables. */
static void restore_process(struct mw_archive_parts *parts, const struct process_history *saved, uint32_t tick)
{
	struct mw_process *process = mw_processes_find(parts->processes, saved->pid);

	if (process && process->start_time_ns != saved->start_time_ns) {
		end_process(parts, process);
		process = NULL;
	}
	if (!process)
		process = saved->pid ? mw_processes_begin(parts->processes, saved->pid) : NULL;
	if (!process)
		return;
	process->start_time_ns = saved->start_time_ns;
	process->cgroup_id = saved->cgroup_id;
	if (mw_history_load(process->subject.history, parts->clock, saved->history)) {
		end_process(parts, process);
		return;
	}
	process->subject.saved_tick = tick;
}

static void restore_process_value(struct mw_archive_parts *parts, const struct process_value *value, uint32_t tick)
{
	struct mw_process *process = mw_processes_find(parts->processes, value->pid);

	/* Its history was to be saved with a later tick. */
	if (!process)
		return;
	process->seen_tick = tick;
	process->flags = (value->flags & (MW_PROCESS_TOLD | MW_PROCESS_EXECED | MW_PROCESS_CLEARED)) |
			 MW_PROCESS_UNNAMED | MW_PROCESS_RESTORED;
	if (process->service_id != value->service_id)
		mw_services_rejoin(parts->services, value->service_id, process);
	if (value->private_pages != NO_SAMPLE) {
		process->anon_pages = value->private_pages;
		mw_history_add(process->subject.history, parts->clock, value->private_pages);
	}
}

static void restore_service(struct mw_archive_parts *parts, const struct service_history *saved, uint32_t tick)
{
	struct mw_service *service = mw_services_open(parts->services, saved->service_id);

	if (!service)
		return;
	if (mw_history_load(service->subject.history, parts->clock, saved->history)) {
		mw_subject_clear(&service->subject);
		return;
	}
	service->founded_ns = saved->founded_ns;
	service->first_time_ns = mw_history_first_time_ns(service->subject.history);
	service->subject.saved_tick = tick;
}

static void restore_service_value(struct mw_archive_parts *parts, const struct service_value *value)
{
	struct mw_service *service = mw_services_get(parts->services, value->service_id);

	if (!service || !service->subject.history)
		return;
	service->process_count = 1; /* this tick knows it; a tick counts anew */
	service->births = value->births;
	if (value->private_pages != UINT64_MAX)
		mw_history_add(service->subject.history, parts->clock, value->private_pages);
}

/* Who was not there any more at that tick. */
static void end_unseen(struct mw_archive_parts *parts, uint32_t tick)
{
	struct mw_process *process = NULL;
	uint32_t id;

	while ((process = mw_processes_next(parts->processes, process))) {
		if (process->seen_tick != tick)
			end_process(parts, process);
	}
	for (id = 1; id < mw_services_end(parts->services); id++) {
		struct mw_service *service = mw_services_get(parts->services, id);

		/* Members are no measure: their histories may be saved later. */
		if (!service->process_count)
			mw_services_close(parts->services, id);
		service->process_count = 0;
	}
}

static int is_acceptable(const struct mw_archive_parts *parts, const struct mw_saved_tick *head, uint64_t size_bytes,
			 uint64_t now_ns)
{
	if (head->magic != MAGIC || head->version != MW_ARCHIVE_VERSION || size_of(head) != size_bytes)
		return 0;
	return head->tick > parts->tick && head->time_ns > parts->time_ns && head->time_ns < now_ns;
}

/* Everything is copied before it is looked at: the bytes may lie anywhere. */
int mw_archive_restore(struct mw_archive_parts *parts, const void *data, uint64_t size_bytes, uint64_t now_ns)
{
	struct mw_saved_tick head;
	struct layout layout;
	uint32_t i;

	if (size_bytes < sizeof(head))
		return -EPROTO;
	memcpy(&head, data, sizeof(head));
	if (!is_acceptable(parts, &head, size_bytes, now_ns))
		return -EPROTO;
	layout = layout_of(&head, data);
	if (mw_clock_load(parts->clock, layout.clock, head.time_ns))
		return -EPROTO;
	parts->tick = head.tick;
	parts->time_ns = head.time_ns;
	for (i = 0; i < head.process_histories; i++) {
		struct process_history saved;

		memcpy(&saved, layout.process_histories + i * sizeof(saved), sizeof(saved));
		restore_process(parts, &saved, head.tick);
	}
	for (i = 0; i < head.service_histories; i++) {
		struct service_history saved;

		memcpy(&saved, layout.service_histories + i * sizeof(saved), sizeof(saved));
		restore_service(parts, &saved, head.tick);
	}
	for (i = 0; i < head.process_count; i++) {
		struct process_value value;

		memcpy(&value, layout.processes + i * sizeof(value), sizeof(value));
		restore_process_value(parts, &value, head.tick);
	}
	for (i = 0; i < head.service_count; i++) {
		struct service_value value;

		memcpy(&value, layout.services + i * sizeof(value), sizeof(value));
		restore_service_value(parts, &value);
	}
	end_unseen(parts, head.tick);
	return 0;
}
