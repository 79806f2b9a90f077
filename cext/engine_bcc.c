/* engine_bcc.c - see engine_bcc.h for what it is for. */

#include "engine_bcc.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <stdbool.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "engine_parts.h"

enum {
	FUNCTIONS_MAX = 8, /* a program and its callbacks */
};

int mw_bpf_object_map_create(const struct mw_bpf_object *object, const char *name, uint32_t ring_bytes)
{
	LIBBPF_OPTS(bpf_map_create_opts, options);
	struct bpf_map *map = bpf_object__find_map_by_name(object->libbpf, name);

	bool is_ring;

	if (!map)
		return -ENOENT;
	is_ring = bpf_map__type(map) == BPF_MAP_TYPE_RINGBUF;
	options.map_flags = bpf_map__map_flags(map);
	return bpf_map_create(bpf_map__type(map), name, bpf_map__key_size(map), bpf_map__value_size(map),
			      is_ring && ring_bytes ? ring_bytes : bpf_map__max_entries(map), &options);
}

/* Add a function of so many u64 to what the kernel is told; its type id, or a
 * negative errno. */
static int add_function(struct btf *btf, int word_type, const char *name, int parameters, enum btf_func_linkage linkage)
{
	int prototype = btf__add_func_proto(btf, word_type);

	for (int i = 0; prototype > 0 && i < parameters; i++) {
		int error = btf__add_func_param(btf, "word", word_type);

		if (error)
			return error;
	}
	return prototype < 0 ? prototype : btf__add_func(btf, name, linkage, prototype);
}

/* The kernel takes callbacks only from who says where functions begin.  The
 * names are for its messages. */
static int describe_functions(struct btf *btf, const char *name, const uint32_t *callbacks, uint32_t callback_count,
			      struct bpf_func_info *ret)
{
	int word_type = btf__add_int(btf, "word", 8, 0);

	if (word_type < 0)
		return word_type;
	for (uint32_t i = 0; i <= callback_count; i++) {
		int type = i ? add_function(btf, word_type, "callback", 2, BTF_FUNC_STATIC)
			     : add_function(btf, word_type, name, 1, BTF_FUNC_GLOBAL);

		if (type < 0)
			return type;
		ret[i].type_id = (uint32_t)type;
		ret[i].insn_off = i ? callbacks[i - 1] : 0;
	}
	return btf__load_into_kernel(btf);
}

static int load(struct bpf_program *program, const void *instructions, uint32_t count, struct btf *btf,
		struct bpf_func_info *functions, uint32_t function_count, char *log, size_t log_bytes)
{
	LIBBPF_OPTS(bpf_prog_load_opts, options);

	options.expected_attach_type = bpf_program__expected_attach_type(program);
	options.log_buf = log_bytes ? log : NULL;
	options.log_size = (uint32_t)log_bytes;
	if (btf) {
		options.prog_btf_fd = (uint32_t)btf__fd(btf);
		options.func_info = functions;
		options.func_info_cnt = function_count;
		options.func_info_rec_size = sizeof(*functions);
	}
	return bpf_prog_load(bpf_program__type(program), bpf_program__name(program), "GPL", instructions, count,
			     &options);
}

int mw_bpf_object_program_replace(const struct mw_bpf_object *object, const char *name, const void *instructions,
				  uint32_t count, const uint32_t *callbacks, uint32_t callback_count, char *log,
				  size_t log_bytes)
{
	struct bpf_program *program = bpf_object__find_program_by_name(object->libbpf, name);
	struct bpf_func_info functions[FUNCTIONS_MAX];
	struct btf *btf = NULL;
	int rc = 0;

	if (log && log_bytes)
		log[0] = '\0';
	if (!program)
		return -ENOENT;
	if (callback_count >= FUNCTIONS_MAX)
		return -E2BIG;
	if (callback_count) {
		btf = btf__new_empty();
		if (!btf)
			return -errno;
		rc = describe_functions(btf, name, callbacks, callback_count, functions);
	}
	if (rc >= 0)
		rc = load(program, instructions, count, btf, functions, callback_count + 1, log, log_bytes);
	btf__free(btf);
	return rc;
}
