/* SPDX-License-Identifier: Apache-2.0
 * One card, its tenants and the core under a virtual clock, by a script of words:
 *
 *   backend:hwslice|lease  (first)
 *   flood:I:KERNEL_US:DEPTH  step:I:KERNEL_US:HOST_US  burst:I:KERNEL_US:N:HOST_US  latency:I:KERNEL_US:PERIOD_US
 *   beside:I:KERNEL_US (a second context of tenant I's process)  outside:KERNEL_US (a program that is nobody's)
 *   put:I:REQUEST:LIMIT:CLASS  gone:I  suspend:I  resume:I  pause:I  go:I  kill:I  freeze:I (lease: drains never)
 *   fail:N (every N-th call is refused; 0 = none)  lose:N (records of the log)  shuffle  undo:I (resumes itself)
 *   widen:I:US (sets its own time slice)  watch:I (the card is asked for it)
 *   run:MS  mark  report (what happened since the mark, a line a tenant)
 */
#include "rig.h"

static struct rig rig;
static struct sv_figures was[RIG_TENANTS];
static struct ac_usage usage_was[RIG_TENANTS];
static uint64_t marked, control_was;

static void mark(void)
{
    for (int i = 0; i < RIG_TENANTS; i++)
        if (rig.program[i]) {
            sv_figures(rig.program[i], &was[i]);
            ac_usage(rig.card, i, &usage_was[i]);
            sv_forget_latencies(rig.program[i]);
        }
    marked = sv_now(rig.world);
    control_was = rig.control_ns;
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
        printf("tenant %d held %.4f work %.4f counted %.4f p50_ms %.3f p99_ms %.3f turns %llu stops %llu hostile %llu\n", i,
               100 * (double)(is.held_ns - was[i].held_ns) / wall, 100 * (double)(is.work_ns - was[i].work_ns) / wall,
               100 * (double)(u.held_ns - usage_was[i].held_ns) / wall, (double)is.p50_ns / 1e6, (double)is.p99_ns / 1e6,
               (unsigned long long)(u.n_turns - usage_was[i].n_turns), (unsigned long long)(u.n_stops - usage_was[i].n_stops),
               (unsigned long long)u.hostile);
    }
    ac_card_usage(rig.card, &card);
    printf("card control %.4f outside_ms %.3f lost %llu failed %llu\n",
           100 * (double)(rig.control_ns - control_was) / wall, (double)card.outside_ns / 1e6,
           (unsigned long long)card.log_dropped, (unsigned long long)card.n_failed);
}

static void begin(int i, struct sv_program *program)
{
    rig.program[i] = program;
    rig.dead[i] = false;
    ac_process_put(rig.card, i, 100 + (uint32_t)i); /* its groups are found by the log */
    rig_obey(&rig, i);
}

static void kill_program(int i)
{
    sv_kill(rig.program[i]);
    rig.dead[i] = true;
    ac_process_gone(rig.card, 100 + (uint32_t)i);
}

static bool carry_out(const char *word)
{
    unsigned i = 0, a = 0, b = 0, c = 0;
    char name[16];
    if (sscanf(word, "%15[a-z]:%u:%u:%u:%u", name, &i, &a, &b, &c) < 1)
        return false;
    bool numbered = strcmp(name, "run") && strcmp(name, "outside") && strcmp(name, "fail") && strcmp(name, "lose");
    if (numbered && i >= RIG_TENANTS)
        return false;
    int t = (int)i;
    uint32_t pid = 100 + i, contexts[1] = {numbered && rig.program[t] ? sv_context(rig.program[t]) : 0};
    if (!strcmp(name, "flood"))
        begin(t, sv_flood(rig.world, 0, pid, a * 1000ull, b ? b : 64));
    else if (!strcmp(name, "step"))
        begin(t, sv_step(rig.world, 0, pid, a * 1000ull, b * 1000ull));
    else if (!strcmp(name, "burst"))
        begin(t, sv_burst(rig.world, 0, pid, a * 1000ull, b, c * 1000ull));
    else if (!strcmp(name, "latency"))
        begin(t, sv_latency(rig.world, 0, pid, a * 1000ull, b * 1000ull));
    else if (!strcmp(name, "beside"))
        sv_flood_beside(rig.program[t], a * 1000ull, 64);
    else if (!strcmp(name, "outside"))
        sv_flood(rig.world, 0, 999, i * 1000ull, 64);
    else if (!strcmp(name, "put"))
        ac_tenant_put(rig.card, t, a, b, (enum fx_class)c, sv_now(rig.world));
    else if (!strcmp(name, "gone"))
        ac_tenant_gone(rig.card, t);
    else if (!strcmp(name, "suspend") || !strcmp(name, "resume"))
        ac_tenant_suspend(rig.card, t, name[0] == 's');
    else if (!strcmp(name, "pause") || !strcmp(name, "go")) {
        rig.idle[t] = name[0] == 'p';
        rig_obey(&rig, t);
    } else if (!strcmp(name, "kill"))
        kill_program(t);
    else if (!strcmp(name, "freeze"))
        rig.frozen[t] = true;
    else if (!strcmp(name, "fail"))
        rig.fail_every = i;
    else if (!strcmp(name, "lose"))
        sm_inject_log_loss(sv_model(rig.world), 0, i);
    else if (!strcmp(name, "shuffle"))
        rig.shuffle = true;
    else if (!strcmp(name, "undo"))
        cc_virtual.stop(rig.cc, contexts, 1, 0);
    else if (!strcmp(name, "widen"))
        cc_virtual.set_timeslice(rig.cc, contexts[0], a);
    else if (!strcmp(name, "watch")) {
        uint32_t us = 0;
        if (!cc_virtual.get_timeslice(rig.cc, contexts[0], &us))
            ac_timeslice_seen(rig.card, contexts[0], us);
    } else if (!strcmp(name, "run"))
        rig_run(&rig, i * MS);
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
    bool lease = argc > 1 && !strcmp(argv[1], "backend:lease");
    rig_begin(&rig, lease ? FX_BACKEND_LEASE : FX_BACKEND_HWSLICE);
    mark();
    for (int i = 2; i < argc; i++)
        if (!carry_out(argv[i])) {
            fprintf(stderr, "scenario: %s is not a step\n", argv[i]);
            return 2;
        }
    rig_end(&rig);
    return 0;
}
