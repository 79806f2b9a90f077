/* compat.h - one source, two engines.
 *
 * libbpf loads an object that clang compiled when mwtrace was built.  bcc
 * compiles the same text on the host, with -DMW_BCC: it names sections itself,
 * and what a program refers to is a number there, which the loader replaces: a
 * map is -DMAP_name=N, a loop's callback -DCALLBACK_name=N.  Their definitions
 * are taken from the compiled object in both.  Programs say MAP(name) and
 * CALLBACK(name) and compile in both.
 *
 * Must not know any program or map. */

#ifndef MW_COMPAT_H
#define MW_COMPAT_H

#ifdef MW_BCC

#include "vmlinux_min.h"
#include "bcc_helpers.h"

#define SEC(name)
#define MAP(name) ((void *)bpf_pseudo(BPF_PSEUDO_MAP_FD, MAP_##name))
#define CALLBACK(name) ((void *)bpf_pseudo(BPF_PSEUDO_FUNC, CALLBACK_##name))
#define MAP_ARRAY(name, map_type, value_type, entries)
#define MAP_RING(name, bytes)
#define MAP_HASH(name, map_type, key_type, value_type, entries)
#define LICENSE_GPL
#define STORE_EVENTS_ABI /* compiled from the header that the loader holds */
#define STORE_TRACE_ABI

#else

#include "vmlinux_min.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define MAP(name) (&name)
#define CALLBACK(name) (name)

#define MAP_ARRAY(name, map_type, value_type, entries)                                                                 \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(max_entries, entries);                                                                          \
		__type(key, uint32_t);                                                                                 \
		__type(value, value_type);                                                                             \
	} name SEC(".maps")

#define MAP_HASH(name, map_type, key_type, value_type, entries)                                                        \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(max_entries, entries);                                                                          \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} name SEC(".maps")

#define MAP_RING(name, bytes)                                                                                          \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                                    \
		__uint(max_entries, bytes);                                                                            \
	} name SEC(".maps")

/* Helpers that read kernel memory are for GPL programs only; this line is how
 * the kernel is told that the files which carry it may be used as such. */
#define LICENSE_GPL char LICENSE[] SEC("license") = "GPL"

/* For the loader to compare: an old object and a new extension must not meet. */
#define STORE_EVENTS_ABI const volatile uint32_t events_abi SEC(".rodata.abi") = MW_EVENTS_ABI
#define STORE_TRACE_ABI const volatile uint32_t trace_abi SEC(".rodata.abi") = MW_TRACE_ABI

#endif

#endif
