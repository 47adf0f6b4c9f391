/* SPDX-License-Identifier: Apache-2.0
 * How long one who waits for a stream may sleep.
 */
#include "model.h"
#include <stdlib.h>

void sm_unwatch(struct sm_stream *s, uint64_t cookie)
{
    for (struct sm_watch **at = &s->watches; *at;) {
        struct sm_watch *w = *at;
        if (w->cookie != cookie) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        free(w);
    }
}

/* Never later than when `seq` entries are complete: the service that is left cannot take less, whoever else has the card. */
uint64_t sm_watch_earliest(const struct sm_stream *s, uint64_t seq, int depth)
{
    uint64_t now = s->group->card->model->now;
    if (s->tail >= seq || s->phase == SM_ENDED)
        return now;
    if (seq > s->scanned)
        return SM_NEVER; /* not submitted yet: its submission will be told of */
    uint64_t after_head = s->service[(seq - 1) % SM_RING_ENTRIES] - s->service[s->tail % SM_RING_ENTRIES];
    uint64_t from = now, earliest;
    switch (s->phase) {
    case SM_COPYING:
    case SM_ARRIVING:
        return s->at + after_head;
    case SM_HOST:
        return SM_NEVER; /* the producer will tell */
    case SM_READY:
        if (s->head.op == SM_OP_SPIN && s->left_ns)
            return SM_NEVER;
        earliest = sm_engine_earliest(s->group);
        return earliest == SM_NEVER ? SM_NEVER : earliest + s->left_ns + after_head;
    case SM_BLOCKED: {
        const struct sm_stream *other = sm_stream_by_id(s->group->process, s->wait_id);
        if (other && depth > 0)
            from = sm_watch_earliest(other, s->wait_seq, depth - 1);
        else if (other)
            from = sm_next_event(s->group->card->model);
        return from == SM_NEVER ? SM_NEVER : from + after_head;
    }
    case SM_EMPTY:
    case SM_ENDED:
        break;
    }
    return now;
}
