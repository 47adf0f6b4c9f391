/* SPDX-License-Identifier: Apache-2.0
 * What each control costs, and the time slices of groups.
 */
#include <stdio.h>
#include <stdlib.h>
#include "probe.h"

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int probe_calls(int rounds)
{
    static uint64_t took[10000];
    static const char *const names[] = {"set_timeslice", "get_timeslice", "preempt", "stop", "resume", "read_log"};
    struct tenant *t = &tenants[0];
    rounds = rounds > 10000 ? 10000 : rounds;
    for (int which = 0; which < 6; which++) {
        int error = 0;
        for (int i = 0; i < rounds && !error; i++) {
            uint32_t us;
            if (which == 4)
                error = nv_stop(card, t->handles, t->n_groups, 1);
            uint64_t began = now();
            switch (which) {
            case 0: error = nv_set_timeslice(card, t->handles[0], 2000); break;
            case 1: error = nv_get_timeslice(card, t->handles[0], &us); break;
            case 2: error = nv_preempt(card, t->handles[0]); break;
            case 3: error = nv_stop(card, t->handles, t->n_groups, 1); break;
            case 4: error = nv_stop(card, t->handles, t->n_groups, 0); break;
            default: error = account(); break;
            }
            took[i] = now() - began;
            if (which == 3)
                nv_stop(card, t->handles, t->n_groups, 0);
            sleep_ns(2000000);
        }
        if (error)
            return explain(names[which], error);
        qsort(took, (size_t)rounds, sizeof *took, by_value);
        printf("{\"call\":\"%s\",\"n\":%d,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n", names[which], rounds,
               (double)took[rounds / 2] / 1e3, (double)took[rounds * 99 / 100] / 1e3, (double)took[rounds - 1] / 1e3);
    }
    return 0;
}

int probe_slices(const char *text)
{
    for (int i = 0; i < n_tenants; i++)
        for (int g = 0; g < tenants[i].n_groups; g++) {
            uint32_t us = 0, asked = text ? (uint32_t)strtoul(text, NULL, 10) : 0;
            int error = asked ? nv_set_timeslice(card, tenants[i].handles[g], asked) : 0;
            if (!error)
                error = nv_get_timeslice(card, tenants[i].handles[g], &us);
            if (error)
                return explain("time slice", error);
            printf("{\"pid\":%u,\"group\":%d,\"timeslice_us\":%u}\n", tenants[i].pid, g, us);
        }
    return 0;
}
