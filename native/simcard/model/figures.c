/* SPDX-License-Identifier: Apache-2.0
 * Figures, exact at the model's time.
 */
#include "model.h"
#include <errno.h>
#include <string.h>

static uint64_t held_now(const struct sm_group *g)
{
    const struct sm_engine *e = &g->card->engine;
    bool resident = e->state == SM_ENGINE_ON && e->group == g;
    return g->held_ns + (resident ? g->card->model->now - e->start_ns : 0);
}

/* Part of the last full second that the engine, or any copy engine, was at work. */
static uint32_t recent_milli(const struct sm_card *c, const uint64_t *bucket)
{
    uint64_t last = c->model->now / SM_BUCKET_NS, sum = 0;
    for (uint64_t at = last > 10 ? last - 10 : 0; at < last; at++)
        if (c->bucket_at[at % SM_N_BUCKETS] == at)
            sum += bucket[at % SM_N_BUCKETS];
    uint64_t milli = sum / (SM_BUCKET_NS / 100);
    return (uint32_t)(milli < 1000 ? milli : 1000);
}

void sm_card_figures(const struct sm_model *m, int card, struct sm_card_figures *f)
{
    const struct sm_card *c = &m->cards[card];
    *f = (struct sm_card_figures){.memory_used_bytes = c->memory_used,
                                  .memory_most_bytes = c->memory_most,
                                  .busy_ns = c->busy_ns,
                                  .n_switches = c->n_switches,
                                  .n_kernels = c->n_kernels,
                                  .control_ns = c->control_ns,
                                  .utilisation_milli = recent_milli(c, c->bucket_busy),
                                  .memory_utilisation_milli = recent_milli(c, c->bucket_copy)};
    memcpy(f->copy_ns, c->copy_ns, sizeof f->copy_ns);
    memcpy(f->copied_bytes, c->copied_bytes, sizeof f->copied_bytes);
}

int sm_card_processes(const struct sm_model *m, int card, struct sm_process_figures *figures, int max)
{
    int n = 0;
    for (const struct sm_process *p = m->processes; p; p = p->next) {
        struct sm_process_figures f = {.pid = p->pid,
                                       .memory_bytes = p->memory_bytes[card],
                                       .held_ns = p->past_held_ns[card],
                                       .work_ns = p->past_work_ns[card],
                                       .n_kernels = p->past_kernels[card]};
        for (const struct sm_group *g = m->cards[card].groups; g; g = g->next)
            if (g->process == p) {
                f.n_groups++;
                f.held_ns += held_now(g);
                f.work_ns += g->work_ns;
                f.n_kernels += g->n_kernels;
            }
        if ((f.n_groups == 0 && f.memory_bytes == 0) || p->park_state == SM_PARKED) /* as on an H200: NVML lists it no more */
            continue;
        if (n < max)
            figures[n] = f;
        n++;
    }
    return n;
}

int sm_group_figures(const struct sm_model *m, uint32_t context, struct sm_group_figures *f)
{
    const struct sm_group *g = sm_group_by_context(m, context);
    if (!g)
        return -ESRCH;
    *f = (struct sm_group_figures){.held_ns = held_now(g),
                                   .work_ns = g->work_ns,
                                   .n_kernels = g->n_kernels,
                                   .timeslice_ns = g->timeslice_ns,
                                   .resident = g->card->engine.state == SM_ENGINE_ON && g->card->engine.group == g,
                                   .stopped = g->stopped,
                                   .has_work = g->ready_first != NULL,
                                   .was_scheduled = g->was_scheduled};
    return 0;
}
