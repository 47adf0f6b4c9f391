/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"
#include "table.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fx_entry *entries;
static uint64_t n_room; /* power of two */
static uint64_t n_used;

void fx_table_lock(void)
{
    pthread_mutex_lock(&lock);
}

void fx_table_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

static uint64_t home(uint64_t key, enum fx_kind kind)
{
    uint64_t mixed = (key ^ ((uint64_t)kind << 56)) * 0x9e3779b97f4a7c15u; /* Fibonacci hashing */
    return (mixed >> 20) & (n_room - 1);
}

static struct fx_entry *find(enum fx_kind kind, uint64_t key)
{
    for (uint64_t i = home(key, kind);; i = (i + 1) & (n_room - 1))
        if (entries[i].kind == 0 || (entries[i].kind == kind && entries[i].key == key))
            return &entries[i];
}

static bool grow(void)
{
    uint64_t old_room = n_room;
    struct fx_entry *old = entries;
    uint64_t room = old_room ? old_room * 2 : 1024;
    struct fx_entry *more = calloc(room, sizeof *more);
    if (!more)
        return false;
    entries = more;
    n_room = room;
    for (uint64_t i = 0; i < old_room; i++)
        if (old[i].kind)
            *find((enum fx_kind)old[i].kind, old[i].key) = old[i];
    free(old);
    return true;
}

struct fx_entry *fx_table_put(enum fx_kind kind, uint64_t key, int card, uint64_t bytes)
{
    if ((n_used + 1) * 2 > n_room && !grow() && n_used + 1 >= n_room)
        return NULL;
    struct fx_entry *entry = find(kind, key);
    if (!entry->kind)
        n_used++;
    *entry = (struct fx_entry){.key = key, .bytes = bytes, .card = (int8_t)card, .kind = (uint8_t)kind};
    return entry;
}

struct fx_entry *fx_table_get(enum fx_kind kind, uint64_t key)
{
    if (!n_room)
        return NULL;
    struct fx_entry *entry = find(kind, key);
    return entry->kind ? entry : NULL;
}

bool fx_table_take(enum fx_kind kind, uint64_t key, struct fx_entry *taken)
{
    struct fx_entry *entry = fx_table_get(kind, key);
    if (!entry)
        return false;
    *taken = *entry;
    /* Close the gap, so that no marks are left: move back whoever could not have been found past it. */
    uint64_t hole = (uint64_t)(entry - entries);
    for (uint64_t i = (hole + 1) & (n_room - 1); entries[i].kind; i = (i + 1) & (n_room - 1)) {
        uint64_t wish = home(entries[i].key, (enum fx_kind)entries[i].kind);
        if (((i - wish) & (n_room - 1)) >= ((i - hole) & (n_room - 1))) {
            entries[hole] = entries[i];
            hole = i;
        }
    }
    entries[hole].kind = 0;
    n_used--;
    return true;
}

struct fx_entry *fx_table_next(enum fx_kind kind, uint64_t *position)
{
    while (*position < n_room) {
        struct fx_entry *entry = &entries[(*position)++];
        if (entry->kind == kind)
            return entry;
    }
    return NULL;
}

void fx_table_forget(void)
{
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    lock = fresh;
    entries = NULL; /* the child's copy; freeing it would touch every page for nothing */
    n_room = n_used = 0;
}
