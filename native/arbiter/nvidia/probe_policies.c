/* SPDX-License-Identifier: Apache-2.0
 * The smallest policies over the controls: who had the card, a limit, shares.
 */
#include <errno.h>
#include "probe.h"

int probe_watch(double seconds)
{
    if (begin())
        return 1;
    uint64_t began = now(), end = began + (uint64_t)(seconds * 1e9), card_began = card_now_ns;
    int error = 0;
    while (!error && !ending && now() < end) {
        sleep_ns(20000000);
        error = account();
    }
    print_summary("watch", card_now_ns - card_began);
    return error ? explain("log", error) : 0;
}

/* A tenant's card time held to a part of the clock's: its next window is what it may have by the window's end, less
 * what it has had. */
int probe_limit(double percent, double seconds, double period_ms)
{
    struct tenant *t = &tenants[0];
    if (set_stopped(t, 1) || begin())
        return explain("stop", -EIO);
    uint64_t began = now(), end = began + (uint64_t)(seconds * 1e9), card_began = card_now_ns;
    double period_ns = period_ms * 1e6, part = percent / 100;
    int error = 0;
    while (!error && !ending && now() < end) {
        uint64_t turn = now();
        double elapsed = (double)(card_now_ns - card_began);
        double window = part * (elapsed + period_ns) - (double)t->used_ns;
        window = window < 0 ? 0 : window > period_ns ? period_ns : window;
        if (window > 0) {
            error = set_stopped(t, 0);
            /* A stop takes effect near the call's end: what calls cost has been learnt. */
            sleep_ns((int64_t)(window - mean_call_ns()));
            int failed = set_stopped(t, 1);
            error = error ? error : failed;
        }
        sleep_ns((int64_t)(period_ns - (double)(now() - turn)));
        int failed = account();
        error = error ? error : failed;
    }
    uint64_t wall = card_now_ns - card_began;
    resume_all();
    print_summary("limit", wall);
    return error ? explain("limit", error) : 0;
}

/* One runnable at a time, the next the one with the least card time for its weight; the next is resumed before the last
 * is stopped, so that the card never waits for us. */
int probe_share(double seconds, double turn_ms)
{
    int n = n_tenants;
    for (int i = 0; i < n; i++)
        if (set_stopped(&tenants[i], 1))
            return explain("stop", -EIO);
    if (begin())
        return 1;
    uint64_t began = now(), end = began + (uint64_t)(seconds * 1e9), card_began = card_now_ns;
    struct tenant *current = NULL;
    int error = 0;
    while (!error && !ending && now() < end) {
        struct tenant *next = NULL;
        for (int i = 0; i < n; i++)
            if (!gone(&tenants[i]) &&
                (!next || (double)tenants[i].used_ns / tenants[i].weight < (double)next->used_ns / next->weight))
                next = &tenants[i];
        if (!next)
            break;
        if (next != current) {
            error = set_stopped(next, 0);
            if (!error && current)
                error = set_stopped(current, 1);
            current = next;
        }
        sleep_ns((int64_t)(turn_ms * 1e6));
        int failed = account();
        error = error ? error : failed;
    }
    uint64_t wall = card_now_ns - card_began;
    resume_all();
    print_summary("share", wall);
    return error ? explain("share", error) : 0;
}
