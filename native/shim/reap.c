/* SPDX-License-Identifier: Apache-2.0
 *
 * flexai-reap DIR SLOT:PID:START_TICKS...  Give back what dead processes of a tenant charged; prints how many slots were
 * released. A program of its own, since the tenant may cut the file under it: then this dies, and nobody else.
 */
#include <stdio.h>
#include <unistd.h>

#include "region_core.h"

int main(int n, char **arguments)
{
    struct fx_region region;
    char why[768];
    if (n < 2) {
        fprintf(stderr, "usage: flexai-reap DIR [SLOT:PID:START_TICKS...]\n");
        return 2;
    }
    if (fx_region_open(&region, arguments[1], why, sizeof why) != 0) {
        fprintf(stderr, "flexai-reap: %s\n", why);
        return 1;
    }
    int lock = -1;
    for (int tries = 0; tries < 100 && lock < 0; tries++) {
        lock = fx_reap_lock(arguments[1]);
        if (lock < 0)
            usleep(10000);
    }
    if (lock < 0) {
        fprintf(stderr, "flexai-reap: %s: another reaper holds the lock\n", arguments[1]);
        return 1;
    }
    int released = 0;
    for (int i = 2; i < n; i++) {
        unsigned slot, pid;
        unsigned long long start;
        if (sscanf(arguments[i], "%u:%u:%llu", &slot, &pid, &start) != 3 || slot >= FX_MAX_SLOTS) {
            fprintf(stderr, "flexai-reap: %s: want SLOT:PID:START_TICKS\n", arguments[i]);
            return 2;
        }
        const struct fx_slot *at = &region.ledger->slot[slot];
        if (__atomic_load_n(&at->pid, __ATOMIC_SEQ_CST) == pid &&
            __atomic_load_n(&at->start_ticks, __ATOMIC_SEQ_CST) == start) {
            fx_slot_release(region.ledger, slot);
            released++;
        }
    }
    fx_reconcile(region.ledger);
    fx_reap_unlock(lock);
    printf("%d\n", released);
    return 0;
}
