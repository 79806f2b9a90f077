/* services.c - see services.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "services.h"

struct mw_services {
	struct mw_service *services; /* by id; 0 is nobody's */
	uint32_t services_max;
	uint32_t used_end;
};

struct mw_services *mw_services_create(uint32_t services_max)
{
	struct mw_services *services = calloc(1, sizeof(*services));

	if (!services)
		return NULL;
	services->services_max = services_max;
	services->used_end = 1;
	services->services = calloc(services_max, sizeof(*services->services));
	if (!services->services) {
		free(services);
		return NULL;
	}
	return services;
}

void mw_services_destroy(struct mw_services *services)
{
	if (!services)
		return;
	for (uint32_t id = 1; id < services->used_end; id++)
		mw_subject_deinit(&services->services[id].subject);
	free(services->services);
	free(services);
}

struct mw_service *mw_services_get(const struct mw_services *services, uint32_t service_id)
{
	return service_id && service_id < services->used_end ? &services->services[service_id] : NULL;
}

uint32_t mw_services_end(const struct mw_services *services)
{
	return services->used_end;
}

/* Begin the history, begin it anew, or count a birth.  A process that has no
 * sample yet (it ran another program since the last tick) is as good as born
 * now. */
static void welcome(struct mw_service *service, const struct mw_process *process)
{
	uint64_t process_ns = mw_history_first_time_ns(process->subject.history);

	if (!mw_history_first_time_ns(service->subject.history)) {
		if (process_ns > service->founded_ns)
			service->founded_ns = process_ns;
	} else if (process_ns && process_ns <= service->founded_ns) {
		mw_subject_clear(&service->subject);
		service->births = 0;
	} else {
		service->births++;
	}
}

int mw_services_join(struct mw_services *services, uint32_t service_id, struct mw_process *process)
{
	struct mw_service *service;

	if (service_id >= services->services_max)
		return -ENOSPC;
	if (process->service_id == service_id)
		return 0;
	service = &services->services[service_id];
	if (!service->subject.history && mw_subject_init(&service->subject))
		return -ENOMEM;
	mw_services_leave(services, process);
	if (service_id >= services->used_end)
		services->used_end = service_id + 1;
	welcome(service, process);
	process->service_id = service_id;
	service->member_count++;
	service->is_occupied = 1;
	return 0;
}

struct mw_service *mw_services_open(struct mw_services *services, uint32_t service_id)
{
	struct mw_service *service;

	if (!service_id || service_id >= services->services_max)
		return NULL;
	service = &services->services[service_id];
	if (!service->subject.history && mw_subject_init(&service->subject))
		return NULL;
	if (service_id >= services->used_end)
		services->used_end = service_id + 1;
	service->is_occupied = 1;
	return service;
}

void mw_services_close(struct mw_services *services, uint32_t service_id)
{
	struct mw_service *service = mw_services_get(services, service_id);

	if (!service || service->member_count)
		return;
	mw_subject_deinit(&service->subject);
	memset(service, 0, sizeof(*service));
}

void mw_services_rejoin(struct mw_services *services, uint32_t service_id, struct mw_process *process)
{
	struct mw_service *service = mw_services_open(services, service_id);

	mw_services_leave(services, process);
	if (!service)
		return;
	process->service_id = service_id;
	service->member_count++;
}

void mw_services_leave(struct mw_services *services, struct mw_process *process)
{
	if (process->service_id)
		services->services[process->service_id].member_count--;
	process->service_id = 0;
}

void mw_services_begin_tick(struct mw_services *services)
{
	for (uint32_t id = 1; id < services->used_end; id++) {
		struct mw_service *service = &services->services[id];

		service->anon_pages = 0;
		service->file_pages = 0;
		service->shmem_pages = 0;
		service->swap_pages = 0;
		service->total_vm_pages = 0;
		service->oldest_start_time_ns = 0;
		service->largest_private_pages = 0;
		service->largest_cgroup_id = 0;
		service->largest_pid = 0;
		service->process_count = 0;
	}
}

/* Of equals the lowest pid, so that the answer does not depend on the order. */
static int is_largest(const struct mw_service *service, const struct mw_process *process)
{
	uint64_t pages = mw_process_private_pages(process);

	if (!service->largest_pid || pages > service->largest_private_pages)
		return 1;
	return pages == service->largest_private_pages && process->pid < service->largest_pid;
}

void mw_services_add(struct mw_services *services, const struct mw_process *process)
{
	struct mw_service *service = mw_services_get(services, process->service_id);

	if (!service)
		return;
	service->anon_pages += process->anon_pages;
	service->file_pages += process->file_pages;
	service->shmem_pages += process->shmem_pages;
	service->swap_pages += process->swap_pages;
	service->total_vm_pages += process->total_vm_pages;
	if (!service->process_count || process->start_time_ns < service->oldest_start_time_ns)
		service->oldest_start_time_ns = process->start_time_ns;
	if (is_largest(service, process)) {
		service->largest_private_pages = mw_process_private_pages(process);
		service->largest_cgroup_id = process->cgroup_id;
		service->largest_pid = process->pid;
	}
	service->process_count++;
}

/* What comes back after all processes were gone is a restart: another series. */
static void end_service(struct mw_service *service)
{
	service->is_gone = 1;
	service->is_occupied = 0;
	service->births = 0;
	service->founded_ns = 0;
	mw_subject_deinit(&service->subject);
}

void mw_services_end_tick(struct mw_services *services, const struct mw_clock *clock, uint64_t screen_pages,
			  int is_whole)
{
	for (uint32_t id = 1; id < services->used_end; id++) {
		struct mw_service *service = &services->services[id];

		if (!service->is_occupied)
			continue;
		service->first_time_ns = mw_history_first_time_ns(service->subject.history);
		if (!service->process_count) {
			end_service(service);
			continue;
		}
		service->is_gone = 0;
		if (is_whole)
			mw_history_add(service->subject.history, clock, service->anon_pages + service->swap_pages);
		service->first_time_ns = mw_history_first_time_ns(service->subject.history);
		mw_subject_screen(&service->subject, clock, screen_pages);
	}
}

int mw_services_forget(struct mw_services *services, uint32_t service_id)
{
	struct mw_service *service = mw_services_get(services, service_id);

	if (!service)
		return 0;
	if (service->member_count)
		return -EBUSY;
	mw_subject_deinit(&service->subject);
	memset(service, 0, sizeof(*service));
	return 0;
}
