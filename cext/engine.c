/* engine.c - object in, program and map descriptors out, by libbpf.
 *
 * Must not know what the programs are for, nor what is done with them. */

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "engine.h"
#include "engine_parts.h"

/* Where libbpf's words go while this thread loads; NULL: nowhere.  libbpf has
 * one print function per process, so ours is set once for good, and each thread
 * says for itself where it wants the words. */
struct log {
	char *text;
	size_t size_bytes;
	size_t used_bytes; /* without the NUL */
};

static __thread struct log *log_here;

/* Append; what does not fit pushes out the oldest words, because the verifier
 * names its reason last. */
static void log_append(struct log *log, const char *text, size_t text_bytes)
{
	size_t room = log->size_bytes - 1;
	size_t kept = log->used_bytes;

	if (text_bytes > room) {
		text += text_bytes - room;
		text_bytes = room;
	}
	if (kept > room - text_bytes) {
		kept = room - text_bytes;
		memmove(log->text, log->text + log->used_bytes - kept, kept);
	}
	memcpy(log->text + kept, text, text_bytes);
	log->used_bytes = kept + text_bytes;
	log->text[log->used_bytes] = '\0';
}

static int on_print(enum libbpf_print_level level, const char *format, va_list arguments)
{
	char *text;
	int length;

	if (!log_here || level == LIBBPF_DEBUG)
		return 0;
	length = vasprintf(&text, format, arguments);
	if (length < 0)
		return 0;
	log_append(log_here, text, (size_t)length);
	free(text);
	return length;
}

/* Ways to attach that libbpf learned later than bookworm's 1.1: to it they are
 * sections without a meaning.  The numbers are kernel ABI (enum bpf_attach_type). */
static const enum bpf_attach_type uprobe_multi = (enum bpf_attach_type)48;
static const enum bpf_attach_type uprobe_session = (enum bpf_attach_type)57;

/* libbpf's settings are those of the whole process. */
static void set_up_once(void)
{
	LIBBPF_OPTS(libbpf_prog_handler_opts, options);

	libbpf_set_print(on_print);
	/* A newer libbpf says the same of these names, so failing is no loss: the
	 * program then does not load, and that is reported. */
	libbpf_register_prog_handler("uprobe.multi", BPF_PROG_TYPE_KPROBE, uprobe_multi, &options);
	libbpf_register_prog_handler("uprobe.session", BPF_PROG_TYPE_KPROBE, uprobe_session, &options);
}

/* Whether name is one of the comma-separated names. */
static int is_listed(const char *names, const char *name)
{
	size_t length = strlen(name);

	while (names) {
		if (!strncmp(names, name, length) && (names[length] == ',' || names[length] == '\0'))
			return 1;
		names = strchr(names, ',');
		if (names)
			names++;
	}
	return 0;
}

static int object_open(const void *bytes, size_t size_bytes, const char *name, struct mw_bpf_object *object)
{
	LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = name);

	object->libbpf = bpf_object__open_mem(bytes, size_bytes, &options);
	if (!object->libbpf)
		return errno ? -errno : -EINVAL;
	return 0;
}

static int object_load(const char *disabled, uint32_t ring_bytes, struct mw_bpf_object *object)
{
	struct bpf_program *program;
	struct bpf_map *map;

	bpf_object__for_each_map(map, object->libbpf)
	{
		if (ring_bytes && bpf_map__type(map) == BPF_MAP_TYPE_RINGBUF)
			bpf_map__set_max_entries(map, ring_bytes);
	}
	bpf_object__for_each_program(program, object->libbpf)
	{
		if (is_listed(disabled, bpf_program__name(program)))
			bpf_program__set_autoload(program, false);
	}
	return bpf_object__load(object->libbpf);
}

/* Open, and load if wanted. */
static int object_create(const void *bytes, size_t size_bytes, const char *name, bool is_loaded, const char *disabled,
			 uint32_t ring_bytes, char *log, size_t log_bytes, struct mw_bpf_object **ret)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct log captured = {.text = log, .size_bytes = log_bytes};
	struct mw_bpf_object *object;
	int error;

	object = calloc(1, sizeof(*object));
	if (!object)
		return -ENOMEM;
	if (log && log_bytes)
		log[0] = '\0';

	pthread_once(&once, set_up_once);
	log_here = log && log_bytes ? &captured : NULL;
	error = object_open(bytes, size_bytes, name, object);
	if (!error && is_loaded)
		error = object_load(disabled, ring_bytes, object);
	log_here = NULL;

	if (error) {
		mw_bpf_object_destroy(object);
		return error;
	}
	*ret = object;
	return 0;
}

int mw_bpf_object_open(const void *bytes, size_t size_bytes, const char *name, char *log, size_t log_bytes,
		       struct mw_bpf_object **ret)
{
	return object_create(bytes, size_bytes, name, false, NULL, 0, log, log_bytes, ret);
}

int mw_bpf_object_load(const void *bytes, size_t size_bytes, const char *name, const char *disabled,
		       uint32_t ring_bytes, char *log, size_t log_bytes, struct mw_bpf_object **ret)
{
	return object_create(bytes, size_bytes, name, true, disabled, ring_bytes, log, log_bytes, ret);
}

void mw_bpf_object_destroy(struct mw_bpf_object *object)
{
	if (!object)
		return;
	bpf_object__close(object->libbpf);
	free(object);
}

int mw_bpf_object_program_fd(const struct mw_bpf_object *object, const char *name)
{
	struct bpf_program *program = bpf_object__find_program_by_name(object->libbpf, name);

	/* One that was disabled has no descriptor. */
	if (!program || bpf_program__fd(program) < 0)
		return -ENOENT;
	return bpf_program__fd(program);
}

int mw_bpf_object_map_fd(const struct mw_bpf_object *object, const char *name)
{
	int fd = bpf_object__find_map_fd_by_name(object->libbpf, name);

	return fd < 0 ? -ENOENT : fd;
}

const char *mw_bpf_object_program_name(const struct mw_bpf_object *object, uint32_t index)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, object->libbpf)
	{
		if (index-- == 0)
			return bpf_program__name(program);
	}
	return NULL;
}

const char *mw_bpf_object_map_name(const struct mw_bpf_object *object, uint32_t index)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, object->libbpf)
	{
		if (index-- == 0)
			return bpf_map__name(map);
	}
	return NULL;
}

int mw_bpf_map_write(int map_fd, const void *key, const void *value)
{
	return bpf_map_update_elem(map_fd, key, value, BPF_ANY);
}

int mw_bpf_map_delete(int map_fd, const void *key)
{
	return bpf_map_delete_elem(map_fd, key);
}

int mw_bpf_map_read(int map_fd, const void *key, void *ret)
{
	return bpf_map_lookup_elem(map_fd, key, ret);
}

int mw_bpf_possible_cpus(void)
{
	return libbpf_num_possible_cpus();
}

int mw_bpf_map_sum_cpus(int map_fd, uint32_t key, uint64_t *ret)
{
	int cpus = libbpf_num_possible_cpus();
	uint64_t *values;
	uint64_t sum = 0;
	int error;

	if (cpus < 0)
		return cpus;
	values = calloc((size_t)cpus, sizeof(*values));
	if (!values)
		return -ENOMEM;
	error = bpf_map_lookup_elem(map_fd, &key, values);
	for (int cpu = 0; !error && cpu < cpus; cpu++)
		sum += values[cpu];
	free(values);
	if (!error)
		*ret = sum;
	return error;
}
