/* SPDX-License-Identifier: Apache-2.0
 * The model against what was measured on an H200 (see ../README.md), and against itself. Each case is a name on the
 * command line.
 */
#include <errno.h>
#include <string.h>
#include "check.h"
#include "simcard_virtual.h"

#define MS 1000000ull
#define S 1000000000ull

struct bench {
    struct sv_world *w;
    void *cc;
};

static struct bench bench_new(const char *cards)
{
    struct bench b = {.w = sv_world_new(cards)};
    char why[128];
    cc_virtual_use(b.w);
    CHECK(cc_virtual.open(&b.cc, sm_card_uuid(sv_model(b.w), 0), why, sizeof why) == 0, "%s", why);
    return b;
}

static void bench_free(struct bench *b)
{
    cc_virtual.close(b->cc);
    sv_world_free(b->w);
}

/* Part of the time in percent that a program made progress during the next ns. */
static double rate(struct bench *b, const struct sv_program *p, uint64_t ns)
{
    struct sv_figures before, after;
    sv_figures(p, &before);
    sv_run(b->w, ns);
    sv_figures(p, &after);
    return 100.0 * (double)(after.work_ns - before.work_ns) / (double)ns;
}

static void a_lone_flood_has_the_whole_card(void)
{
    struct bench b = bench_new("h200");
    struct sv_program *p = sv_flood(b.w, 0, 1, MS, 64);
    sv_run(b.w, 10 * MS);
    CHECK_NEAR(rate(&b, p, S), 100, 1e-9);
    bench_free(&b);
}

static void two_floods_get_46_percent_each_and_48_by_the_log(void)
{
    struct bench b = bench_new("h200");
    struct sv_program *p = sv_flood(b.w, 0, 1, 50000, 64), *q = sv_flood(b.w, 0, 2, 20 * MS, 64);
    sv_run(b.w, 10 * S);
    struct sv_figures f, g;
    sv_figures(p, &f);
    sv_figures(q, &g);
    CHECK_NEAR((double)f.work_ns / 1e8, 45.9, 0.1);
    CHECK_NEAR((double)g.work_ns / 1e8, 45.9, 0.1);
    CHECK_NEAR((double)f.held_ns / 1e8, 48.1, 0.1);
    bench_free(&b);
}

static void a_time_slice_set_before_the_group_ran_is_ignored(void)
{
    struct bench b = bench_new("h200");
    struct sv_program *p = sv_flood(b.w, 0, 1, MS, 64), *q = sv_flood(b.w, 0, 2, MS, 64);
    uint32_t us = 0;
    CHECK(cc_virtual.set_timeslice(b.cc, sv_context(q), 8000) == 0); /* in effect 0.2 ms from now: p has the card */
    sv_run(b.w, 10 * MS);
    CHECK_NEAR(rate(&b, p, S), 45.9, 0.5);
    CHECK(cc_virtual.get_timeslice(b.cc, sv_context(q), &us) == 0 && us == 8000); /* and yet it says so */
    CHECK(cc_virtual.set_timeslice(b.cc, sv_context(q), 8000) == 0);
    sv_run(b.w, 10 * MS);
    CHECK_NEAR(rate(&b, q, S), 100 * 8 / 10.36, 0.5);
    bench_free(&b);
}

static void a_stop_holds_in_the_middle_of_a_kernel_and_nothing_is_lost(void)
{
    struct bench b = bench_new("h200");
    struct sv_program *p = sv_flood(b.w, 0, 1, S, 1);
    uint32_t handle = sv_context(p);
    struct sv_figures f;
    sv_run(b.w, 100 * MS);
    CHECK(cc_virtual.stop(b.cc, &handle, 1, 1) == 0);
    CHECK_NEAR(rate(&b, p, 500 * MS), 0, 0);
    CHECK(cc_virtual.stop(b.cc, &handle, 1, 0) == 0);
    sv_run(b.w, 900 * MS + 400000);
    sv_figures(p, &f);
    CHECK(f.n_kernels == 1);
    CHECK_NEAR(rate(&b, p, 500 * MS), 100, 1e-9);
    bench_free(&b);
}

static int n_starts(struct bench *b)
{
    struct cc_log_record records[512];
    uint64_t dropped;
    struct cc_moment told;
    int n = cc_virtual.read_log(b->cc, records, 512, &dropped, &told), starts = 0;
    for (int i = 0; i < n; i++)
        starts += records[i].kind == CC_LOG_START;
    return starts;
}

static void a_preempted_group_comes_back_in_the_log_only_if_it_has_work(void)
{
    struct bench b = bench_new("h200");
    struct sv_program *p = sv_flood(b.w, 0, 1, MS, 64);
    sv_run(b.w, 10 * MS);
    CHECK(n_starts(&b) == 1);
    for (int i = 0; i < 88; i++) {
        CHECK(cc_virtual.preempt(b.cc, sv_context(p)) == 0);
        CHECK(n_starts(&b) == 1);
    }
    sv_pause(p, 1);
    sv_run(b.w, 100 * MS); /* it idles: nothing in the log tells so, */
    CHECK(n_starts(&b) == 0);
    CHECK(cc_virtual.preempt(b.cc, sv_context(p)) == 0); /* but this does */
    sv_run(b.w, 10 * MS);
    CHECK(n_starts(&b) == 0);
    bench_free(&b);
}

static void a_lone_group_pays_nothing_for_a_short_slice_and_gives_way_at_its_end(void)
{
    struct bench b = bench_new("h200");
    struct sv_program *p = sv_flood(b.w, 0, 1, 20 * MS, 8);
    sv_run(b.w, 10 * MS);
    CHECK(cc_virtual.set_timeslice(b.cc, sv_context(p), 100) == 0);
    CHECK_NEAR(rate(&b, p, S), 100, 1e-9);
    struct sv_program *q = sv_latency(b.w, 0, 2, MS, 50 * MS);
    sv_run(b.w, 5 * S);
    struct sv_figures f;
    sv_figures(q, &f);
    CHECK(f.n_requests >= 99);
    CHECK(f.p99_ns < MS + 100000 + 83000 + 97000 + 1000, "p99 %lu", (unsigned long)f.p99_ns);
    bench_free(&b);
}

static void a_killed_program_leaves_nothing_and_its_end_has_no_pid(void)
{
    struct bench b = bench_new("h200");
    struct sv_program *p = sv_flood(b.w, 0, 1, S, 8), *q = sv_flood(b.w, 0, 2, MS, 64);
    uint32_t handle = sv_context(p);
    sv_run(b.w, 500000);
    CHECK(cc_virtual.stop(b.cc, &handle, 1, 1) == 0);
    sv_run(b.w, 10 * MS);
    CHECK(cc_virtual.stop(b.cc, &handle, 1, 0) == 0);
    struct sm_group_figures g;
    do
        sv_run(b.w, 100000);
    while (sm_group_figures(sv_model(b.w), handle, &g) == 0 && !g.resident);
    sv_kill(p);
    struct cc_log_record records[512];
    uint64_t dropped;
    struct cc_moment told;
    int n = cc_virtual.read_log(b.cc, records, 512, &dropped, &told);
    bool seen = false;
    for (int i = 0; i < n; i++)
        seen = seen || (records[i].kind == CC_LOG_END && records[i].pid == 0xFFFFFFFFu && records[i].context == handle);
    CHECK(seen);
    sv_run(b.w, 10 * MS);
    CHECK_NEAR(rate(&b, q, S), 100, 1e-9);
    CHECK(sm_memory_used(sv_model(b.w), 0) == sm_card_spec("h200")->context_bytes);
    CHECK(cc_virtual.set_timeslice(b.cc, handle, 1000) == -ESRCH);
    bench_free(&b);
}

static void the_steps_of_the_clock_do_not_change_the_outcome(void)
{
    uint64_t work[2][3];
    for (int way = 0; way < 2; way++) {
        struct sm_model *m = sm_new(0);
        static struct sm_ring rings[3];
        memset(rings, 0, sizeof rings);
        struct sm_group *g[3];
        CHECK(sm_add_cards(m, "h200:1") == 1);
        for (uint32_t i = 0; i < 3; i++) {
            struct sm_stream *s;
            CHECK(sm_group_new(sm_process_new(m, i + 1, 0, NULL), 0, &g[i]) == 0);
            CHECK(sm_stream_new(g[i], i, &rings[i], &s) == 0);
            for (uint64_t k = 0; k < 200; k++) {
                struct sm_entry e = {.ts_ns = k * 10000 * (i + 1), .op = SM_OP_WORK, .amount = 17000 + 3000 * k, .n_kernels = 1};
                CHECK(sm_submit(s, &e, NULL) == 0);
            }
        }
        for (uint64_t t = 0; t < 97 * MS; t += way ? 97 * MS : 7919)
            sm_advance(m, t);
        sm_advance(m, 97 * MS);
        for (int i = 0; i < 3; i++) {
            struct sm_group_figures f;
            CHECK(sm_group_figures(m, sm_group_context(g[i]), &f) == 0);
            work[way][i] = f.work_ns + (f.n_kernels << 48);
        }
        sm_free(m);
    }
    CHECK(memcmp(work[0], work[1], sizeof work[0]) == 0);
}

static void a_reader_who_is_late_keeps_the_oldest_and_learns_the_count_of_the_rest(void)
{
    struct bench b = bench_new("h200");
    sv_flood(b.w, 0, 1, MS, 64);
    sv_flood(b.w, 0, 2, MS, 64);
    static struct cc_log_record records[16384];
    uint64_t dropped, more, first = sv_now(b.w);
    struct cc_moment told;
    sv_run(b.w, 20 * S);
    int n = cc_virtual.read_log(b.cc, records, 16384, &dropped, &told);
    CHECK(n == 8190 && dropped > 9000 && dropped < 11000, "n %d dropped %lu", n, (unsigned long)dropped);
    CHECK(records[0].ts_ns - first < MS);
    sm_inject_log_loss(sv_model(b.w), 0, 3);
    sv_run(b.w, 100 * MS);
    CHECK(cc_virtual.read_log(b.cc, records, 16384, &more, &told) > 80 && more == 3);
    bench_free(&b);
}

static void injected_errors_hit_the_next_calls_and_change_nothing(void)
{
    struct bench b = bench_new("h200");
    struct sv_program *p = sv_flood(b.w, 0, 1, MS, 64);
    uint32_t handle = sv_context(p);
    sv_run(b.w, 10 * MS);
    sm_inject_control_error(sv_model(b.w), SM_STOP, 2, -EIO);
    CHECK(cc_virtual.stop(b.cc, &handle, 1, 1) == -EIO && cc_virtual.stop(b.cc, &handle, 1, 1) == -EIO);
    CHECK_NEAR(rate(&b, p, 100 * MS), 100, 1e-9);
    CHECK(cc_virtual.stop(b.cc, &handle, 1, 1) == 0);
    CHECK_NEAR(rate(&b, p, 100 * MS), 0, 0);
    bench_free(&b);
}

static void a_card_that_fails_ends_its_contexts_and_refuses_new_ones_until_it_recovers(void)
{
    struct bench b = bench_new("h200:2");
    struct sv_program *p = sv_flood(b.w, 0, 1, MS, 64), *q = sv_flood(b.w, 1, 2, MS, 64);
    struct sm_group *g;
    sv_run(b.w, 10 * MS);
    sm_card_fail(sv_model(b.w), 0, 79);
    CHECK_NEAR(rate(&b, p, 100 * MS), 0, 0);
    CHECK_NEAR(rate(&b, q, 100 * MS), 100, 1e-9);
    struct sm_process *new = sm_process_new(sv_model(b.w), 3, 0, NULL);
    CHECK(sm_group_new(new, 0, &g) == -ENODEV);
    sm_card_recover(sv_model(b.w), 0);
    CHECK(sm_group_new(new, 0, &g) == 0);
    bench_free(&b);
}

static void the_wake_is_never_later_than_the_completion_it_is_for(void)
{
    /* Three programs, watches at random depth: advance only to sm_next_wake, as the daemon does. */
    struct sm_model *m = sm_new(0), *exact = sm_new(0);
    static struct sm_ring rings[2][3];
    memset(rings, 0, sizeof rings);
    struct sm_stream *s[2][3];
    struct sm_model *models[2] = {m, exact};
    for (int way = 0; way < 2; way++) {
        CHECK(sm_add_cards(models[way], "h200:1") == 1);
        for (uint32_t i = 0; i < 3; i++) {
            struct sm_group *g;
            uint64_t x = i + 1;
            CHECK(sm_group_new(sm_process_new(models[way], i + 1, 0, NULL), 0, &g) == 0);
            CHECK(sm_stream_new(g, i, &rings[way][i], &s[way][i]) == 0);
            for (uint64_t k = 0; k < 500; k++) {
                x = x * 6364136223846793005ull + 1442695040888963407ull;
                struct sm_entry e = {.op = (x >> 60) == 3 ? SM_OP_COPY : SM_OP_WORK, .amount = (x >> 40) % 300000, .n_kernels = 1};
                CHECK(sm_submit(s[way][i], &e, NULL) == 0);
            }
        }
    }
    uint64_t done_at[3][501] = {{0}};
    sm_advance(exact, 0);
    for (uint64_t next; (next = sm_next_event(exact)) != SM_NEVER;) {
        uint64_t before[3];
        for (int i = 0; i < 3; i++)
            before[i] = sm_stream_completed(s[1][i]);
        sm_advance(exact, next);
        for (int i = 0; i < 3; i++)
            while (before[i] < sm_stream_completed(s[1][i]))
                done_at[i][++before[i]] = next;
    }
    sm_advance(m, 0);
    uint64_t x = 99, n_wakes = 0, n_watched = 0;
    uint64_t seq[3] = {0};
    for (bool going = true; going;) {
        going = false;
        for (int i = 0; i < 3; i++) {
            if (sm_stream_completed(s[0][i]) >= seq[i] && seq[i] < 500) {
                CHECK(seq[i] == 0 || sm_now(m) == done_at[i][seq[i]], "entry %lu of %d: woken at %lu, done at %lu",
                      (unsigned long)seq[i], i, (unsigned long)sm_now(m), (unsigned long)done_at[i][seq[i]]);
                x = x * 6364136223846793005ull + 1442695040888963407ull;
                while (done_at[i][seq[i]] <= sm_now(m) && seq[i] < 500)
                    seq[i]++;
                seq[i] += (x >> 50) % 40;
                seq[i] = seq[i] < 500 ? seq[i] : 500;
                CHECK(sm_watch(s[0][i], seq[i], 1) == 0);
                n_watched++;
            }
            going = going || sm_stream_completed(s[0][i]) < seq[i];
        }
        if (going)
            sm_advance(m, sm_next_wake(m));
        n_wakes++;
    }
    CHECK(n_watched > 40 && n_wakes < 20 * n_watched, "%lu wakes for %lu watches", (unsigned long)n_wakes, (unsigned long)n_watched);
    sm_free(m);
    sm_free(exact);
}

static uint64_t watched[3];

static void note_watch(void *arg, uint64_t cookie)
{
    (void)arg;
    watched[cookie]++;
}

static void a_watch_is_answered_once_when_its_entries_are_done_before_it_and_when_the_stream_ends(void)
{
    struct sm_model *m = sm_new(0);
    static struct sm_ring ring;
    struct sm_group *g;
    struct sm_stream *s;
    struct sm_entry e = {.op = SM_OP_WORK, .amount = MS, .n_kernels = 1};
    sm_set_callbacks(m, &(struct sm_callbacks){.watch_done = note_watch});
    CHECK(sm_add_cards(m, "h200") == 1 && sm_group_new(sm_process_new(m, 1, 0, NULL), 0, &g) == 0);
    CHECK(sm_stream_new(g, 0, &ring, &s) == 0 && sm_submit(s, &e, NULL) == 0 && sm_submit(s, &e, NULL) == 0);
    sm_advance(m, 3 * MS / 2);
    CHECK(sm_watch(s, 1, 0) == 0 && sm_watch(s, 2, 1) == 0 && watched[0] == 0);
    CHECK(sm_next_wake(m) <= 3 * MS / 2);
    sm_advance(m, 3 * MS / 2);
    CHECK(watched[0] == 1 && watched[1] == 0);
    sm_card_fail(m, 0, 79);
    CHECK(watched[1] == 1 && ring.error == 719);
    CHECK(sm_watch(s, 2, 2) == 0);
    sm_advance(m, 2 * MS);
    CHECK(watched[0] == 1 && watched[1] == 1 && watched[2] == 1);
    CHECK(sm_next_wake(m) == SM_NEVER); /* or its owner would spin */
    sm_free(m);
}

static void a_kernel_that_waits_for_a_peer_has_the_card_until_it_is_let_go_and_gives_way_to_others(void)
{
    struct sm_model *m = sm_new(0);
    static struct sm_ring rings[2];
    struct sm_group *g[2];
    struct sm_stream *s[2];
    struct sm_entry spin = {.op = SM_OP_SPIN}, work = {.op = SM_OP_WORK, .amount = MS, .n_kernels = 1};
    struct sm_group_figures f;
    CHECK(sm_add_cards(m, "h200") == 1);
    for (uint32_t i = 0; i < 2; i++)
        CHECK(sm_group_new(sm_process_new(m, i + 1, 0, NULL), 0, &g[i]) == 0 &&
              sm_stream_new(g[i], 0, &rings[i], &s[i]) == 0);
    CHECK(sm_submit(s[0], &spin, NULL) == 0 && sm_submit(s[0], &work, NULL) == 0);
    sm_advance(m, 100 * MS);
    CHECK(sm_group_figures(m, sm_group_context(g[0]), &f) == 0 && f.work_ns > 99 * MS);
    CHECK(sm_stream_completed(s[0]) == 0);
    CHECK(sm_submit(s[1], &work, NULL) == 0);
    sm_advance(m, 110 * MS); /* the peer has its turn although nobody let the spinner go */
    CHECK(sm_stream_completed(s[1]) == 1 && sm_stream_completed(s[0]) == 0);
    atomic_store(&rings[0].host_done, 1);
    sm_advance(m, 110 * MS);
    CHECK(sm_stream_completed(s[0]) == 1);
    sm_advance(m, 112 * MS);
    CHECK(sm_stream_completed(s[0]) == 2);
    CHECK(!sm_busy(m) && sm_next_wake(m) == SM_NEVER);
    sm_free(m);
}

static int moved;

static void note_move(void *arg, uint64_t cookie, int result)
{
    (void)arg;
    (void)cookie;
    moved = result ? result : 1;
}

static void a_parked_process_leaves_its_memory_to_others_and_comes_back_where_it_was(void)
{
    const uint64_t GIB = 1ull << 30;
    struct bench b = bench_new("h200");
    struct sm_model *m = sv_model(b.w);
    struct sv_program *p = sv_flood(b.w, 0, 1, 20 * MS, 8), *q = sv_flood(b.w, 0, 2, MS, 64);
    struct sm_process *one = sm_process_by_pid(m, 1), *two = sm_process_by_pid(m, 2);
    CHECK(sm_memory_take(one, 0, 100 * GIB) == 0 && sm_memory_take(two, 0, 50 * GIB) == -ENOMEM);
    sv_run(b.w, 100 * MS);
    sm_set_callbacks(m, &(struct sm_callbacks){.control_done = note_move});
    CHECK(sm_park_move(one, true, NULL, 0) == -EINVAL); /* not locked */
    CHECK(sm_park_lock(one) == 0 && sm_park_lock(one) == -EINVAL);
    CHECK_NEAR(rate(&b, p, 100 * MS), 0, 0);
    CHECK(sm_park_move(one, true, NULL, 0) == 0 && sm_park_unlock(one) == -EINVAL);
    sv_run(b.w, 50 * S);
    CHECK(moved == 0);
    sv_run(b.w, 3 * S); /* 100 GiB at 2 GiB/s, roughly */
    CHECK(moved == 1 && sm_park_state(one) == SM_PARKED);
    CHECK(sm_memory_of(one, 0) == 4 << 20);
    CHECK_NEAR(rate(&b, q, S), 100, 1e-9);
    CHECK(sm_memory_take(two, 0, 50 * GIB) == 0);
    CHECK(sm_park_move(one, false, NULL, 0) == 0);
    sv_run(b.w, 30 * S);
    CHECK(moved == -ENOMEM && sm_park_state(one) == SM_PARKED && sm_memory_of(one, 0) == 4 << 20);
    sm_memory_give(two, 0, 50 * GIB);
    CHECK(sm_park_move(one, false, NULL, 0) == 0);
    sv_run(b.w, 30 * S);
    CHECK(moved == 1 && sm_memory_of(one, 0) > 100 * GIB && sm_park_unlock(one) == 0);
    CHECK_NEAR(rate(&b, p, S), 45.9, 0.5);
    bench_free(&b);
}

static void a_parked_process_comes_back_to_other_cards_of_its_kind_with_all_that_it_had(void)
{
    const uint64_t GIB = 1ull << 30;
    struct bench b = bench_new("h200:2,a100");
    struct sm_model *m = sv_model(b.w);
    struct sv_program *p = sv_flood(b.w, 0, 1, 20 * MS, 8), *q = sv_flood(b.w, 0, 2, MS, 64);
    struct sm_process *one = sm_process_by_pid(m, 1);
    CHECK(sm_memory_take(one, 0, 10 * GIB) == 0);
    sv_run(b.w, 100 * MS);
    uint64_t held = sm_memory_of(one, 0);
    sm_set_callbacks(m, &(struct sm_callbacks){.control_done = note_move});
    const uint32_t swap[3] = {1, 0, 2}, both[3] = {1, 1, 2}, other_kind[3] = {2, 1, 0};
    CHECK(sm_park_lock(one) == 0 && sm_park_move(one, true, swap, 0) == -EDOM && sm_park_move(one, true, NULL, 0) == 0);
    sv_run(b.w, 10 * S);
    CHECK(sm_park_move(one, false, both, 0) == -EDOM && sm_park_move(one, false, other_kind, 0) == -EDOM);
    moved = 0;
    sm_card_fail(m, 1, 79);
    CHECK(sm_park_move(one, false, swap, 0) == 0);
    sv_run(b.w, 5 * S);
    CHECK(moved == -ENODEV && sm_memory_of(one, 0) == 4 << 20 && sm_process_card(one, 0) == 0);
    sm_card_recover(m, 1);
    moved = 0;
    CHECK(sm_park_move(one, false, swap, 0) == 0);
    sv_run(b.w, 5 * S);
    CHECK(moved == 1 && sm_memory_of(one, 0) == 0 && sm_memory_of(one, 1) == held);
    CHECK(sm_process_card(one, 0) == 1 && sm_process_card(one, 1) == 0 && sm_process_card(one, 2) == 2);
    CHECK(sm_park_unlock(one) == 0);
    sv_run(b.w, 10 * MS);
    CHECK_NEAR(rate(&b, p, S), 100, 1e-9); /* each has a card of its own */
    CHECK_NEAR(rate(&b, q, S), 100, 1e-9);
    uint64_t token;
    CHECK(sm_memory_share(one, 1, GIB, &token) == 0 && sm_park_lock(one) == 0 && sm_park_move(one, true, NULL, 0) == 0);
    sv_run(b.w, 10 * S);
    CHECK(sm_park_move(one, false, swap, 0) == -EOPNOTSUPP);
    bench_free(&b);
}

#define CASE(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    CASE(a_lone_flood_has_the_whole_card),
    CASE(two_floods_get_46_percent_each_and_48_by_the_log),
    CASE(a_time_slice_set_before_the_group_ran_is_ignored),
    CASE(a_stop_holds_in_the_middle_of_a_kernel_and_nothing_is_lost),
    CASE(a_preempted_group_comes_back_in_the_log_only_if_it_has_work),
    CASE(a_lone_group_pays_nothing_for_a_short_slice_and_gives_way_at_its_end),
    CASE(a_killed_program_leaves_nothing_and_its_end_has_no_pid),
    CASE(the_steps_of_the_clock_do_not_change_the_outcome),
    CASE(a_reader_who_is_late_keeps_the_oldest_and_learns_the_count_of_the_rest),
    CASE(injected_errors_hit_the_next_calls_and_change_nothing),
    CASE(a_card_that_fails_ends_its_contexts_and_refuses_new_ones_until_it_recovers),
    CASE(a_watch_is_answered_once_when_its_entries_are_done_before_it_and_when_the_stream_ends),
    CASE(a_kernel_that_waits_for_a_peer_has_the_card_until_it_is_let_go_and_gives_way_to_others),
    CASE(a_parked_process_leaves_its_memory_to_others_and_comes_back_where_it_was),
    CASE(a_parked_process_comes_back_to_other_cards_of_its_kind_with_all_that_it_had),
    CASE(the_wake_is_never_later_than_the_completion_it_is_for),
};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (argc > 1 && strcmp(argv[1], "--list") == 0)
            puts(cases[i].name);
        else if (argc < 2 || strcmp(argv[1], cases[i].name) == 0)
            cases[i].run();
    }
    return 0;
}
