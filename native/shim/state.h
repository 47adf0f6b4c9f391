/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shim knows in this process: whether it serves a tenant, the mapped region, and which card is which.
 */
#ifndef FLEXAI_STATE_H
#define FLEXAI_STATE_H
#include "cuda_abi.h"
#include "cuda_index.h"
#include "region_core.h"

#define FX_MAX_ORDINALS 64

enum fx_mode {
    FX_FORWARD = 0, /* no tenant: the driver is all there is */
    FX_TENANT = 1,
    FX_BROKEN = 2,  /* a tenant whose region cannot be used: fail closed, cuInit answers SYSTEM_NOT_READY */
};

struct fx_state {
    enum fx_mode mode;
    bool attached;          /* slot taken, cards known */
    struct fx_region region;
    char dir[3072];
    uint32_t slot;
    uint32_t pid_ns;
    uint32_t n_cards;       /* cards of the policy */
    int n_ordinals;
    int8_t card_of[FX_MAX_ORDINALS]; /* CUdevice -> card of the policy, -1 = not one of the tenant's */
    int8_t ordinal_of[FX_MAX_DEVICES];
    char began_on[FX_MAX_DEVICES][FX_UUID_BYTES]; /* by card: which one it was when the process found it */
};
extern struct fx_state fx;

/* Called by cuInit before and after the driver's own. Idempotent; again after fork. */
enum fx_mode fx_prepare(void);
void fx_attach(void);
/* Driver symbols asked for that no list knows; told in the handshake, and again when it grows. */
extern uint32_t fx_n_unknown;

/* Card of the calling thread's current context, of an ordinal; -1 when none or not the tenant's. */
int fx_current_card(void);
int fx_card_of(CUdevice device);
uint64_t fx_cap(int card);

/* The charge of this process. `bytes` is what the driver will take (see fx_rounded). */
bool fx_take(int card, uint64_t bytes);
void fx_take_fact(int card, uint64_t bytes);
void fx_give(int card, uint64_t bytes);
/* What this process charged itself: its slot without what it pays for the dead. */
uint64_t fx_own(int card);
/* Give back what it pays for the dead, or hand it to another importer, once it holds nothing of others. */
void fx_disown(void);

/* Call the driver's own function. */
#define FX_REAL(name, type) ((type)__atomic_load_n(&cuda_real[FX_##name], __ATOMIC_RELAXED))
#define FX_EXPORT __attribute__((visibility("default")))
#define FX_LIKELY(x) __builtin_expect(!!(x), 1)

/* Threads of the shim (heartbeat.c): started by fx_attach, gone after fork. */
void fx_threads_start(void);
void fx_threads_forget(void);
void fx_hello(void);
/* Our pid on the host, as far as it is known. */
uint32_t fx_host_pid(void);
#endif
