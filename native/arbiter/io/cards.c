/* SPDX-License-Identifier: Apache-2.0
 * Cards: opened, tested, given to a core with the best backend that works, and stepped.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "arbiter.h"

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

/* Resume all that is stopped, and forget what the backend knew. */
void card_let_go(struct arbiter *a, int at, const char *reason)
{
    struct io_card *card = &a->card[at];
    if (!card->core)
        return;
    uint32_t handles[MAX_HANDLES];
    int n = ac_stopped(card->core, AC_OUTSIDE, handles, MAX_HANDLES);
    if (card->ops && n)
        card_resume(a, at, handles, n);
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
    card_tell_calls(card);
    say("card %s: let go: %s", card->uuid, reason);
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

int card_discover(struct arbiter *a, int at, int tenant, uint32_t pid)
{
    struct io_card *card = &a->card[at];
    struct cc_group found[64];
    int number = number_of(card, tenant);
    if (!card->ops || !card->core || number < 0)
        return 0;
    ac_process_put(card->core, number, pid);
    uint64_t began = now_ns();
    int n = card->ops->discover(card->cc, pid, found, 64);
    uint64_t took = now_ns() - began;
    card_count_call(card, AC_DISCOVER, took);
    for (int i = 0; i < n; i++) {
        remember(card, &found[i]);
        if (!ac_group_put(card->core, number, &found[i]))
            continue;
        timeline_found(a, at, tenant, &found[i], now_ns());
        say("card %s: process %u of %s: a group of %u channels, found in %llu us", card->uuid, pid, a->tenant[tenant].id,
            found[i].n_channels, (unsigned long long)(took / 1000));
    }
    return n;
}

/* Its channels stay on the card until the driver has taken all down that it had, which takes tens of milliseconds. Others
 * need not wait for that: what is dying does not go on. */
void card_process_dying(struct arbiter *a, int at, uint32_t pid)
{
    struct io_card *card = &a->card[at];
    uint32_t handles[MAX_HANDLES];
    int n = 0;
    for (int i = 0; i < card->n_known; i++)
        if (card->known[i].pid == pid)
            handles[n++] = card->known[i].handle;
    if (!card->ops || !n)
        return;
    uint64_t began = now_ns();
    card->ops->stop(card->cc, handles, n, CC_STOP_DYING);
    card_count_call(card, AC_STOP, now_ns() - began);
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
    int result = card_carry_out(a, at, &action);
    uint64_t ended = now_ns();
    if (action.kind < AC_DISCOVER || action.kind == AC_CHECK) {
        card_count_call(card, action.kind, ended - began);
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
