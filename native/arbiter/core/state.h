/* SPDX-License-Identifier: Apache-2.0
 * What the parts of the core share. Nothing outside of core/ includes this.
 */
#ifndef FLEXAI_ARBITER_STATE_H
#define FLEXAI_ARBITER_STATE_H
#include "core.h"

#define US 1000ull
#define MS 1000000ull
#define AC_MAX_SLOTS 16

struct tenant {
    bool used, suspended;
    uint32_t request_milli, limit_milli;
    uint32_t borrow_weight; /* among those who hold no compute; 0: as little as can be */
    enum fx_class class;
    int64_t vt;             /* card time over request, in ns of a tenant of 1000 */
    bool wants;             /* has work, as far as we know */
    uint64_t idle_since;    /* when it last had none */
    int n_groups;
    /* The limit: card time left; and for a latency tenant, card time left in which it goes first. */
    int64_t tokens_ns, priority_ns;
    bool throttled, spent;
    uint64_t goes_on_at;    /* since it was throttled, or it last was */
    bool rank_at_limit;     /* another rank of its job is: what would run here would wait for it */
    uint32_t gang;          /* tenants of one job have the same, on whatever card; 0: none */
    bool in_slots;          /* its turns are in slots, the same on all its cards */
    /* Decided: */
    bool prior, candidate, stop_want;
    struct slice_range { uint32_t least_us, us, most_us; } slice; /* us is set when what is set is out of the range */
    uint64_t retry_at;      /* a resume failed: not before */
    uint64_t retry_ns;
    /* hwslice: what the log shows */
    uint64_t last_run;      /* our time of its last moment on the card */
    uint64_t runnable_since;/* AC_NEVER while stopped */
    uint64_t proved;        /* card time at which it was last known to work */
    bool lone_test;         /* a preempt test is under way that can correct its books */
    uint64_t lone_test_ns;  /* time between such tests */
    bool yields;            /* it gives the card up early and soon wants it back: no tenant for the hardware's rotation */
    uint32_t n_hops;        /* such short pauses in a row */
    uint32_t n_found;       /* to yield, of late; and when it was last */
    uint64_t found_at;
    uint64_t yielded_at;    /* our time at which it gave the card up; AC_NEVER: it did not */
    uint64_t since_ns;      /* what it had since then, in however many time slices; */
    uint64_t gave_up_ns;    /* what it had had so when it gave the card up last; */
    uint64_t run_ns;        /* and from one such time to the next, at most, of late: a trial must last as long to show that it does */
    bool gappy;             /* others fill its turns */
    uint32_t turns_to_trial;
    uint32_t n_trials;      /* so far, up to those that are made soon after the first: */
    uint64_t first_trial_at;
    uint64_t trial_at;      /* whatever turns_to_trial says */
    uint64_t lends_at;      /* its gaps are not lent before */
    uint32_t n_defied;      /* stops that it undid, of late */
    uint64_t defied_at;
    bool frozen;            /* while it is stopped, */
    uint64_t frozen_at, thawed_at; /* since then; until then the last time, */
    bool held_fast;         /* in a way that nobody but us undoes */
    bool missed, room_wanted; /* it is overdue on the card */
    bool tells;             /* its coming back will mean something */
    bool had_all;           /* it left the card only since its time slice was over */
    uint64_t rescue_at, rescue_ns; /* it is resumed then, if it does not work, and again so much later */
    uint64_t rescued_from, rescued_at; /* it was, from when to when; AC_NEVER: its coming back would mean nothing */
    uint64_t room_for, rescued_for; /* its last moment on the card before others had to leave it for it, and before that */
    bool woken;             /* it was idle for long: its turn is the next */
    bool paused;            /* it was for a moment: its turn is the next once it is short of its share */
    int64_t slice_ns, over_ns; /* rotation: its time slice, and what its groups have beyond theirs each time */
    bool owes_much;         /* or is owed, more than the last rounds can have left */
    /* lease */
    struct ac_lease_seen seen;
    bool open;
    uint32_t window_us, window_want_us;
    bool open_want;
    /* figures */
    struct ac_usage usage;
    uint64_t window_held;   /* held at the begin of the window in which borrowing is judged */
};

struct group {
    bool used, stopped, ran, solo, stop_unsure;
    bool suspect;           /* the log shows it running although it is stopped, */
    uint64_t suspect_at;    /* first then, at the earliest */
    bool again;             /* stopped, but never seen to leave: to be stopped again, */
    uint64_t again_at, again_ns; /* not before, and how much later the next time */
    int tenant;
    struct cc_group id;
    uint32_t slice_us;      /* as set; 0 = not known */
    uint32_t slice_real_us; /* as the card counts it */
    uint32_t slice_was_us;  /* before it was set last, */
    uint64_t slice_at;      /* at this time */
    uint32_t slice_on_us;   /* as it was when the group came on the card: a new one counts from the next time */
    uint64_t retry_at, retry_ns;
    uint64_t stopped_at, checked_at;
    uint32_t n_library_us;  /* how often its time slice was what the vendor's library sets */
};

enum phase { PHASE_NONE, PHASE_OPEN, PHASE_CLOSING };

struct ac_card {
    struct ac_settings set;
    enum fx_backend backend;
    struct tenant tenant[AC_MAX_TENANTS];
    struct group group[AC_MAX_GROUPS];
    struct process { uint32_t pid; int tenant; } process[AC_MAX_PROCESSES];
    int n_tenants, n_groups, n_processes; /* upper bounds of used places */
    uint64_t accrued_at, window_at;
    /* The log: who has the card */
    bool resident;          /* someone has, */
    int resident_tenant;    /* AC_OUTSIDE: none of ours */
    uint32_t resident_pid, resident_context;
    uint64_t started_ts;    /* card time at which it came, */
    uint64_t started_at;    /* and ours, at the earliest */
    uint64_t open_at;       /* card time up to which it is charged */
    uint64_t last_ts;
    bool lost;              /* records were lost: the next END may close what we did not see begin */
    uint64_t lost_at;       /* our time when that was last told */
    uint64_t alone_since;   /* our time at which another tenant than the one before came on the card */
    int last_tenant;
    uint64_t last_latency_end; /* our time */
    uint64_t request_at, every_ns, pause_ns; /* when a request began last, how long after the one before; between two, at least */
    uint64_t last_first_end;   /* the same of a program that goes before the one whose turn it is: latency, or outside */
    uint64_t looked_at;     /* our time of the last reading, or attempt */
    uint64_t log_at, card_at; /* up to which the last reading told, by our clock and the card's */
    bool log_fresh;         /* a reading ended since the last decision */
    uint64_t known_at;      /* our time up to which the books are kept */
    uint64_t unread_ns;     /* it could not be read: how long it was waited for before it was tried again */
    uint64_t forced_from, forced_at; /* our time in which the hardware last began its list of groups anew, by calls of ours */
    /* Its list, which a time slice that is set makes it begin anew: where, is seen by who is on the card then. */
    int first, first_seen;  /* the group that it begins with, -1: not known; and that it seemed to begin with last */
    uint64_t listed_at;     /* when it last began so, in our time, */
    bool unseen;            /* with what is not known yet */
    uint64_t due_at;        /* since when a time slice should be set that waits for the list's beginning; 0: none */
    /* Driver locks */
    uint64_t budget_ppm;    /* of the time, for control calls */
    int64_t lock_tokens_ns;
    uint64_t action_at, cost_ns[AC_N_KINDS]; /* a call of each kind, lately */
    uint64_t round_spent_ns, last_spent_ns; /* on changes of turns, in this round and in the one before */
    uint64_t watch_spent_ns, watched_from, watch_ppm; /* on readings and checks since then; and how much of all time lately */
    /* Turns */
    bool rotate;            /* all candidates are runnable, by time slices; no turns */
    uint64_t round_ns, trim_at;
    uint64_t patient_until; /* what is owed is made good little by little */
    int lets_in;            /* who woke has the card next, wherever it is in the hardware's list; -1: nobody */
    uint64_t cut_at;        /* then its first time slice ends; AC_NEVER: as it is */
    int64_t level_vt;       /* virtual time that who comes back begins with */
    int64_t round_vt;       /* the virtual time that everybody reaches in this round */
    uint64_t round_began, free_was; /* turns by stop and resume: when the round did; all that those who take them had had then */
    uint32_t taken_milli;   /* of the card, by those who go first and for them, in the last round */
    uint64_t sorting_until; /* whoever is found to hop has a trial before anybody has its turn */
    int primary;            /* whose turn it is; -1 = nobody's */
    int last_primary;
    bool fill;              /* others are runnable with the shortest time slice, */
    bool trial;             /* for a moment, to find out whether they should be */
    bool guard;             /* or may be, since the one whose turn it is does not give up the card */
    bool reconsider;
    int lender;             /* the owner whose gaps are lent; -1: nobody */
    uint64_t lent_from, n_lent, lent_ns; /* since then: how often somebody came on the card after it, what they had */
    uint64_t turn_began, turn_end, settled_at, next_look, test_at;
    bool judging;
    uint64_t judged_from, turn_held, turn_ends; /* what the one whose turn it is had, and how often it left the card */
    uint64_t next_lone_test;
    uint64_t check_at;      /* when time slices are compared with what was set; */
    int check_next;         /* the group that comes next in this */
    uint32_t discover[16];  /* pids whose groups we do not know */
    int n_discover;
    /* lease */
    enum phase phase;
    uint64_t phase_at, charged_at;
    /* Rounds in common with other cards: slots that are set aside for gangs, in the order of their begin */
    struct slot {
        uint32_t gang;
        uint64_t part_ppm;  /* of the card's time; 0: there was no room for it, so its tenants take turns as all do */
        uint64_t begin, end;
        int64_t due_ns;     /* of its part, what earlier slots left it */
        int64_t held_ns;    /* since the round began, while others had work */
    } slot[AC_MAX_SLOTS];
    int n_slots;
    uint64_t round_at, round_end, unfree_ns; /* what went to programs that take no turns since its begin */
    uint64_t aimed_at;      /* round_vt is for the time up to here */
    bool leftover;          /* the turn is of one whose slot it is not, since nobody else wants the card */
    bool borrowed;          /* turns are of borrowers, since no owner wants the card */
    struct ac_card_usage usage;
};

#define GRACE_NS (1500 * US)     /* off the card although it could be on it: no work */
#define SETTLE_NS (1500 * US)    /* after a change of turns, before it is judged */
#define DEFER_NS (500 * US)      /* between looks for the end of a request */
#define TRIAL_NS (12 * MS)
#define TRIAL_TURNS 80           /* later, between trials whether others should fill a tenant's turns */
#define DEFAULT_SLICE_US 2000u   /* the driver's, until another is set */
#define US_MAX UINT32_MAX
#define LEAST_TOKENS_NS ((int64_t)(5 * MS)) /* of the budget, that what can wait leaves for changes of turns */
#define PATIENT_NS (1000 * MS) /* after somebody woke */

static inline uint64_t soonest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
static inline struct ac_action on_group(enum ac_kind kind, const struct group *g, uint32_t value)
{
    return (struct ac_action){.kind = kind, .tenant = g->tenant, .value = value, .n = 1, .handles = {g->id.handle}};
}
/* What is asked for is promised, and so weighs as it is; who was promised nothing has the weight that it was told. */
static inline int64_t weight_of(const struct tenant *t)
{
    return t->request_milli ? t->request_milli : t->borrow_weight ? t->borrow_weight : 1;
}
/* Which go before the one whose turn it is; so does the work of an owner whose gaps are lent. */
static inline bool makes_requests(const struct ac_card *c, int tenant)
{
    return c->tenant[tenant].class == FX_CLASS_LATENCY || tenant == c->lender;
}
/* Owners take turns with owners, and borrowers with borrowers: what the one sort had is no measure for the other. */
static inline bool is_owner(const struct tenant *t)
{
    return t->class != FX_CLASS_BEST_EFFORT;
}
/* As the card counts the time slice that was set; 0 = not known. */
static inline uint32_t real_us(const struct group *g)
{
    return g->slice_us ? g->slice_real_us : 0;
}
/* By its virtual time, like everybody who has no slot. */
static inline bool takes_turns(const struct tenant *t)
{
    return t->used && t->candidate && !t->in_slots;
}
/* Ranks of one job on one card: they run in the same turn. */
static inline bool are_mates(const struct ac_card *c, int a, int b)
{
    return a != b && a >= 0 && b >= 0 && c->tenant[a].gang && c->tenant[a].gang == c->tenant[b].gang;
}

/* account.c */
struct group *ac_find_group(struct ac_card *c, uint32_t pid, uint32_t context);
/* The group of ours that has the card and may, or NULL. */
struct group *ac_on_card(const struct ac_card *c);
void ac_unknown_group(struct ac_card *c, uint32_t pid);
void ac_charge(struct ac_card *c, int tenant, uint64_t ns);
void ac_refund(struct ac_card *c, int tenant, uint64_t ns);
void ac_accrue(struct ac_card *c, uint64_t now);
void ac_sleeps(struct ac_card *c, struct tenant *t);
void ac_level(const struct ac_card *c, struct tenant *t);
void ac_wakes(struct ac_card *c, struct tenant *t);
/* By virtual time, where those who want the card are, but for one. */
int64_t ac_level_of_others(const struct ac_card *c, const struct tenant *but);
/* loss.c */
void ac_put_in_order(struct cc_log_record *records, int n);
/* Card time up to `ts`: whoever is on the card left it then; or goes on, while records are missing for no longer than its
 * time slice; or left it at some time before, and `next` (if it is known) has been on it since. */
void ac_close_interval(struct ac_card *c, uint64_t ts);
void ac_charge_resident(struct ac_card *c, uint64_t ts);
void ac_close_after_loss(struct ac_card *c, const struct group *next, uint64_t ts, int began);
void ac_charge_unknown(struct ac_card *c, uint64_t ns, int but, int nor);
void ac_charge_by_our_clock(struct ac_card *c, uint64_t from, uint64_t to);
void ac_charge_at_most(struct ac_card *c, const struct group *g, uint64_t ns, uint64_t most, int but);
/* The log could not be read: turns go on by what our own clock says of whoever is on the card; what that was wrong by is
 * put right when it is read. */
void ac_charge_unread(struct ac_card *c, uint64_t now);
/* Records are missing: who was not seen may have been on the card for all we know. */
void ac_records_lost(struct ac_card *c, uint64_t n, uint64_t now);
/* And whoever we have on the card was stopped meanwhile: it is off it, and alone there the one whose turn it is shows nothing. */
void ac_leave_stopped(struct ac_card *c, uint64_t card_now, uint64_t now);
/* turns.c: order and length of turns, the same for both policies */
int ac_pick(const struct ac_card *c);
uint64_t ac_turn_length(const struct ac_card *c, int tenant, uint64_t mean, uint64_t least, uint64_t most);
/* Who may have the card now; returns how many candidates there are. */
int ac_classify(struct ac_card *c, uint64_t now);
void ac_hold_back(struct ac_card *c);
void ac_round_anew(struct ac_card *c);
/* limit.c */
bool ac_throttled(const struct ac_card *c, struct tenant *t, uint64_t now); /* from now on */
uint64_t ac_bucket_lasts(const struct tenant *t); /* if it has the card all the time */
int64_t ac_full_bucket(const struct ac_card *c, const struct tenant *t);
/* budget.c */
void ac_spent(struct ac_card *c, const struct ac_action *a, bool refused, uint64_t now);
uint64_t ac_rarer(const struct ac_card *c);
uint64_t ac_cost(const struct ac_card *c, enum ac_kind kind);
uint64_t ac_look_pause(const struct ac_card *c);
/* slices.c */
struct slice_range ac_slice_of(const struct ac_card *c, int tenant, bool beside, bool may_wake);
bool ac_set_slice(struct ac_card *c, uint64_t now, bool before_resume, struct ac_action *a);
bool ac_shorten(struct ac_card *c, uint64_t now, struct ac_action *a);
bool ac_cut_short(struct ac_card *c, struct ac_action *a);
/* rounds.c: turns by stop and resume */
bool ac_waiting(const struct ac_card *c); /* a candidate beside the one whose turn it is */
bool ac_may_wake(const struct ac_card *c); /* somebody without work may come back at any moment */
bool ac_goes_first(const struct ac_card *c, const struct tenant *t); /* since it was idle */
uint64_t ac_first_look(const struct ac_card *c, uint64_t now);
int ac_next_turn(struct ac_card *c);
void ac_judge_turn(struct ac_card *c, uint64_t now);
uint64_t ac_trial_ns(const struct tenant *t);
void ac_begin_turn(struct ac_card *c, int tenant, uint64_t now);
uint64_t ac_second_part(uint64_t least_ns); /* the shortest part of a second that is not shorter */
uint64_t ac_round_length(uint64_t now_ns, uint64_t cost_ns, uint64_t budget_ppm, uint64_t least_ns);
/* Changes of turns of a round, what part of the time is left for them, and how long it is at least. */
uint64_t ac_round_cost(struct ac_card *c, uint64_t *budget_ppm, uint64_t *least_ns);
bool ac_stays(const struct ac_card *c, int tenant, int primary); /* runnable in the turn of one that keeps the card */
bool ac_has_mates(const struct ac_card *c, int tenant); /* that have work */
/* requests.c: of those who go first */
bool ac_latency_beside(const struct ac_card *c);
void ac_request_began(struct ac_card *c, uint64_t at);
bool ac_between_requests(const struct ac_card *c, uint64_t now);
uint64_t ac_next_opening(const struct ac_card *c, uint64_t now);
/* slots.c: turns on a card whose rounds align.c decides */
void ac_turn_in_slots(struct ac_card *c, bool sooner, uint64_t now);
void ac_charge_slot(struct ac_card *c, int tenant, int64_t ns);
/* rotation.c: the hardware's own turns */
bool ac_can_rotate(const struct ac_card *c, int n_candidates);
void ac_rotate(struct ac_card *c, uint64_t now);
bool ac_halve(struct ac_card *c, uint64_t now, struct ac_action *a);
void ac_forced(struct ac_card *c, uint64_t now);
void ac_list_began(struct ac_card *c, const struct group *g, uint64_t from, uint64_t until);
bool ac_awaits_list(struct ac_card *c, uint64_t now);
uint64_t ac_slices_of_others(const struct ac_card *c, int than);
bool ac_had_to_leave(const struct ac_card *c, const struct group *g, uint64_t had_ns, uint64_t at);
void ac_gave_up(struct ac_card *c, const struct group *g, uint64_t had_ns, uint64_t at);
void ac_came_back(struct ac_card *c, int tenant, uint64_t at);
/* lend.c */
void ac_lend(struct ac_card *c, uint64_t now);
/* idle.c */
void ac_find_idle(struct ac_card *c, uint64_t now);
uint64_t ac_idle_look(const struct ac_card *c, uint64_t now);
void ac_proved(struct ac_card *c, int tenant, uint64_t at);
bool ac_test_idle(struct ac_card *c, uint64_t now, struct ac_action *a);
bool ac_others_want(const struct ac_card *c, int than);
/* watch.c: tenants that act against control */
bool ac_check(struct ac_card *c, uint64_t now, struct ac_action *a);
bool ac_checks(const struct ac_card *c);
/* Who has the card may have made its time slice longer: it is asked for before others are taken to have no work. */
bool ac_overruns(struct ac_card *c, uint64_t now);
void ac_ran(struct ac_card *c, struct group *g, uint64_t at);
void ac_stayed(struct ac_card *c);
void ac_judge(struct ac_card *c, uint32_t pid, uint64_t now);
bool ac_suspected(const struct ac_card *c, uint32_t pid);
uint64_t ac_watch_look(const struct ac_card *c, uint64_t now);
uint64_t ac_stops_at(const struct ac_card *c, const struct tenant *t); /* it must not be stopped sooner */
bool ac_freeze(struct ac_card *c, bool thaw, struct ac_action *a);
/* rescue.c: tenants that somebody else stopped */
bool ac_rescue_first(const struct ac_card *c, struct tenant *t, uint64_t now);
bool ac_rescue(struct ac_card *c, uint64_t now, struct ac_action *a);
void ac_rescue_done(struct ac_card *c, int tenant, int result, uint64_t now);
bool ac_make_room(struct ac_card *c, uint64_t now, struct ac_action *a);
void ac_room_made(struct ac_card *c, uint64_t now);
void ac_is_back(struct ac_card *c, int tenant, uint64_t at);
uint64_t ac_rescue_wake(const struct ac_card *c, uint64_t now);
/* look.c: when the log must be read again, and when there is something to do */
void ac_plan_look(struct ac_card *c, uint64_t now);
/* hwslice.c */
bool ac_hwslice_step(struct ac_card *c, uint64_t now, struct ac_action *a);
void ac_hwslice_done(struct ac_card *c, const struct ac_action *a, int result, uint64_t now);
uint64_t ac_hwslice_wake(const struct ac_card *c, uint64_t now);
/* lease.c */
bool ac_lease_step(struct ac_card *c, uint64_t now, struct ac_action *a);
uint64_t ac_lease_wake(const struct ac_card *c, uint64_t now);
#endif
