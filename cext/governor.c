/* governor.c - see governor.h for what it is for.
 *
 * Two threads, because closing a link waits 30 to 110 ms for RCU: one looks and
 * sets flags, the other closes, so that the emergency of one target does not
 * wait for the detaching of another. */

#include "governor.h"

#include "release.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum stage {
	STAGE_FREE = 0,
	STAGE_OPEN,
	STAGE_FLAGGED, /* told to stop; links still there */
	STAGE_CLOSED,  /* waits to be collected */
};

struct watched {
	struct mw_window window;
	uint64_t start_words[MW_PRICED_WORDS_MAX];
	uint64_t deadline_ns;
	uint64_t spent_max_ns;
	int links[MW_WINDOW_LINKS_MAX];
	uint32_t link_count;
	uint32_t pid;
	uint32_t slot;
	int pidfd;
	enum stage stage;
};

struct mw_governor {
	struct mw_governor_maps maps;
	uint64_t poll_ns;
	pthread_mutex_t lock;
	pthread_cond_t wake;	/* a window came, or all must end */
	pthread_cond_t flagged; /* a window's links are to be closed */
	pthread_cond_t closed;	/* a window's links are gone */
	pthread_t watch_thread;
	pthread_t detach_thread;
	uint64_t *counts; /* one value of every CPU */
	uint32_t counts_stride_words;
	uint32_t cpu_count;
	uint8_t *target; /* one value of the targets map */
	bool ending;
	bool watch_ended;
	struct watched windows[MW_WINDOWS_MAX];
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* Totals of a slot over all CPUs. */
static int read_words(struct mw_governor *governor, uint32_t slot, uint64_t *words)
{
	if (bpf_map_lookup_elem(governor->maps.counts_fd, &slot, governor->counts) != 0)
		return -errno;
	memset(words, 0, sizeof(*words) * MW_PRICED_WORDS_MAX);
	for (uint32_t cpu = 0; cpu < governor->cpu_count; cpu++)
		for (uint32_t i = 0; i < governor->maps.priced_words; i++)
			words[i] += governor->counts[cpu * governor->counts_stride_words + i];
	return 0;
}

static int price(struct mw_governor *governor, struct watched *watched)
{
	uint64_t words[MW_PRICED_WORDS_MAX];
	uint64_t spent_ns = 0;
	int rc = read_words(governor, watched->slot, words);

	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < governor->maps.priced_words; i++) {
		watched->window.words[i] = words[i] - watched->start_words[i];
		spent_ns += watched->window.words[i] * governor->maps.price_ns[i];
	}
	watched->window.spent_ns = spent_ns;
	return 0;
}

/* Make the programs return at once.  An entry that is gone is as good. */
static void flag(struct mw_governor *governor, struct watched *watched, enum mw_window_end end)
{
	uint32_t flags;

	if (bpf_map_lookup_elem(governor->maps.targets_fd, &watched->pid, governor->target) == 0) {
		memcpy(&flags, governor->target + governor->maps.flags_offset, sizeof(flags));
		flags |= governor->maps.stop_flag;
		memcpy(governor->target + governor->maps.flags_offset, &flags, sizeof(flags));
		bpf_map_update_elem(governor->maps.targets_fd, &watched->pid, governor->target, BPF_EXIST);
	}
	watched->window.end = end;
	watched->window.flagged_ns = now_ns();
	watched->stage = STAGE_FLAGGED;
	pthread_cond_signal(&governor->flagged);
}

static bool is_gone(int pidfd)
{
	struct pollfd ask = {.fd = pidfd, .events = POLLIN};

	return pidfd >= 0 && poll(&ask, 1, 0) == 1;
}

/* Decide for one open window. */
static void look_at(struct mw_governor *governor, struct watched *watched, uint64_t time_ns)
{
	if (governor->ending)
		flag(governor, watched, MW_WINDOW_ASKED);
	else if (price(governor, watched) < 0)
		flag(governor, watched, MW_WINDOW_UNKNOWN);
	else if (watched->window.spent_ns >= watched->spent_max_ns)
		flag(governor, watched, MW_WINDOW_PRICE);
	else if (time_ns >= watched->deadline_ns)
		flag(governor, watched, MW_WINDOW_TIME);
	else if (is_gone(watched->pidfd))
		flag(governor, watched, MW_WINDOW_GONE);
}

/* Close the links of one flagged window, with the lock let go meanwhile.
 * Return false if there is none. */
static bool close_one(struct mw_governor *governor)
{
	for (uint32_t i = 0; i < MW_WINDOWS_MAX; i++) {
		struct watched *watched = &governor->windows[i];

		if (watched->stage != STAGE_FLAGGED)
			continue;
		/* Nobody else touches a flagged window: the links are this thread's alone. */
		pthread_mutex_unlock(&governor->lock);
		mw_links_release(watched->links, watched->link_count);
		if (watched->pidfd >= 0)
			close(watched->pidfd);
		pthread_mutex_lock(&governor->lock);
		price(governor, watched); /* hits until the last moment count */
		watched->window.closed_ns = now_ns();
		watched->stage = STAGE_CLOSED;
		pthread_cond_broadcast(&governor->closed);
		return true;
	}
	return false;
}

static void *detach(void *context)
{
	struct mw_governor *governor = context;

	pthread_mutex_lock(&governor->lock);
	for (;;) {
		if (close_one(governor))
			continue;
		if (governor->watch_ended)
			break;
		pthread_cond_wait(&governor->flagged, &governor->lock);
	}
	pthread_mutex_unlock(&governor->lock);
	return NULL;
}

/* Look at all open windows; say when to look again, 0: when woken. */
static uint64_t look_at_all(struct mw_governor *governor)
{
	uint64_t time_ns = now_ns(), next_ns = 0;

	for (uint32_t i = 0; i < MW_WINDOWS_MAX; i++) {
		struct watched *watched = &governor->windows[i];

		if (watched->stage == STAGE_OPEN)
			look_at(governor, watched, time_ns);
		if (watched->stage != STAGE_OPEN)
			continue;
		if (next_ns == 0)
			next_ns = time_ns + governor->poll_ns;
		if (watched->deadline_ns < next_ns)
			next_ns = watched->deadline_ns;
	}
	return next_ns;
}

static void *watch(void *context)
{
	struct mw_governor *governor = context;

	pthread_mutex_lock(&governor->lock);
	for (;;) {
		uint64_t next_ns = look_at_all(governor);

		if (governor->ending)
			break;
		if (next_ns == 0) {
			pthread_cond_wait(&governor->wake, &governor->lock);
		} else {
			struct timespec until = {
			    .tv_sec = (time_t)(next_ns / 1000000000U),
			    .tv_nsec = (long)(next_ns % 1000000000U),
			};
			pthread_cond_timedwait(&governor->wake, &governor->lock, &until);
		}
	}
	governor->watch_ended = true;
	pthread_cond_signal(&governor->flagged);
	pthread_mutex_unlock(&governor->lock);
	return NULL;
}

/* What the kernel says a value of the map has; 0 if it cannot be asked. */
static uint32_t value_bytes(int map_fd)
{
	struct bpf_map_info info;
	uint32_t bytes = sizeof(info);

	memset(&info, 0, sizeof(info));
	return bpf_obj_get_info_by_fd(map_fd, &info, &bytes) == 0 ? info.value_size : 0;
}

static int check_maps(struct mw_governor *governor, const struct mw_governor_maps *maps)
{
	uint32_t counts_bytes = value_bytes(maps->counts_fd);
	uint32_t target_bytes = value_bytes(maps->targets_fd);
	int cpus = libbpf_num_possible_cpus();

	if (cpus < 0)
		return cpus;
	if (maps->priced_words > MW_PRICED_WORDS_MAX || counts_bytes < maps->priced_words * sizeof(uint64_t) ||
	    target_bytes < sizeof(uint32_t) || maps->flags_offset > target_bytes - sizeof(uint32_t))
		return -EINVAL;
	governor->cpu_count = (uint32_t)cpus;
	governor->counts_stride_words = (counts_bytes + 7) / 8; /* the kernel rounds each CPU's value up */
	governor->counts = calloc(governor->cpu_count, governor->counts_stride_words * sizeof(uint64_t));
	governor->target = calloc(1, target_bytes);
	return governor->counts && governor->target ? 0 : -ENOMEM;
}

static void release(struct mw_governor *governor)
{
	pthread_cond_destroy(&governor->wake);
	pthread_cond_destroy(&governor->flagged);
	pthread_cond_destroy(&governor->closed);
	pthread_mutex_destroy(&governor->lock);
	free(governor->counts);
	free(governor->target);
	free(governor);
}

/* Tell the first thread to end all windows, which tells the second. */
static void end(struct mw_governor *governor)
{
	pthread_mutex_lock(&governor->lock);
	governor->ending = true;
	pthread_cond_signal(&governor->wake);
	pthread_mutex_unlock(&governor->lock);
	pthread_join(governor->watch_thread, NULL);
}

int mw_governor_create(const struct mw_governor_maps *maps, uint64_t poll_ns, struct mw_governor **ret)
{
	struct mw_governor *governor = calloc(1, sizeof(*governor));
	pthread_condattr_t monotonic;
	int rc;

	if (!governor)
		return -ENOMEM;
	governor->maps = *maps;
	governor->poll_ns = poll_ns;
	pthread_mutex_init(&governor->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&governor->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_cond_init(&governor->flagged, NULL);
	pthread_cond_init(&governor->closed, NULL);
	rc = check_maps(governor, maps);
	if (rc == 0)
		rc = -pthread_create(&governor->watch_thread, NULL, watch, governor);
	if (rc < 0) {
		release(governor);
		return rc;
	}
	rc = -pthread_create(&governor->detach_thread, NULL, detach, governor);
	if (rc < 0) {
		end(governor);
		release(governor);
		return rc;
	}
	*ret = governor;
	return 0;
}

void mw_governor_destroy(struct mw_governor *governor)
{
	if (!governor)
		return;
	end(governor);
	pthread_join(governor->detach_thread, NULL);
	release(governor);
}

static struct watched *free_window(struct mw_governor *governor)
{
	for (uint32_t i = 0; i < MW_WINDOWS_MAX; i++)
		if (governor->windows[i].stage == STAGE_FREE)
			return &governor->windows[i];
	return NULL;
}

/* With the lock held.  The number of the window, or a negative errno. */
static int begin(struct mw_governor *governor, struct watched *watched, uint64_t duration_ns, uint64_t spent_max_ns)
{
	int rc = read_words(governor, watched->slot, watched->start_words);

	if (rc < 0)
		return rc;
	watched->window.opened_ns = now_ns();
	watched->deadline_ns = watched->window.opened_ns + duration_ns;
	if (watched->deadline_ns < duration_ns)
		watched->deadline_ns = UINT64_MAX;
	watched->spent_max_ns = spent_max_ns;
	watched->stage = STAGE_OPEN;
	pthread_cond_signal(&governor->wake);
	return (int)(watched - governor->windows);
}

int mw_governor_open(struct mw_governor *governor, uint32_t pid, uint32_t slot, uint64_t duration_ns,
		     uint64_t spent_max_ns, const int *link_fds, uint32_t link_count, int pidfd)
{
	struct watched *watched;
	int rc = -E2BIG;

	if (link_count <= MW_WINDOW_LINKS_MAX) {
		pthread_mutex_lock(&governor->lock);
		watched = free_window(governor);
		rc = -EBUSY;
		if (watched) {
			memset(watched, 0, sizeof(*watched));
			watched->pid = pid;
			watched->slot = slot;
			watched->pidfd = pidfd;
			watched->link_count = link_count;
			memcpy(watched->links, link_fds, link_count * sizeof(*link_fds));
			rc = begin(governor, watched, duration_ns, spent_max_ns);
		}
		pthread_mutex_unlock(&governor->lock);
	}
	if (rc < 0) {
		mw_links_release(link_fds, link_count);
		if (pidfd >= 0)
			close(pidfd);
	}
	return rc;
}

int mw_governor_look(struct mw_governor *governor, int window, struct mw_window *ret)
{
	int rc = -ENOENT;

	if (window < 0 || window >= MW_WINDOWS_MAX)
		return rc;
	pthread_mutex_lock(&governor->lock);
	if (governor->windows[window].stage != STAGE_FREE) {
		*ret = governor->windows[window].window;
		rc = 0;
	}
	pthread_mutex_unlock(&governor->lock);
	return rc;
}

int mw_governor_ask(struct mw_governor *governor, int window)
{
	int rc = -ENOENT;

	if (window < 0 || window >= MW_WINDOWS_MAX)
		return rc;
	pthread_mutex_lock(&governor->lock);
	if (governor->windows[window].stage != STAGE_FREE)
		rc = 0;
	if (governor->windows[window].stage == STAGE_OPEN) {
		price(governor, &governor->windows[window]);
		flag(governor, &governor->windows[window], MW_WINDOW_ASKED);
	}
	pthread_mutex_unlock(&governor->lock);
	return rc;
}

int mw_governor_close(struct mw_governor *governor, int window, struct mw_window *ret)
{
	struct watched *watched;
	int rc = -ENOENT;

	if (window < 0 || window >= MW_WINDOWS_MAX)
		return rc;
	watched = &governor->windows[window];
	pthread_mutex_lock(&governor->lock);
	if (watched->stage != STAGE_FREE) {
		if (watched->stage == STAGE_OPEN) {
			price(governor, watched);
			flag(governor, watched, MW_WINDOW_ASKED);
		}
		while (watched->stage == STAGE_FLAGGED)
			pthread_cond_wait(&governor->closed, &governor->lock);
		*ret = watched->window;
		watched->stage = STAGE_FREE;
		rc = 0;
	}
	pthread_mutex_unlock(&governor->lock);
	return rc;
}
