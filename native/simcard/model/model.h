/* SPDX-License-Identifier: Apache-2.0
 * Inside of the model. Who may change what: stream.c the streams and their entries, engine.c who has the compute engine,
 * control.c the queue of control calls, log.c the readers' rings, model.c objects, memory and time.
 */
#ifndef FLEXAI_SIMCARD_MODEL_INSIDE_H
#define FLEXAI_SIMCARD_MODEL_INSIDE_H
#include "simcard_model.h"

#define SM_MAX_AMOUNT_NS 3600000000000ull /* an hour: a longer kernel is a mistake of the producer */
#define SM_LOST_PID 0xFFFFFFFFu
#define SM_ERROR_LAUNCH_FAILED 719u       /* CUDA_ERROR_LAUNCH_FAILED */

enum sm_phase {
    SM_EMPTY,    /* nothing in the ring */
    SM_ARRIVING, /* the head entry's time has not come: at `at` */
    SM_READY,    /* the head entry is a kernel in the group's queue */
    SM_COPYING,  /* on a copy engine until `at` */
    SM_BLOCKED,  /* WAIT for another stream */
    SM_HOST,     /* for a host function */
    SM_ENDED,    /* sticky error */
};

struct sm_watch {
    struct sm_watch *next;
    uint64_t seq, cookie;
};

struct sm_stream {
    struct sm_stream *next;  /* of the group */
    struct sm_group *group;
    struct sm_ring *ring;
    uint32_t id;
    enum sm_phase phase;
    uint64_t tail;           /* entries completed = index of the head entry */
    uint64_t scanned;        /* entries seen */
    uint64_t arrival[SM_RING_ENTRIES];
    uint64_t service[SM_RING_ENTRIES]; /* sum of least service times up to and with this entry */
    uint64_t scanned_service; /* the same of the last entry seen */
    uint32_t n_unsure;       /* entries not done that are no kernels: they may hold the stream up */
    struct sm_entry head;    /* private copy of the head entry */
    uint64_t left_ns;        /* of the head kernel */
    uint64_t at;             /* ARRIVING, COPYING */
    uint32_t wait_id;        /* BLOCKED */
    uint64_t wait_seq;
    struct sm_watch *watches;
    bool listed;             /* in the card's list of timed streams */
    struct sm_stream *timed_prev, *timed_next;
    bool queued;             /* in the group's ready queue */
    struct sm_stream *ready_next;
    bool todo;
    struct sm_stream *todo_next;
};

struct sm_group {
    struct sm_group *next;   /* of the card, in round-robin order */
    struct sm_process *process;
    struct sm_card *card;
    uint32_t context;
    struct sm_stream *streams;
    struct sm_stream *ready_first, *ready_last;
    uint32_t error;
    bool stopped, was_scheduled;
    uint64_t timeslice_ns, asked_ns;
    uint64_t held_ns, work_ns, n_kernels;
};

struct sm_process {
    struct sm_process *next;
    struct sm_model *model;
    uint32_t pid;
    uint64_t start_ticks;
    struct sm_event_slot *events;
    uint64_t memory_bytes[SM_MAX_CARDS], parked_bytes[SM_MAX_CARDS];
    uint64_t placed_bytes[SM_MAX_CARDS]; /* on the card, in nobody's account */
    uint8_t moved_to[SM_MAX_CARDS]; /* by the program's own number of a card: the card */
    enum sm_park_state park_state;
    bool moving;             /* on its way out or in */
    uint64_t past_held_ns[SM_MAX_CARDS], past_work_ns[SM_MAX_CARDS], past_kernels[SM_MAX_CARDS]; /* of freed groups */
};

enum sm_engine_state { SM_ENGINE_EMPTY, SM_ENGINE_SWITCHING, SM_ENGINE_ON };

struct sm_engine {
    enum sm_engine_state state;
    struct sm_group *group;  /* resident, or being switched to; NULL while switching: it went away */
    const struct sm_group *last; /* whose working set is warm; compared only */
    uint64_t switch_end;
    uint64_t warm_until;
    uint64_t accounted;      /* progress is accounted up to here */
    uint64_t start_ns;       /* START record of the resident */
    uint64_t slice_end;
};

#define SM_N_BUCKETS 16
#define SM_BUCKET_NS 100000000ull

struct sm_card {
    struct sm_model *model;
    int index;
    struct sm_card_spec own; /* of this card, which differs from its model's where it was told to */
    const struct sm_card_spec *spec;
    char uuid[48];
    struct sm_group *groups;
    struct sm_engine engine;
    struct sm_stream *timed;
    struct sm_log *logs;
    uint64_t copy_free_at[SM_N_COPY];
    uint64_t memory_used, memory_most;
    uint64_t lock_free_at;   /* the card's own driver lock */
    uint32_t xid;
    uint32_t n_log_losses;
    uint64_t busy_ns, n_switches, n_kernels, control_ns;
    uint64_t copy_ns[SM_N_COPY], copied_bytes[SM_N_COPY];
    uint64_t bucket_at[SM_N_BUCKETS], bucket_busy[SM_N_BUCKETS], bucket_copy[SM_N_BUCKETS];
};

struct sm_call {
    struct sm_call *next;
    enum sm_control_kind kind;
    struct sm_card *card;
    uint64_t effect_at, done_at;
    bool effective;
    int result;
    uint64_t value, cookie;
    int n;
    uint32_t contexts[];
};

struct sm_model {
    uint64_t now;
    uint64_t lock_free_at;   /* the machine-wide driver lock */
    uint32_t next_context;
    int n_cards;
    struct sm_card cards[SM_MAX_CARDS];
    struct sm_process *processes;
    struct sm_shared *shared;
    uint64_t last_token;
    struct sm_stream *todo;
    uint32_t n_waits;        /* streams in SM_BLOCKED: most programs have none, and then nobody looks for them */
    struct sm_call *calls;   /* by done_at */
    struct sm_callbacks callbacks;
    uint32_t inject_n[SM_N_CONTROL];
    int inject_error[SM_N_CONTROL];
    uint32_t inject_slow_percent; /* 0: calls take their usual time */
};

/* engine.c */
void sm_engine_account(struct sm_card *c, uint64_t now);
uint64_t sm_engine_next(const struct sm_card *c);
void sm_engine_step(struct sm_card *c);   /* what ends at now */
void sm_engine_decide(struct sm_card *c); /* who has the card from now on */
void sm_engine_evict(struct sm_card *c, bool lost);
/* The hardware goes through its list of groups from the start, as it does after a time slice was set (H200). */
void sm_engine_begin_anew(struct sm_card *c);
bool sm_group_runnable(const struct sm_group *g);
bool sm_group_barred(const struct sm_group *g); /* may not run, work or no work */
uint64_t sm_engine_earliest(const struct sm_group *g); /* when the group's kernels can make progress: a lower bound */
void sm_card_count(struct sm_card *c, uint64_t from, uint64_t to, bool copy);

/* stream.c */
void sm_stream_scan(struct sm_stream *s);
void sm_stream_kernel_done(struct sm_stream *s);
void sm_stream_timed(struct sm_card *c);
void sm_drain(struct sm_model *m);
void sm_stream_end(struct sm_stream *s, uint32_t error);
uint64_t sm_watch_earliest(const struct sm_stream *s, uint64_t seq, int depth);
/* Its group has left this card for another. */
void sm_stream_relist(struct sm_stream *s, struct sm_card *left);
struct sm_stream *sm_stream_by_id(const struct sm_process *p, uint32_t id);

/* control.c */
uint64_t sm_control_next(const struct sm_model *m);
void sm_control_step(struct sm_model *m);
struct sm_group *sm_group_by_context(const struct sm_model *m, uint32_t context);

void sm_call_add(struct sm_model *m, struct sm_call *call);

/* memory.c */
void sm_memory_leave_all(struct sm_process *p);
bool sm_memory_shares(const struct sm_process *p);

/* park.c */
int sm_park_apply(struct sm_model *m, const struct sm_call *call, int injected_error);

/* log.c */
void sm_log_put(struct sm_card *c, const struct sm_group *g, enum cc_log_kind kind, bool lost);
#endif
