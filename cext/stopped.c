#include "stopped.h"
#include "regions.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

enum {
	ROUNDS_MAX = 64, /* of looking for threads that were started meanwhile */
	LOOK_NS = 50000,
};

struct thread {
	pid_t tid;
	int signal; /* that it was about to take when it stopped */
	int is_stopped;
};

struct job {
	uint32_t pid;
	uint32_t edit_count;
	const struct mw_edit *edits;
	uint64_t wait_ns;
	struct mw_stopped_report *report;
	struct thread *threads;
	uint32_t thread_count;
	int rc;
};

static int find_thread(const struct job *job, pid_t tid)
{
	for (uint32_t i = 0; i < job->thread_count; i++)
		if (job->threads[i].tid == tid)
			return 1;
	return 0;
}

static int seize(struct job *job, pid_t tid)
{
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL))
		return errno == ESRCH ? 0 : -errno; /* a thread that has just ended */
	if (job->thread_count == MW_STOPPED_THREADS_MAX)
		return -E2BIG;
	job->threads[job->thread_count++] = (struct thread){.tid = tid};
	/* fails only for a thread that has ended, which waitpid() will say */
	ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
	return 0;
}

/* Seize what is listed and was not yet; return how many those were. */
static int seize_new(struct job *job)
{
	char path[64];
	struct dirent *entry;
	int rc = 0, found = 0;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%u/task", job->pid);
	folder = opendir(path);
	if (!folder)
		return errno == ENOENT ? -ESRCH : -errno;
	while (rc >= 0 && (entry = readdir(folder))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (tid <= 0 || find_thread(job, tid))
			continue;
		rc = seize(job, tid);
		found++;
	}
	closedir(folder);
	return rc < 0 ? rc : found;
}

/* Wait for one thread's stop until the deadline. */
static int await_stop(struct thread *thread, uint64_t deadline_ns)
{
	struct timespec look = {0, LOOK_NS};

	for (;;) {
		int status;
		pid_t got = waitpid(thread->tid, &status, __WALL | WNOHANG);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == ECHILD ? 0 : -errno;
		if (got && !WIFSTOPPED(status)) {
			thread->tid = 0; /* it ended */
			return 0;
		}
		if (got) {
			/* PTRACE_EVENT_STOP is ours; anything else is a signal on its way */
			thread->signal = status >> 16 == PTRACE_EVENT_STOP ? 0 : WSTOPSIG(status);
			thread->is_stopped = 1;
			return 0;
		}
		if (mw_now_ns() >= deadline_ns)
			return -ETIME;
		nanosleep(&look, NULL);
	}
}

static int stop_all(struct job *job, uint64_t deadline_ns)
{
	for (int round = 0; round < ROUNDS_MAX; round++) {
		uint32_t before = job->thread_count, alive = 0;
		int rc = seize_new(job);

		if (rc < 0)
			return rc;
		for (uint32_t i = before; i < job->thread_count; i++) {
			rc = await_stop(&job->threads[i], deadline_ns);
			if (rc)
				return rc;
		}
		for (uint32_t i = 0; i < job->thread_count; i++)
			alive += (uint32_t)job->threads[i].is_stopped;
		if (!alive)
			return -ESRCH;
		job->report->threads = alive;
		/* None was started since: those that could start one stand still. */
		if (before == job->thread_count)
			return 0;
	}
	return -ETIME;
}

static void release_all(struct job *job)
{
	for (uint32_t i = 0; i < job->thread_count; i++)
		if (job->threads[i].is_stopped)
			ptrace(PTRACE_DETACH, job->threads[i].tid, NULL, (void *)(intptr_t)job->threads[i].signal);
}

static int read_target(const struct job *job, uint64_t address, void *buffer, uint64_t size_bytes)
{
	struct iovec here = {buffer, size_bytes}, there = {(void *)(uintptr_t)address, size_bytes};

	return process_vm_readv((pid_t)job->pid, &here, 1, &there, 1, 0) == (ssize_t)size_bytes ? 0 : -EFAULT;
}

static int write_target(const struct job *job, uint64_t address, void *bytes, uint64_t size_bytes)
{
	struct iovec here = {bytes, size_bytes}, there = {(void *)(uintptr_t)address, size_bytes};

	return process_vm_writev((pid_t)job->pid, &here, 1, &there, 1, 0) == (ssize_t)size_bytes ? 0 : -EFAULT;
}

/* Read all that is edited, so that what cannot be is known before the first change. */
static int look(struct job *job, uint32_t *failed)
{
	uint8_t found[MW_EDIT_BYTES_MAX];

	for (uint32_t i = 0; i < job->edit_count; i++) {
		const struct mw_edit *edit = &job->edits[i];

		*failed = i;
		if (read_target(job, edit->address, found, edit->size_bytes))
			return -EFAULT;
		if (edit->kind == MW_EDIT_EXPECT && memcmp(found, edit->bytes, edit->size_bytes))
			return -EAGAIN;
	}
	return 0;
}

static int change(struct job *job)
{
	uint8_t bytes[MW_EDIT_BYTES_MAX];
	int changed = 0;

	for (uint32_t i = 0; i < job->edit_count; i++) {
		const struct mw_edit *edit = &job->edits[i];

		if (edit->kind == MW_EDIT_EXPECT)
			continue;
		memcpy(bytes, edit->bytes, edit->size_bytes);
		if (edit->kind == MW_EDIT_SET) {
			uint8_t found[MW_EDIT_BYTES_MAX];

			if (read_target(job, edit->address, found, edit->size_bytes))
				return changed ? -EIO : -EFAULT;
			for (uint32_t b = 0; b < edit->size_bytes; b++)
				bytes[b] |= found[b];
		}
		if (write_target(job, edit->address, bytes, edit->size_bytes))
			return changed ? -EIO : -EFAULT;
		changed = 1;
	}
	return 0;
}

static void *work(void *context)
{
	struct job *job = context;
	uint64_t begin_ns = mw_now_ns();
	uint32_t failed = 0;

	job->rc = stop_all(job, begin_ns + job->wait_ns);
	if (!job->rc) {
		job->rc = look(job, &failed);
		if (job->rc)
			job->report->failed_edit = (int32_t)failed;
		else
			job->rc = change(job);
	}
	release_all(job);
	job->report->pause_ns = mw_now_ns() - begin_ns;
	return NULL;
}

int mw_stopped_edit(uint32_t pid, const struct mw_edit *edits, uint32_t count, uint64_t wait_ns,
		    struct mw_stopped_report *ret)
{
	struct job job = {.pid = pid, .edits = edits, .edit_count = count, .wait_ns = wait_ns, .report = ret};
	pthread_t thread;
	int rc;

	*ret = (struct mw_stopped_report){.failed_edit = -1};
	if (!pid || count > MW_EDITS_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++)
		if (!edits[i].size_bytes || edits[i].size_bytes > MW_EDIT_BYTES_MAX)
			return -EINVAL;
	job.threads = malloc(MW_STOPPED_THREADS_MAX * sizeof(*job.threads));
	if (!job.threads)
		return -ENOMEM;
	rc = -pthread_create(&thread, NULL, work, &job);
	if (!rc) {
		pthread_join(thread, NULL);
		rc = job.rc;
	}
	free(job.threads);
	return rc;
}
