/* SPDX-License-Identifier: Apache-2.0
 * What a core decides, carried out on its card, and what that costs. A stop is written down before it is made.
 */
#include <errno.h>
#include <stdio.h>
#include "arbiter.h"

#define MAX_RECORDS 2048

void card_count_call(struct io_card *card, enum ac_kind kind, uint64_t ns)
{
    card->control_ns += ns;
    card->n_control++;
    card->calls[kind].n++;
    card->calls[kind].ns += ns;
    card->calls[kind].most_ns = ns > card->calls[kind].most_ns ? ns : card->calls[kind].most_ns;
}

/* What control cost here: the driver's locks were held for so long. */
void card_tell_calls(const struct io_card *card)
{
    static const char *const names[AC_N_KINDS] = {
        [AC_READ_LOG] = "log", [AC_STOP] = "stop", [AC_RESUME] = "resume", [AC_TIMESLICE] = "time slice",
        [AC_PREEMPT] = "preempt", [AC_CHECK] = "check", [AC_DISCOVER] = "discover",
    };
    char line[400] = "";
    size_t n = 0;
    for (int kind = 0; kind < AC_N_KINDS; kind++)
        if (card->calls[kind].n && n < sizeof line)
            n += (size_t)snprintf(line + n, sizeof line - n, "%s %llu %s of %llu us (longest %llu)", n ? "," : "",
                                  (unsigned long long)card->calls[kind].n, names[kind],
                                  (unsigned long long)(card->calls[kind].ns / card->calls[kind].n / 1000),
                                  (unsigned long long)(card->calls[kind].most_ns / 1000));
    if (n)
        say("card %s: calls:%s", card->uuid, line);
}

static int check(struct arbiter *a, int at, uint32_t handle)
{
    struct io_card *card = &a->card[at];
    uint32_t us = 0;
    int result = card->ops->get_timeslice(card->cc, handle, &us);
    bool differs = result >= 0 && !ac_timeslice_seen(card->core, handle, us);
    for (int i = 0; i < card->n_known && differs; i++)
        if (card->known[i].handle == handle)
            say("card %s: process %u has a time slice of %u us, which we did not set", card->uuid, card->known[i].pid, us);
    return result;
}

static int stop(struct arbiter *a, int at, const struct ac_action *action)
{
    struct io_card *card = &a->card[at];
    uint32_t fresh[AC_MAX_GROUPS];
    int n_fresh = 0;
    for (int i = 0; i < action->n; i++) {
        bool written = false;
        if (!journal_names(a->journal, card->uuid, action->handles[i]))
            fresh[n_fresh++] = action->handles[i];
        for (int k = 0; k < card->n_known && !written; k++)
            if (card->known[k].handle == action->handles[i])
                written = journal_add(a->journal, card->uuid, &card->known[k]);
        if (!written)
            return -ENOSPC; /* what cannot be resumed after our death is not stopped */
    }
    int result = card->ops->stop(card->cc, action->handles, action->n, 1);
    timeline_stops(a, at, action->handles, result < 0 ? 0 : action->n, true, now_ns());
    /* Nothing was stopped by it; what was before, by an earlier one, is still. */
    for (int i = 0; i < n_fresh && result < 0 && action->n <= 8; i++)
        journal_remove(a->journal, card->uuid, fresh[i]);
    return result;
}

int card_resume(struct arbiter *a, int at, const uint32_t *handles, int n)
{
    struct io_card *card = &a->card[at];
    int result = card->ops->stop(card->cc, handles, n, 0);
    timeline_stops(a, at, handles, result < 0 ? 0 : n, false, now_ns());
    for (int i = 0; i < n && result >= 0; i++)
        journal_remove(a->journal, card->uuid, handles[i]);
    return result;
}

static int slice(struct arbiter *a, int at, uint32_t handle, uint32_t us)
{
    struct io_card *card = &a->card[at];
    int result = card->ops->set_timeslice(card->cc, handle, us);
    if (result >= 0)
        timeline_slice(a, at, handle, us, now_ns());
    return result;
}

static void discover(struct arbiter *a, int at, uint32_t pid, bool at_once)
{
    int tenant = process_tenant(a, pid);
    if (tenant < 0) {
        processes_scan(a, now_ns());
        tenant = process_tenant(a, pid);
    }
    if (tenant >= 0)
        process_look(a, at, pid, at_once);
    else
        ac_process_put(a->card[at].core, AC_OUTSIDE, pid);
}

/* Whose a process is, is found out before its time is charged. */
static int read_log(struct arbiter *a, int at)
{
    static struct cc_log_record records[MAX_RECORDS];
    struct io_card *card = &a->card[at];
    uint64_t dropped = 0;
    struct cc_moment told = {0};
    int n = card->ops->read_log(card->cc, records, MAX_RECORDS, &dropped, &told);
    cards_rescued(a); /* what the guardian resumed was not resumed by its tenant */
    for (int i = 0; i < n; i++)
        if (records[i].kind == CC_LOG_START && !ac_process_known(card->core, records[i].pid))
            discover(a, at, records[i].pid, false);
    if (n >= 0) {
        ac_log(card->core, records, n, dropped, told);
        timeline_log(a, at, records, n, dropped, told);
    }
    return n;
}

int card_carry_out(struct arbiter *a, int at, const struct ac_action *action)
{
    struct io_card *card = &a->card[at];
    switch (action->kind) {
    case AC_READ_LOG:
        return read_log(a, at);
    case AC_STOP:
        return stop(a, at, action);
    case AC_RESUME:
        return card_resume(a, at, action->handles, action->n);
    case AC_TIMESLICE:
        return slice(a, at, action->handles[0], action->value);
    case AC_PREEMPT:
        return card->ops->preempt(card->cc, action->handles[0]);
    case AC_CHECK:
        return check(a, at, action->handles[0]);
    case AC_FREEZE: {
        if (card->tenant[action->tenant] < 0)
            return 0;
        const struct io_tenant *t = &a->tenant[card->tenant[action->tenant]];
        processes_freeze(a, card->tenant[action->tenant], action->value != 0);
        bool by_group = t->freezer[0] != 0;
        say("card %s: %s %s", card->uuid, t->id,
            !action->value ? "goes on"
            : by_group     ? "undoes its stops: its group is frozen while it is stopped"
                           : "undoes its stops: frozen by SIGSTOP while it is stopped");
        return action->value && by_group ? 1 : 0;
    }
    case AC_DISCOVER:
        discover(a, at, action->value, action->n != 0);
        return 0;
    case AC_GATE:
        gate_set(a, card, action->tenant, action->value != 0);
        timeline_gate(a, at, card->tenant[action->tenant], action->value != 0, now_ns());
        return 0;
    case AC_WINDOW:
        gate_window(a, card, action->tenant, action->value);
        return 0;
    case AC_N_KINDS:
        break;
    }
    return 0;
}
