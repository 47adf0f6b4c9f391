/* SPDX-License-Identifier: Apache-2.0
 *
 * A world under a virtual clock, for exact tests of whatever drives a ChannelControl: cards, programs that react to
 * completions, and `cc_virtual`. A control call advances the clock by what it takes on the card; nothing else does but
 * sv_run. Same calls, same nanoseconds, every time.
 *
 *   struct sv_world *w = sv_world_new("h200:1");
 *   struct sv_program *a = sv_flood(w, 0, 100, 1000000, 64), *b = sv_flood(w, 0, 101, 1000000, 64);
 *   cc_virtual_use(w);
 *   cc_virtual.open(&self, sm_card_uuid(sv_model(w), 0), why, sizeof why);
 *   ... loop: decide at sv_now(w); sv_run(w, 2000000);
 *   sv_figures(a, &figures);
 */
#ifndef FLEXAI_SIMCARD_VIRTUAL_H
#define FLEXAI_SIMCARD_VIRTUAL_H
#include "simcard_model.h"

struct sv_world;
struct sv_program;

struct sv_world *sv_world_new(const char *cards); /* the clock starts at one second */
void sv_world_free(struct sv_world *w);
struct sm_model *sv_model(struct sv_world *w);
uint64_t sv_now(const struct sv_world *w);
void sv_run(struct sv_world *w, uint64_t ns); /* everything that happens in the next ns */

/* Programs; pid is any number that is unique in the world. Each owns one context, made now. */
struct sv_program *sv_flood(struct sv_world *w, int card, uint32_t pid, uint64_t kernel_ns, uint32_t depth);
/* Kernel, synchronise, host_ns on the host, again. */
struct sv_program *sv_step(struct sv_world *w, int card, uint32_t pid, uint64_t kernel_ns, uint64_t host_ns);
/* Bursts of n kernels of kernel_ns, then host_ns without work: a trainer with gaps. */
struct sv_program *sv_burst(struct sv_world *w, int card, uint32_t pid, uint64_t kernel_ns, uint32_t n, uint64_t host_ns);
/* Open loop: a request of kernel_ns every period_ns, late or not. */
struct sv_program *sv_latency(struct sv_world *w, int card, uint32_t pid, uint64_t kernel_ns, uint64_t period_ns);
/* A rank of a collective in small: each step's kernel waits on the card until the peer has done as many steps, then works
 * kernel_ns; host_ns on the host, again. Until two of them have met, their kernels wait. */
struct sv_program *sv_rank(struct sv_world *w, int card, uint32_t pid, uint64_t kernel_ns, uint64_t host_ns);
/* Its peer, in a second context of the same process. */
struct sv_program *sv_rank_beside(struct sv_program *rank);
void sv_meet(struct sv_program *one, struct sv_program *two);
/* No new submissions (1) or on again (0): a program that falls idle. */
void sv_pause(struct sv_program *program, int paused);
/* kill -9 */
void sv_kill(struct sv_program *program);
/* Its context has a sticky error, as after a fault that nobody serves: what was queued is lost, the process stays. */
void sv_fault(struct sv_program *program);
/* A second context of the same process. */
struct sv_program *sv_flood_beside(struct sv_program *program, uint64_t kernel_ns, uint32_t depth);

struct sv_figures {
    uint64_t n_kernels;  /* completed */
    uint64_t work_ns;    /* progress, unfinished kernels included */
    uint64_t held_ns;    /* as the log says */
    uint64_t n_requests; /* latency programs: answered */
    uint64_t p50_ns, p99_ns, max_ns; /* of requests, or of steps */
};
void sv_figures(const struct sv_program *program, struct sv_figures *figures);
void sv_forget_latencies(struct sv_program *program);
uint32_t sv_context(const struct sv_program *program);

/* ChannelControl over the world in use. Every instance shares it. */
extern const struct cc_ops cc_virtual;
void cc_virtual_use(struct sv_world *w);
#endif
