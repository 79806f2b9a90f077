/* tracer_ring.c - the way from the kernel's ring buffer into the tracer.
 *
 * Must not know what a record means. */

#include <errno.h>
#include <sys/epoll.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "tracer_state.h"

/* Always returns 0: libbpf stops draining when a callback returns negative,
 * and one strange record must not cost us all the ones behind it. */
static int on_record(void *context, void *data, size_t size_bytes)
{
	mw_tracer_take(context, data, size_bytes);
	return 0;
}

void mw_tracer_close_ring(struct mw_tracer *tracer)
{
	if (tracer->ring)
		ring_buffer__free(tracer->ring);
	tracer->ring = NULL;
	tracer->ring_map_id = 0;
}

/* A descriptor number may come to mean another map, hence the id. */
static int open_ring(struct mw_tracer *tracer, int map_fd)
{
	struct bpf_map_info info = {0};
	uint32_t info_bytes = sizeof(info);

	if (bpf_obj_get_info_by_fd(map_fd, &info, &info_bytes))
		return -errno;
	if (tracer->ring && tracer->ring_map_id == info.id)
		return 0;
	mw_tracer_close_ring(tracer);
	tracer->ring = ring_buffer__new(map_fd, on_record, tracer, NULL);
	if (!tracer->ring)
		return errno ? -errno : -EINVAL;
	tracer->ring_map_id = info.id;
	return 0;
}

int mw_tracer_drain(struct mw_tracer *tracer, int map_fd, int timeout_ms)
{
	struct epoll_event event;
	int result;

	if (map_fd < 0) {
		mw_tracer_close_ring(tracer);
		return 0;
	}
	result = open_ring(tracer, map_fd);
	if (result)
		return result;
	result = ring_buffer__consume(tracer->ring);
	if (result || !timeout_ms)
		return result;
	if (epoll_wait(ring_buffer__epoll_fd(tracer->ring), &event, 1, timeout_ms) < 0)
		return -errno;
	return ring_buffer__consume(tracer->ring);
}
