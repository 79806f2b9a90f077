/* ring.c - from the kernel's ring buffer to the aggregator, without Python.
 *
 * Must not know what an event means, but for one question: must it be told
 * before the next tick? */

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <limits.h>
#include <sys/epoll.h>

#include <bpf/libbpf.h>

#include "ring.h"

struct mw_ring {
	struct ring_buffer *libbpf;
	struct mw_aggregator *aggregator;
	int urgent;
};

/* Always returns 0: libbpf stops draining when a callback returns negative, and
 * one strange event must not cost us all the ones behind it.  The aggregator
 * counts what is strange. */
static int on_event(void *context, void *data, size_t size_bytes)
{
	const struct mw_lifecycle_event *event = data;
	struct mw_ring *ring = context;

	if (size_bytes == sizeof(*event) && event->kind == MW_EVENT_OOM_VICTIM)
		ring->urgent = 1;
	mw_aggregator_on_event(ring->aggregator, data, size_bytes);
	return 0;
}

int mw_ring_create(int map_fd, struct mw_aggregator *aggregator, struct mw_ring **ret)
{
	struct mw_ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return -ENOMEM;
	ring->aggregator = aggregator;
	ring->libbpf = ring_buffer__new(map_fd, on_event, ring, NULL);
	if (!ring->libbpf) {
		int error = errno ? -errno : -EINVAL;

		free(ring);
		return error;
	}
	*ret = ring;
	return 0;
}

void mw_ring_destroy(struct mw_ring *ring)
{
	if (!ring)
		return;
	ring_buffer__free(ring->libbpf);
	free(ring);
}

static int drain(struct mw_ring *ring)
{
	int count;

	ring->urgent = 0;
	count = ring_buffer__consume(ring->libbpf);
	if (count < 0)
		return count;
	return ring->urgent;
}

/* Milliseconds until time_ns, rounded up so that nobody is woken early. */
static int remaining_ms(uint64_t time_ns)
{
	struct timespec now;
	uint64_t now_ns, ms;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	if (now_ns >= time_ns)
		return 0;
	ms = (time_ns - now_ns + 999999) / 1000000;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

/* Most events come with BPF_RB_NO_WAKEUP, so epoll does not tell of them:
 * whoever returns from here has drained after the wait. */
int mw_ring_wait(struct mw_ring *ring, uint64_t time_ns)
{
	for (;;) {
		struct epoll_event event;
		int result = drain(ring);
		int ms = remaining_ms(time_ns);

		if (result || !ms)
			return result;
		if (epoll_wait(ring_buffer__epoll_fd(ring->libbpf), &event, 1, ms) < 0)
			return -errno;
	}
}
