/* SPDX-License-Identifier: Apache-2.0
 * One card, its tenants and the core under a virtual clock, by a script of words:
 *
 *   backend:hwslice|lease|none  (first)   cards:N (second; 1 if it is not there)   card:K (what follows is of this card)
 *   flood:I:KERNEL_US:DEPTH  step:I:KERNEL_US:HOST_US  burst:I:KERNEL_US:N:HOST_US  latency:I:KERNEL_US:PERIOD_US
 *   rank:I:KERNEL_US:HOST_US  meet:I:CARD:J (whose kernels wait for those of tenant J of that card)
 *   pair:I (a second context of rank I's process, that it waits for and that waits for it)
 *   gang:I:N (tenants of one job have the same)  apart (turns are not aligned)  overlap (is told for gangs from here on)
 *   beside:I:KERNEL_US (a second context of tenant I's process)  outside:KERNEL_US (a program that is nobody's)
 *   put:I:REQUEST:LIMIT:CLASS  borrows:I:WEIGHT (beside others without a request)  gone:I  suspend:I  resume:I  pause:I  go:I  kill:I  freeze:I (lease: drains never)
 *   asks:I (goes on; if it has no work left, how long it then waits for the card is told)
 *   late:MS (what is read from the log reaches the core later)
 *   slow:PERCENT (control calls take so much of their usual time)
 *   fail:N (every N-th call is refused; 0 = none)  lose:N (records of the log)  shuffle  undo:I (resumes itself)  grow:I (makes another channel)  xid:N  recover:0 (the card)
 *   refuse:KIND:N (the next N calls of that kind: set, stop, resume, preempt or flush)  fault:I (a sticky error of its context)
 *   bar:I (somebody else stops its context)  meddle:K:I:MS (tenant K resumes tenant I every so often; 0: no more)
 *   leap:MS (our clock does)  cardleap:MS  cardback:MS (the card's)  lock:I unlock:I (a checkpoint's hold on its process)
 *   widen:I:US (sets its own time slice)  watch:I (the card is asked for it)
 *   run:MS  mark (all cards)  report (what happened since the mark: a line a tenant of this card; calls of all cards)
 */
#include "rig.h"

static const char *const kinds[AC_N_KINDS] = {[AC_READ_LOG] = "read", [AC_STOP] = "stop", [AC_RESUME] = "resume",
                                              [AC_TIMESLICE] = "set", [AC_PREEMPT] = "preempt", [AC_CHECK] = "check"};
static struct rig rigs[SM_MAX_CARDS];
static int n_rigs, here;
#define rig rigs[here]
static struct sv_figures was[SM_MAX_CARDS][RIG_TENANTS];
static struct ac_usage usage_was[SM_MAX_CARDS][RIG_TENANTS];
static uint64_t marked, calls_was[AC_N_KINDS], ns_was[AC_N_KINDS];
static int sample_was;
static struct rig_overlap overlap[RIG_GANGS];
static bool apart, tells_overlap;

static void calls_of_all(uint64_t n_calls[AC_N_KINDS], uint64_t ns[AC_N_KINDS])
{
    for (int k = 0; k < AC_N_KINDS; k++) {
        n_calls[k] = ns[k] = 0;
        for (int i = 0; i < n_rigs; i++) {
            n_calls[k] += rigs[i].n_calls_of[k];
            ns[k] += rigs[i].call_ns[k];
        }
    }
}

static void mark(void)
{
    for (int k = 0; k < n_rigs; k++)
        for (int i = 0; i < RIG_TENANTS; i++)
            if (rigs[k].program[i]) {
                sv_figures(rigs[k].program[i], &was[k][i]);
                ac_usage(rigs[k].card, i, &usage_was[k][i]);
                sv_forget_latencies(rigs[k].program[i]);
            }
    if (tells_overlap)
        rig_overlap(rigs, n_rigs, overlap); /* what came before is not told */
    for (int k = 0; k < n_rigs; k++)
        for (int i = 0; i < RIG_TENANTS; i++)
            rigs[k].wait[i].n = 0;
    for (int g = 0; g < RIG_GANGS; g++) {
        memset(overlap[g].held, 0, sizeof overlap[g].held);
        overlap[g].at_once = 0;
    }
    marked = sv_now(rig.world);
    sample_was = rig.n_samples;
    calls_of_all(calls_was, ns_was);
}

/* The farthest, in any second since the mark, of a tenant's part of the used time from its part of all of it. */
static double worst_second(int tenant)
{
    double worst = 0;
    int first = rig.n_samples - sample_was > RIG_SAMPLES ? rig.n_samples - RIG_SAMPLES : sample_was;
    const struct rig_sample *begin = &rig.sample[first % RIG_SAMPLES], *end = &rig.sample[(rig.n_samples - 1) % RIG_SAMPLES];
    double part[2] = {0};
    for (int i = first; i + 50 < rig.n_samples; i++) {
        for (int whole = 0; whole < 2; whole++) {
            const struct rig_sample *a = whole ? begin : &rig.sample[i % RIG_SAMPLES];
            const struct rig_sample *b = whole ? end : &rig.sample[(i + 50) % RIG_SAMPLES];
            uint64_t sum = 0;
            for (int k = 0; k < RIG_TENANTS; k++)
                sum += b->held[k] - a->held[k];
            part[whole] = sum ? 100 * (double)(b->held[tenant] - a->held[tenant]) / (double)sum : 0;
        }
        double off = part[0] > part[1] ? part[0] - part[1] : part[1] - part[0];
        worst = off > worst ? off : worst;
    }
    return worst;
}

static int by_length(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* How long it waited for the card when it had work again: in the given percent of these waits, at most. */
static double waited_ms(int tenant, int percent)
{
    struct rig_wait *w = &rig.wait[tenant];
    qsort(w->ns, (size_t)w->n, sizeof *w->ns, by_length);
    return w->n ? (double)w->ns[(w->n - 1) * percent / 100] / 1e6 : 0;
}

/* Percent of what it had on the card on which it had least: what it has elsewhere since nobody else wants it is no turn. */
static double overlap_of(uint32_t gang)
{
    uint64_t least = UINT64_MAX;
    for (int k = 0; k < n_rigs; k++)
        if (overlap[gang].held[k] && overlap[gang].held[k] < least)
            least = overlap[gang].held[k];
    return gang && least != UINT64_MAX ? 100 * (double)overlap[gang].at_once / (double)least : 0;
}

static void report(void)
{
    double wall = (double)(sv_now(rig.world) - marked);
    struct ac_card_usage card;
    for (int i = 0; i < RIG_TENANTS; i++) {
        struct sv_figures is;
        struct ac_usage u;
        if (!rig.program[i])
            continue;
        sv_figures(rig.program[i], &is);
        ac_usage(rig.card, i, &u);
        printf("tenant %d held %.4f work %.4f counted %.4f worst %.4f p50_ms %.3f p99_ms %.3f max_ms %.3f answers %llu "
               "waits %d wait50_ms %.3f wait99_ms %.3f overlap %.3f turns %llu stops %llu hostile %llu frozen %d rescued %llu\n", i,
               100 * (double)(is.held_ns - was[here][i].held_ns) / wall, 100 * (double)(is.work_ns - was[here][i].work_ns) / wall,
               100 * (double)(u.held_ns - usage_was[here][i].held_ns) / wall, worst_second(i), (double)is.p50_ns / 1e6,
               (double)is.p99_ns / 1e6, (double)is.max_ns / 1e6, (unsigned long long)is.n_requests, rig.wait[i].n,
               waited_ms(i, 50), waited_ms(i, 99), overlap_of(rig.gang[i]),
               (unsigned long long)(u.n_turns - usage_was[here][i].n_turns),
               (unsigned long long)(u.n_stops - usage_was[here][i].n_stops), (unsigned long long)u.hostile,
               rig.backend == FX_BACKEND_HWSLICE && u.frozen, (unsigned long long)u.rescued);
    }
    ac_card_usage(rig.card, &card);
    uint64_t n_calls[AC_N_KINDS], ns[AC_N_KINDS], all = 0;
    calls_of_all(n_calls, ns);
    for (int k = 0; k < AC_N_KINDS; k++)
        all += ns[k] - ns_was[k];
    printf("card control %.4f outside_ms %.3f lost %llu failed %llu", 100 * (double)all / wall,
           (double)card.outside_ns / 1e6, (unsigned long long)card.log_dropped, (unsigned long long)card.n_failed);
    for (int k = 0; k < AC_N_KINDS; k++)
        if (kinds[k])
            printf(" %s %.2f %s_pct %.4f", kinds[k], 1e9 * (double)(n_calls[k] - calls_was[k]) / wall, kinds[k],
                   100 * (double)(ns[k] - ns_was[k]) / wall);
    printf("\n");
}

static void begin(int i, struct sv_program *program)
{
    rig.program[i] = program;
    rig.dead[i] = false;
    ac_process_put(rig.card, i, RIG_PID(&rig, i)); /* its groups are found by the log */
    rig_obey(&rig, i);
}

static void kill_program(int i)
{
    sv_kill(rig.program[i]);
    rig.dead[i] = true;
    ac_process_gone(rig.card, RIG_PID(&rig, i));
}

/* The driver refuses the next calls of a kind. */
static bool refuse(const char *word)
{
    static const char *const controls[] = {[SM_SET_TIMESLICE] = "set", [SM_STOP] = "stop", [SM_RESUME] = "resume",
                                           [SM_PREEMPT] = "preempt", [SM_FLUSH] = "flush"};
    char kind[16];
    unsigned n = 0;
    if (sscanf(word, "refuse:%15[a-z]:%u", kind, &n) != 2)
        return false;
    for (size_t k = 0; k < sizeof controls / sizeof *controls; k++)
        if (!strcmp(kind, controls[k])) {
            sm_inject_control_error(sv_model(rig.world), (enum sm_control_kind)k, n, -EIO);
            return true;
        }
    return false;
}

static bool carry_out(const char *word)
{
    if (!strncmp(word, "refuse:", 7))
        return refuse(word);
    unsigned i = 0, a = 0, b = 0, c = 0;
    char name[16];
    if (sscanf(word, "%15[a-z]:%u:%u:%u:%u", name, &i, &a, &b, &c) < 1)
        return false;
    bool numbered = strcmp(name, "run") && strcmp(name, "outside") && strcmp(name, "fail") && strcmp(name, "lose") &&
                    strcmp(name, "card") && strcmp(name, "xid") && strcmp(name, "late") && strcmp(name, "leap") &&
                    strcmp(name, "cardleap") && strcmp(name, "cardback") && strcmp(name, "slow");
    if (numbered && i >= RIG_TENANTS)
        return false;
    int t = (int)i;
    uint32_t pid = RIG_PID(&rig, i), contexts[1] = {numbered && rig.program[t] ? sv_context(rig.program[t]) : 0};
    if (!strcmp(name, "card") && (int)i < n_rigs)
        here = t;
    else if (!strcmp(name, "flood"))
        begin(t, sv_flood(rig.world, here, pid, a * 1000ull, b ? b : 64));
    else if (!strcmp(name, "step"))
        begin(t, sv_step(rig.world, here, pid, a * 1000ull, b * 1000ull));
    else if (!strcmp(name, "rank"))
        begin(t, sv_rank(rig.world, here, pid, a * 1000ull, b * 1000ull));
    else if (!strcmp(name, "meet") && (int)a < n_rigs && b < RIG_TENANTS && rig.program[t] && rigs[a].program[b])
        sv_meet(rig.program[t], rigs[a].program[b]);
    else if (!strcmp(name, "pair") && rig.program[t])
        sv_rank_beside(rig.program[t]);
    else if (!strcmp(name, "gang") && a < RIG_GANGS)
        ac_tenant_gang(rig.card, t, rig.gang[t] = a);
    else if (!strcmp(name, "apart"))
        apart = true;
    else if (!strcmp(name, "overlap"))
        tells_overlap = true;
    else if (!strcmp(name, "burst"))
        begin(t, sv_burst(rig.world, here, pid, a * 1000ull, b, c * 1000ull));
    else if (!strcmp(name, "latency"))
        begin(t, sv_latency(rig.world, here, pid, a * 1000ull, b * 1000ull));
    else if (!strcmp(name, "beside"))
        sv_flood_beside(rig.program[t], a * 1000ull, 64);
    else if (!strcmp(name, "outside"))
        sv_flood(rig.world, here, 9999, i * 1000ull, 64);
    else if (!strcmp(name, "put"))
        ac_tenant_put(rig.card, t, a, b, (enum fx_class)c, rig_now(&rig));
    else if (!strcmp(name, "borrows"))
        ac_tenant_borrows(rig.card, t, a);
    else if (!strcmp(name, "gone"))
        ac_tenant_gone(rig.card, t);
    else if (!strcmp(name, "suspend") || !strcmp(name, "resume"))
        ac_tenant_suspend(rig.card, t, name[0] == 's');
    else if (!strcmp(name, "pause") || !strcmp(name, "go")) {
        rig.idle[t] = name[0] == 'p';
        rig_obey(&rig, t);
    } else if (!strcmp(name, "asks")) {
        struct sm_group_figures g;
        rig.idle[t] = false;
        if (sm_group_figures(sv_model(rig.world), contexts[0], &g) == 0 && !g.has_work)
            rig.wait[t].asked_at = sv_now(rig.world);
        rig.wait[t].held = rig_held(&rig, t);
        rig_obey(&rig, t);
    } else if (!strcmp(name, "kill"))
        kill_program(t);
    else if (!strcmp(name, "fault") && rig.program[t])
        sv_fault(rig.program[t]);
    else if (!strcmp(name, "ending")) {
        sv_kill(rig.program[t]);
        rig.dead[t] = rig.ending[t] = true;
    } else if (!strcmp(name, "freeze"))
        rig.frozen[t] = true;
    else if (!strcmp(name, "fail"))
        rig.fail_every = i;
    else if (!strcmp(name, "slow"))
        sm_inject_slow_control(sv_model(rig.world), i);
    else if (!strcmp(name, "lose"))
        sm_inject_log_loss(sv_model(rig.world), here, i);
    else if (!strcmp(name, "xid"))
        sm_card_fail(sv_model(rig.world), here, i);
    else if (!strcmp(name, "recover"))
        sm_card_recover(sv_model(rig.world), here);
    else if (!strcmp(name, "leap"))
        rig.ahead_ns += i * MS;
    else if (!strcmp(name, "cardleap") || !strcmp(name, "cardback")) {
        rig.card_ahead_ns += (name[4] == 'l' ? 1 : -1) * (int64_t)(i * MS);
        rig.card_leapt_at = sv_now(rig.world);
    } else if (!strcmp(name, "lock"))
        sm_park_lock(sm_process_by_pid(sv_model(rig.world), pid));
    else if (!strcmp(name, "unlock"))
        sm_park_unlock(sm_process_by_pid(sv_model(rig.world), pid));
    else if (!strcmp(name, "late"))
        rig.late_ns = i * MS;
    else if (!strcmp(name, "signals"))
        rig.by_signal = true;
    else if (!strcmp(name, "shuffle"))
        rig.shuffle = true;
    else if (!strcmp(name, "undo")) {
        if (!rig.frozen[t])
            cc_virtual.stop(rig.cc, contexts, 1, 0);
    }
    else if (!strcmp(name, "grow"))
        rig.grown[t] = true;
    else if (!strcmp(name, "bar"))
        cc_virtual.stop(rig.cc, contexts, 1, 1);
    else if (!strcmp(name, "meddle") && a < RIG_TENANTS)
        rig.meddler = (struct rig_meddler){.by = t, .whom = (int)a, .every_ns = b * MS};
    else if (!strcmp(name, "widen"))
        cc_virtual.set_timeslice(rig.cc, contexts[0], a);
    else if (!strcmp(name, "watch")) {
        uint32_t us = 0;
        if (!cc_virtual.get_timeslice(rig.cc, contexts[0], &us))
            ac_timeslice_seen(rig.card, contexts[0], us);
    } else if (!strcmp(name, "run"))
        rig_run(rigs, n_rigs, i * MS, !apart, tells_overlap ? overlap : NULL);
    else if (!strcmp(name, "mark"))
        mark();
    else if (!strcmp(name, "report"))
        report();
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    enum fx_backend backend = argc > 1 && !strcmp(argv[1], "backend:lease")  ? FX_BACKEND_LEASE
                              : argc > 1 && !strcmp(argv[1], "backend:none") ? FX_BACKEND_NONE
                                                                             : FX_BACKEND_HWSLICE;
    int first = 2;
    n_rigs = 1;
    if (argc > 2 && sscanf(argv[2], "cards:%d", &n_rigs) == 1)
        first = 3;
    char cards[16];
    snprintf(cards, sizeof cards, "h200:%d", n_rigs);
    struct sv_world *world = sv_world_new(cards);
    if (!world || n_rigs < 1 || n_rigs > SM_MAX_CARDS)
        return 2;
    for (int i = 0; i < n_rigs; i++)
        rig_begin(&rigs[i], world, i, backend);
    mark();
    for (int i = first; i < argc; i++)
        if (!carry_out(argv[i])) {
            fprintf(stderr, "scenario: %s is not a step\n", argv[i]);
            return 2;
        }
    for (int i = 0; i < n_rigs; i++)
        rig_end(&rigs[i]);
    sv_world_free(world);
    return 0;
}
