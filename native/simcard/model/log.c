/* SPDX-License-Identifier: Apache-2.0
 * The context-switch log: each reader has its own ring, keeps the oldest and counts what did not fit.
 */
#include <errno.h>
#include <stdlib.h>
#include "model.h"

struct sm_log {
    struct sm_log *next;
    struct sm_card *card;
    uint64_t head, tail, dropped;
    uint32_t size;
    struct cc_log_record record[];
};

int sm_log_open(struct sm_model *m, int card, struct sm_log **log)
{
    if (card < 0 || card >= m->n_cards)
        return -ENODEV;
    struct sm_card *c = &m->cards[card];
    uint32_t size = c->spec->n_log_records;
    struct sm_log *l = calloc(1, sizeof *l + size * sizeof l->record[0]);
    if (!l)
        return -ENOMEM;
    l->size = size;
    l->card = c;
    l->next = c->logs;
    c->logs = l;
    *log = l;
    return 0;
}

void sm_log_close(struct sm_log *log)
{
    for (struct sm_log **at = &log->card->logs; *at; at = &(*at)->next)
        if (*at == log) {
            *at = log->next;
            break;
        }
    free(log);
}

int sm_log_read(struct sm_log *log, struct cc_log_record *records, int max, uint64_t *dropped)
{
    int n = 0;
    while (n < max && log->tail < log->head)
        records[n++] = log->record[log->tail++ % log->size];
    *dropped = log->dropped;
    log->dropped = 0;
    return n;
}

void sm_log_put(struct sm_card *c, const struct sm_group *g, enum cc_log_kind kind, bool lost)
{
    if (c->n_log_losses > 0) {
        c->n_log_losses--;
        for (struct sm_log *l = c->logs; l; l = l->next)
            l->dropped++;
        return;
    }
    for (struct sm_log *l = c->logs; l; l = l->next) {
        if (l->head - l->tail >= l->size) {
            l->dropped++;
            continue;
        }
        l->record[l->head++ % l->size] = (struct cc_log_record){.ts_ns = c->model->now,
                                                                .pid = lost ? SM_LOST_PID : g->process->pid,
                                                                .context = g->context,
                                                                .kind = (uint8_t)kind};
    }
}
