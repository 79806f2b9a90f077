/* bcc_helpers.h - what libbpf's headers are to the compiled objects, for bcc's
 * text: the kernel's helpers that our programs call, and names of registers.
 *
 * bcc brings helpers of its own, but they include the headers of the running
 * kernel, which most hosts lack and none of our programs needs.  So the loader
 * turns bcc's headers off by their own guards, and these few lines stand in.
 * Numbers are kernel ABI (enum bpf_func_id in uapi/linux/bpf.h).
 *
 * Must not know any program or map. */

#ifndef MW_BCC_HELPERS_H
#define MW_BCC_HELPERS_H

#define __always_inline inline __attribute__((always_inline))
#define barrier_var(var) asm volatile("" : "=r"(var) : "0"(var))

/* bcc puts its footer behind our text; it wants these. */
#define BCC_SEC(name) __attribute__((section(name), used))
#define BPF_LICENSE GPL

/* A 64-bit constant that the loader, or the kernel, gives its meaning. */
enum {
	BPF_PSEUDO_MAP_FD = 1,
	BPF_PSEUDO_FUNC = 4,
};

uint64_t bpf_pseudo(uint64_t kind, uint64_t number) asm("llvm.bpf.pseudo");

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, uint64_t flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static uint64_t (*bpf_ktime_get_ns)(void) = (void *)5;
static uint32_t (*bpf_get_prandom_u32)(void) = (void *)7;
static uint64_t (*bpf_get_current_pid_tgid)(void) = (void *)14;
static uint64_t (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_get_stack)(void *ctx, void *buffer, uint32_t size_bytes, uint64_t flags) = (void *)67;
static long (*bpf_probe_read_user)(void *to, uint32_t size_bytes, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, uint32_t size_bytes, const void *from) = (void *)113;
static long (*bpf_ringbuf_output)(void *ring, void *data, uint64_t size_bytes, uint64_t flags) = (void *)130;
static uint64_t (*bpf_ringbuf_query)(void *ring, uint64_t flags) = (void *)134;
static uint64_t (*bpf_get_attach_cookie)(void *ctx) = (void *)174;
static long (*bpf_loop)(uint32_t steps, void *callback, void *context, uint64_t flags) = (void *)181;

/* Registers by what they are for, on x86-64. */
#define PT_REGS_PARM1(registers) ((registers)->di)
#define PT_REGS_PARM2(registers) ((registers)->si)
#define PT_REGS_PARM3(registers) ((registers)->dx)
#define PT_REGS_PARM4(registers) ((registers)->cx)
#define PT_REGS_RC(registers) ((registers)->ax)
#define PT_REGS_SP(registers) ((registers)->sp)
#define PT_REGS_FP(registers) ((registers)->bp)
#define PT_REGS_IP(registers) ((registers)->ip)

#endif
