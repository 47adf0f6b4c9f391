/* SPDX-License-Identifier: Apache-2.0
 * Cards: opened, tested, given to a core with the best backend that works, and its actions carried out.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "arbiter.h"

#define MAX_RECORDS 2048
#define MAX_ACTIONS 64        /* of each card in one round of work */
#define FAILURES_TO_LEAVE 12
#define RETRY_NS (5000 * MS)

static int number_of(const struct io_card *card, int tenant)
{
    for (int i = 0; i < AC_MAX_TENANTS; i++)
        if (card->tenant[i] == tenant)
            return i;
    return -1;
}

static void use(struct arbiter *a, int at, uint32_t backend, const char *note)
{
    struct io_card *card = &a->card[at];
    card->backend = backend;
    card->core = ac_new(NULL, (enum fx_backend)backend, now_ns());
    card->turn_of = -1;
    snprintf(card->note, sizeof card->note, "%s", note);
    for (int i = 0; i < AC_MAX_TENANTS; i++)
        card->tenant[i] = -1;
    for (int i = 0; i < FX_MAX_TENANTS; i++)
        if (a->tenant[i].id[0])
            tenant_attach(a, i, at);
    say("card %s: backend %s%s%s", card->uuid, backend == FX_BACKEND_HWSLICE ? "hwslice" : "lease", note[0] ? ": " : "", note);
}

static void card_open(struct arbiter *a, int at)
{
    struct io_card *card = &a->card[at];
    struct cc_capabilities caps = {0};
    char why[128] = "";
    card->open_at = 0;
    card->n_failed = 0;
    memset(card->calls, 0, sizeof card->calls);
    if (card->preferred == FX_BACKEND_LEASE) {
        use(a, at, FX_BACKEND_LEASE, "asked for");
        return;
    }
    if (!a->ops)
        snprintf(why, sizeof why, "built without hardware control");
    else if (a->ops->open(&card->cc, card->uuid, why, sizeof why) < 0)
        card->open_at = now_ns() + RETRY_NS;
    else if (a->ops->self_test(card->cc, &caps) < 0 || !(caps.timeslice && caps.stop && caps.log && caps.discover)) {
        snprintf(why, sizeof why, "%.120s", caps.note[0] ? caps.note : "the self-test failed");
        a->ops->close(card->cc);
    } else {
        card->ops = a->ops;
        journal_resume(a->journal, a->ops, card->uuid); /* of an earlier time, when the card could not be asked */
    }
    if (card->ops)
        use(a, at, FX_BACKEND_HWSLICE, "");
    else if (!card->core)
        use(a, at, FX_BACKEND_LEASE, why);
}

int card_named(struct arbiter *a, const char *uuid, uint32_t preferred, bool put)
{
    int free = -1;
    for (int i = FX_MAX_DEVICES - 1; i >= 0; i--) {
        struct io_card *card = &a->card[i];
        if (!card->uuid[0]) {
            free = i;
        } else if (!strcmp(card->uuid, uuid)) {
            if (put && card->preferred != preferred) {
                card_let_go(a, i, "another backend is asked for");
                card->preferred = preferred;
                card_open(a, i);
            }
            return i;
        }
    }
    if (free < 0 || !uuid[0])
        return -1;
    struct io_card *card = &a->card[free];
    memset(card, 0, sizeof *card);
    snprintf(card->uuid, sizeof card->uuid, "%s", uuid);
    card->preferred = preferred;
    usage_base_card(card);
    card_open(a, free);
    return free;
}

static void count_call(struct io_card *card, enum ac_kind kind, uint64_t ns)
{
    card->control_ns += ns;
    card->n_control++;
    card->calls[kind].n++;
    card->calls[kind].ns += ns;
    card->calls[kind].most_ns = ns > card->calls[kind].most_ns ? ns : card->calls[kind].most_ns;
}

/* What control cost here: the driver's locks were held for so long. */
static void tell_calls(const struct io_card *card)
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

/* Resume all that is stopped, and forget what the backend knew. */
void card_let_go(struct arbiter *a, int at, const char *reason)
{
    struct io_card *card = &a->card[at];
    if (!card->core)
        return;
    uint32_t handles[MAX_HANDLES];
    int n = ac_stopped(card->core, AC_OUTSIDE, handles, MAX_HANDLES);
    if (card->ops) {
        int result = n ? card->ops->stop(card->cc, handles, n, 0) : 0;
        timeline_stops(a, at, handles, result < 0 ? 0 : n, false, now_ns());
        for (int i = 0; i < n && result >= 0; i++)
            journal_remove(a->journal, card->uuid, handles[i]);
    }
    for (int i = 0; i < FX_MAX_TENANTS; i++)
        if (a->tenant[i].id[0])
            tenant_detach(a, i, at);
    if (card->ops)
        card->ops->close(card->cc); /* last: detaching a tenant still lets go of its groups */
    usage_keep_card(card);
    ac_free(card->core);
    card->core = NULL;
    card->ops = NULL;
    card->cc = NULL;
    card->n_known = 0;
    tell_calls(card);
    say("card %s: let go: %s", card->uuid, reason);
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

void cards_close(struct arbiter *a)
{
    for (int i = 0; i < FX_MAX_DEVICES; i++)
        card_let_go(a, i, "the arbiter ends");
}

static void remember(struct io_card *card, const struct cc_group *group)
{
    for (int i = 0; i < card->n_known; i++)
        if (card->known[i].handle == group->handle) {
            card->known[i] = *group;
            return;
        }
    if (card->n_known < MAX_HANDLES)
        card->known[card->n_known++] = *group;
}

void card_discover(struct arbiter *a, int at, int tenant, uint32_t pid)
{
    struct io_card *card = &a->card[at];
    struct cc_group found[64];
    int number = number_of(card, tenant);
    if (!card->ops || !card->core || number < 0)
        return;
    ac_process_put(card->core, number, pid);
    uint64_t began = now_ns();
    int n = card->ops->discover(card->cc, pid, found, 64);
    uint64_t took = now_ns() - began;
    count_call(card, AC_DISCOVER, took);
    for (int i = 0; i < n; i++) {
        remember(card, &found[i]);
        if (!ac_group_put(card->core, number, &found[i]))
            continue;
        timeline_found(a, at, tenant, &found[i], now_ns());
        say("card %s: process %u of %s: a group of %u channels, found in %llu us", card->uuid, pid, a->tenant[tenant].id,
            found[i].n_channels, (unsigned long long)(took / 1000));
    }
}

void card_process_gone(struct arbiter *a, int at, uint32_t pid)
{
    struct io_card *card = &a->card[at];
    if (!card->core)
        return;
    ac_process_gone(card->core, pid);
    for (int i = 0; i < card->n_known; i++)
        if (card->known[i].pid == pid) {
            journal_remove(a->journal, card->uuid, card->known[i].handle);
            timeline_stops(a, at, &card->known[i].handle, 1, false, now_ns()); /* what is gone is not stopped */
            if (card->ops)
                card->ops->forget(card->cc, card->known[i].handle);
            card->known[i--] = card->known[--card->n_known];
        }
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

static int resume(struct arbiter *a, int at, const struct ac_action *action)
{
    struct io_card *card = &a->card[at];
    int result = card->ops->stop(card->cc, action->handles, action->n, 0);
    timeline_stops(a, at, action->handles, result < 0 ? 0 : action->n, false, now_ns());
    for (int i = 0; i < action->n && result >= 0; i++)
        journal_remove(a->journal, card->uuid, action->handles[i]);
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
    uint64_t dropped = 0, card_now = 0;
    int n = card->ops->read_log(card->cc, records, MAX_RECORDS, &dropped, &card_now);
    uint64_t now = now_ns();
    cards_rescued(a); /* what the guardian resumed was not resumed by its tenant */
    for (int i = 0; i < n; i++)
        if (records[i].kind == CC_LOG_START && !ac_process_known(card->core, records[i].pid))
            discover(a, at, records[i].pid, false);
    if (n >= 0) {
        ac_log(card->core, records, n, dropped, card_now, now);
        timeline_log(a, at, records, n, dropped, card_now, now);
    }
    return n;
}

static int carry_out(struct arbiter *a, int at, const struct ac_action *action)
{
    struct io_card *card = &a->card[at];
    switch (action->kind) {
    case AC_READ_LOG:
        return read_log(a, at);
    case AC_STOP:
        return stop(a, at, action);
    case AC_RESUME:
        return resume(a, at, action);
    case AC_TIMESLICE:
        return slice(a, at, action->handles[0], action->value);
    case AC_PREEMPT:
        return card->ops->preempt(card->cc, action->handles[0]);
    case AC_CHECK:
        return check(a, at, action->handles[0]);
    case AC_FREEZE:
        if (card->tenant[action->tenant] < 0)
            return 0;
        say("card %s: %s %s", card->uuid, a->tenant[card->tenant[action->tenant]].id,
            action->value ? "undoes its stops: frozen while it is stopped" : "goes on");
        processes_freeze(a, card->tenant[action->tenant], action->value != 0);
        return 0;
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

static void tell_turn(struct arbiter *a, int at, uint64_t now)
{
    struct io_card *card = &a->card[at];
    int number = ac_turn_of(card->core), tenant = number < 0 ? -1 : card->tenant[number];
    if (tenant != card->turn_of)
        timeline_turn(a, at, tenant, now);
    card->turn_of = tenant;
}

/* One action. False: there is nothing to be done now. */
static bool card_act(struct arbiter *a, int at)
{
    struct io_card *card = &a->card[at];
    struct ac_action action;
    if (!card->core || !ac_step(card->core, now_ns(), &action))
        return false;
    uint64_t began = now_ns();
    int result = carry_out(a, at, &action);
    uint64_t ended = now_ns();
    if (action.kind < AC_DISCOVER || action.kind == AC_CHECK) {
        count_call(card, action.kind, ended - began);
        if (result != -ESRCH) /* its process is ending: that says nothing of control */
            card->n_failed = result < 0 ? card->n_failed + 1 : 0;
    }
    ac_done(card->core, &action, result, ended);
    tell_turn(a, at, ended);
    __atomic_store_n(&a->journal->heartbeat_ns, ended, __ATOMIC_SEQ_CST);
    if (card->n_failed >= FAILURES_TO_LEAVE) {
        char why[128];
        snprintf(why, sizeof why, "control failed %d times in a row: %s", card->n_failed, strerror(-result));
        card_let_go(a, at, why);
        card->n_failed = 0;
        card->open_at = ended + RETRY_NS;
        use(a, at, FX_BACKEND_LEASE, why);
    }
    return true;
}

/* One action of each card at a time: no card waits for all of another's, and turns that begin together begin close together. */
static void cards_act(struct arbiter *a)
{
    bool any = true;
    for (int i = 0; i < MAX_ACTIONS && any; i++) {
        any = false;
        for (int k = 0; k < FX_MAX_DEVICES; k++)
            any |= card_act(a, k);
    }
}

static bool align(struct arbiter *a)
{
    struct ac_card *cards[FX_MAX_DEVICES];
    for (int i = 0; i < FX_MAX_DEVICES; i++)
        cards[i] = a->card[i].backend == FX_BACKEND_HWSLICE ? a->card[i].core : NULL;
    return ac_align(cards, FX_MAX_DEVICES, now_ns());
}

/* What is published shall be of now. */
void cards_look(struct arbiter *a)
{
    for (int i = 0; i < FX_MAX_DEVICES; i++)
        if (a->card[i].core && a->card[i].backend == FX_BACKEND_HWSLICE)
            ac_look(a->card[i].core);
    cards_act(a);
}

/* Control calls take locks of the whole machine, and all cards take theirs through us: they share one budget. */
static void share_the_lock(struct arbiter *a)
{
    uint32_t n = 0;
    for (int i = 0; i < FX_MAX_DEVICES; i++)
        n += a->card[i].core && a->card[i].backend == FX_BACKEND_HWSLICE && ac_contended(a->card[i].core);
    for (int i = 0; i < FX_MAX_DEVICES; i++)
        if (a->card[i].core)
            ac_budget(a->card[i].core, ac_default_settings.budget_ppm / (n ? n : 1));
}

void cards_step(struct arbiter *a)
{
    uint64_t now = now_ns();
    share_the_lock(a);
    for (int i = 0; i < FX_MAX_DEVICES; i++) {
        struct io_card *card = &a->card[i];
        if (card->open_at && now >= card->open_at) {
            struct cc_capabilities caps;
            void *cc = NULL;
            char why[128];
            bool works = a->ops->open(&cc, card->uuid, why, sizeof why) >= 0;
            bool passes = works && a->ops->self_test(cc, &caps) >= 0;
            if (works)
                a->ops->close(cc);
            card->open_at = now + RETRY_NS;
            if (passes) {
                card_let_go(a, i, "its control works again");
                card_open(a, i);
            }
        }
    }
    align(a);
    cards_act(a);
    if (align(a))
        cards_act(a);
}

uint64_t cards_wake(struct arbiter *a, uint64_t now)
{
    uint64_t wake = AC_NEVER;
    for (int i = 0; i < FX_MAX_DEVICES; i++) {
        const struct io_card *card = &a->card[i];
        uint64_t at = card->core ? ac_next_wake(card->core, now) : AC_NEVER;
        if (card->open_at && card->open_at < at)
            at = card->open_at;
        wake = at < wake ? at : wake;
    }
    return wake;
}

void cards_rescued(struct arbiter *a)
{
    uint32_t rescues = __atomic_load_n(&a->journal->rescues, __ATOMIC_SEQ_CST);
    if (rescues == a->rescues)
        return;
    a->rescues = rescues;
    say("the guardian took us for dead and resumed everything");
    timeline_began(a, now_ns());
    for (int i = 0; i < FX_MAX_DEVICES; i++)
        if (a->card[i].core) {
            ac_all_resumed(a->card[i].core, now_ns());
            a->card[i].turn_of = -1;
        }
}
