/* SPDX-License-Identifier: Apache-2.0
 *
 * The model of simulated cards: pure C, no clock, no I/O, no threads. Time is an argument and never goes back; the model
 * is exact to the nanosecond whatever the steps in which it is advanced (`sm_advance(m, a); sm_advance(m, b)` is
 * `sm_advance(m, b)`, as long as nothing was submitted in between), so a caller that is late loses no card time.
 *
 * Compute engine: one context (its one compute channel group) has the card at a time, round robin. A turn lasts the
 * group's time slice and ends early when the group has no work; it is extended while nobody else has any. Changing turns
 * costs `switch_gap_ns` between END and START and `warmup_ns` of lost progress after START. Kernels are preempted
 * anywhere. Inside a group one kernel runs at a time, streams in the order in which their kernels became ready.
 * Copy engines: one FIFO per direction, beside compute.
 *
 * Functions return 0 or a negative errno unless said otherwise.
 */
#ifndef FLEXAI_SIMCARD_MODEL_H
#define FLEXAI_SIMCARD_MODEL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "channel_control.h"
#include "simcard_ring.h"

#define SM_MAX_CARDS 16
#define SM_NEVER UINT64_MAX
/* A stop names channels, 64 a call (measured), and a group has 8. */
#define SM_GROUP_CHANNELS 8
#define SM_GROUPS_A_CALL (64 / SM_GROUP_CHANNELS)

enum sm_control_kind { SM_SET_TIMESLICE, SM_STOP, SM_RESUME, SM_PREEMPT, SM_FLUSH, SM_PARK, SM_UNPARK, SM_N_CONTROL };

struct sm_card_spec {
    const char *name;       /* "h200" */
    const char *full_name;  /* "NVIDIA H200 (simulated)" */
    uint64_t memory_bytes;
    uint64_t context_bytes; /* taken by each context */
    uint64_t context_ns;    /* a call that makes one takes so long; its memory is taken at the begin */
    uint32_t speed_milli;   /* of an H200: scales kernels */
    uint32_t n_multiprocessors;
    uint32_t compute_major, compute_minor;
    uint32_t clock_mhz, memory_clock_mhz, bus_bits;
    uint32_t power_idle_w, power_limit_w;
    uint64_t copy_bytes_per_s[SM_N_COPY];
    uint64_t copy_latency_ns;
    uint64_t timeslice_ns;  /* default */
    uint64_t switch_gap_ns, warmup_ns;
    uint64_t control_ns[SM_N_CONTROL]; /* a control call, by kind; its effect is half way */
    uint32_t n_log_records; /* ring of a log reader */
};
/* NULL when there is no such model of card. */
const struct sm_card_spec *sm_card_spec(const char *name);
const struct sm_card_spec *sm_card_spec_at(size_t i);

struct sm_model;
struct sm_process; /* a program: owner of contexts, streams and memory */
struct sm_group;   /* a context = its compute channel group */
struct sm_stream;
struct sm_log;     /* one reader of one card's context-switch log */

/* Called from sm_advance, at model time; it may call nothing that changes the model. */
struct sm_callbacks {
    void *arg;
    void (*watch_done)(void *arg, uint64_t cookie);                /* a watched entry completed, or its stream ended */
    void (*control_done)(void *arg, uint64_t cookie, int result);
};

struct sm_model *sm_new(uint64_t now_ns);
void sm_free(struct sm_model *m);
void sm_set_callbacks(struct sm_model *m, const struct sm_callbacks *callbacks);
/* Cards as text: "h200:2,a100:1". Returns the number of cards added, or -EINVAL. */
int sm_add_cards(struct sm_model *m, const char *cards);
/* What contexts take from now on, on all cards; 0 bytes: as much as before. */
void sm_set_contexts(struct sm_model *m, uint64_t bytes, uint64_t ns);
int sm_n_cards(const struct sm_model *m);
const struct sm_card_spec *sm_card_spec_of(const struct sm_model *m, int card);
const char *sm_card_uuid(const struct sm_model *m, int card); /* "GPU-..." */
int sm_card_by_uuid(const struct sm_model *m, const char *uuid);

/* Time. */
uint64_t sm_now(const struct sm_model *m);
void sm_advance(struct sm_model *m, uint64_t now_ns);
/* The exact next moment at which something changes inside (SM_NEVER: nothing under way). */
uint64_t sm_next_event(const struct sm_model *m);
/* A moment not later than the next one somebody waits for: a watch or a control call. Never later, seldom much earlier. */
uint64_t sm_next_wake(const struct sm_model *m);
/* Anything queued or running. */
bool sm_busy(const struct sm_model *m);

/* Processes. `events` has SM_EVENT_SLOTS slots or is NULL (then times go nowhere). */
struct sm_process *sm_process_new(struct sm_model *m, uint32_t pid, uint64_t start_ticks, struct sm_event_slot *events);
/* It died: all it had is free at this moment. Watches of its streams are called back, as of any stream that ends. */
void sm_process_gone(struct sm_process *p);
uint32_t sm_process_pid(const struct sm_process *p);

/* Contexts. Errors: -ENODEV lost card, -ENOMEM. */
int sm_group_new(struct sm_process *p, int card, struct sm_group **group);
void sm_group_free(struct sm_group *g);
uint32_t sm_group_context(const struct sm_group *g);
int sm_group_card(const struct sm_group *g);
/* A sticky error of the context, as by a kernel that faults: its work is lost. */
void sm_group_fault(struct sm_group *g, uint32_t cuda_error);

/* Streams. The ring stays the caller's; `id` is what WAIT entries of the same process name. */
int sm_stream_new(struct sm_group *g, uint32_t id, struct sm_ring *ring, struct sm_stream **stream);
void sm_stream_free(struct sm_stream *s); /* work not done is dropped; WAITs on it are satisfied */
/* Put an entry into the ring as its producer would; -EAGAIN when it is full. The index of the entry is *seq - 1. */
int sm_submit(struct sm_stream *s, const struct sm_entry *entry, uint64_t *seq);
uint64_t sm_stream_completed(const struct sm_stream *s);
/* Call watch_done(cookie) when `seq` entries of the stream have completed (at the next advance if they have already). */
int sm_watch(struct sm_stream *s, uint64_t seq, uint64_t cookie);
void sm_unwatch(struct sm_stream *s, uint64_t cookie);

/* Memory: bytes with an owner. -ENOMEM when the card has not so many. */
int sm_memory_take(struct sm_process *p, int card, uint64_t bytes);
void sm_memory_give(struct sm_process *p, int card, uint64_t bytes);
/* Bytes in nobody's account, as managed pages and, under HMM, host memory: as many as there is room for, which is what
 * it returns. They leave when somebody else needs the room. */
uint64_t sm_memory_place(struct sm_process *p, int card, uint64_t bytes);
void sm_memory_unplace(struct sm_process *p, int card, uint64_t bytes);
/* Let others hold `bytes` of what the process holds: they join by the token. The bytes are free when the last has left;
 * once the first has, they are in nobody's account. -EINVAL: it holds not so many; -ENOENT: no such token. */
int sm_memory_share(struct sm_process *p, int card, uint64_t bytes, uint64_t *token);
int sm_memory_join(struct sm_process *p, uint64_t token);
int sm_memory_leave(struct sm_process *p, uint64_t token);
uint64_t sm_memory_used(const struct sm_model *m, int card);
uint64_t sm_memory_of(const struct sm_process *p, int card);

/* Control calls: queued behind the locks that the real driver takes (time slice, stop and flush: the machine's; preempt:
 * the card's), in effect half way, done after control_ns of its kind. The result comes by control_done. */
int sm_control(struct sm_model *m, enum sm_control_kind kind, int card, const uint32_t *contexts, int n, uint64_t value,
               uint64_t cookie);
/* What was asked (default: the card's own), without asking the card. */
int sm_get_timeslice(const struct sm_model *m, uint32_t context, uint64_t *ns);
/* Compute groups of a process, on one card. `handle` is the context id. */
int sm_discover(const struct sm_model *m, int card, uint32_t pid, struct cc_group *groups, int max);

/* Parking, by cuCheckpointProcess*: lock, move out, move in, unlock. A locked process has no turn on any card; a parked
 * one has no memory there but a rest. A move takes as long as its bytes and is told of by control_done; -EINVAL in the
 * wrong state, -ENOMEM when there is no room to come back to.
 * `to`, for a move in: by card, the one of the same kind that what was there comes back to, each named once (-EDOM), or
 * NULL for their own; not of a process that shares memory with others (-EOPNOTSUPP). */
enum sm_park_state { SM_RUNNING = 0, SM_LOCKED = 1, SM_PARKED = 2 };
struct sm_process *sm_process_by_pid(const struct sm_model *m, uint32_t pid);
enum sm_park_state sm_park_state(const struct sm_process *p);
int sm_park_lock(struct sm_process *p);
int sm_park_unlock(struct sm_process *p);
int sm_park_move(struct sm_process *p, bool out, const uint32_t *to, uint64_t cookie);
/* The card that a program knows by this number: another one once it was moved. */
int sm_process_card(const struct sm_process *p, int number);

/* The context-switch log: KEEP_OLDEST, drops counted. Nothing is emitted for what was there before it was opened. */
int sm_log_open(struct sm_model *m, int card, struct sm_log **log);
void sm_log_close(struct sm_log *log);
int sm_log_read(struct sm_log *log, struct cc_log_record *records, int max, uint64_t *dropped);

/* Faults on demand. */
void sm_card_fail(struct sm_model *m, int card, uint32_t xid);  /* off the bus: contexts are dead, work is lost */
void sm_card_recover(struct sm_model *m, int card);
uint32_t sm_card_xid(const struct sm_model *m, int card);       /* 0 = healthy */
void sm_inject_control_error(struct sm_model *m, enum sm_control_kind kind, uint32_t n_calls, int error);
void sm_inject_log_loss(struct sm_model *m, int card, uint32_t n_records);
void sm_inject_slow_control(struct sm_model *m, uint32_t percent); /* a control call takes so much of what it usually does */
uint64_t sm_control_takes(const struct sm_model *m, uint64_t usual_ns);

/* Figures, exact at sm_now. Counters only grow. */
struct sm_card_figures {
    uint64_t memory_used_bytes;
    uint64_t memory_most_bytes; /* ever in use at once */
    uint64_t busy_ns;        /* compute engine made progress */
    uint64_t copy_ns[SM_N_COPY];
    uint64_t copied_bytes[SM_N_COPY];
    uint64_t n_switches, n_kernels;
    uint64_t control_ns;     /* lock time of control calls */
    uint32_t utilisation_milli; /* of the last second or so */
    uint32_t memory_utilisation_milli;
};
struct sm_process_figures {
    uint32_t pid;
    uint32_t n_groups;
    uint64_t memory_bytes;
    uint64_t held_ns;        /* between START and END of its groups: what the log says */
    uint64_t work_ns;        /* progress of its kernels */
    uint64_t n_kernels;
};
void sm_card_figures(const struct sm_model *m, int card, struct sm_card_figures *figures);
/* Processes with a context on the card; returns the count, which may exceed max. */
int sm_card_processes(const struct sm_model *m, int card, struct sm_process_figures *figures, int max);
struct sm_group_figures {
    uint64_t held_ns, work_ns, n_kernels, timeslice_ns;
    bool resident, stopped, has_work, was_scheduled;
};
int sm_group_figures(const struct sm_model *m, uint32_t context, struct sm_group_figures *figures);
#endif
