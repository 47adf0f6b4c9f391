/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"
#include "charge.h"

#include <pthread.h>
#include <unistd.h>

#include "measure.h"
#include "pools.h"
#include "shared.h"

#define MIB (1024ull * 1024)
/* The driver serves what is under 1 MiB out of blocks of 2 MiB, and rounds the rest up to 2 MiB (H200, CUDA 13.0). */
#define BLOCK (2 * MIB)
#define SMALL MIB
#define SMALL_UNIT 512ull

uint32_t fx_under_way, fx_n_settled;

/* Small allocations with an address: each block in which some live is charged, and one more while there are any. Whether a
 * call opens a block only the driver knows (of 700 KiB it puts two into one), so one is charged before. Under the table's
 * lock. */
static struct {
    uint32_t n;
    bool spare;
} blocks[FX_MAX_DEVICES];

/* Of others, as arrays, by card: their sum, and what of their blocks is charged. Under the table's lock. */
static struct {
    uint64_t bytes, charged;
} small[FX_MAX_DEVICES];

static uint64_t up(uint64_t bytes, uint64_t unit)
{
    return bytes > UINT64_MAX - unit ? UINT64_MAX : (bytes + unit - 1) / unit * unit;
}

static uint32_t paused;

void fx_pause(bool pause)
{
    __atomic_store_n(&paused, pause, __ATOMIC_SEQ_CST);
}

void fx_enter(void)
{
    for (int i = 0; i < 50 && __atomic_load_n(&paused, __ATOMIC_SEQ_CST); i++)
        usleep(100); /* bounded: whoever is under way may wait for us */
    __atomic_add_fetch(&fx_under_way, 1, __ATOMIC_SEQ_CST);
}

void fx_leave(bool settled)
{
    if (settled)
        __atomic_add_fetch(&fx_n_settled, 1, __ATOMIC_SEQ_CST);
    __atomic_sub_fetch(&fx_under_way, 1, __ATOMIC_SEQ_CST);
}

/* By card: what is charged beyond the allocations, the last measure, for a decrease must be seen twice, and whether some
 * of it is an estimate. */
static pthread_mutex_t extra_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t extra[FX_MAX_DEVICES], wish_before[FX_MAX_DEVICES], managed[FX_MAX_DEVICES];
static bool estimated[FX_MAX_DEVICES];

/* Before a refusal stands: what was freed in stream order, what was estimated too high, what pools hold for later. */
bool fx_take_hard(int card, uint64_t bytes)
{
    if (fx_take(card, bytes) || (fx_pools_settle(card) && fx_take(card, bytes)))
        return true;
    fx_pools_squeeze(card);
    return fx_take(card, bytes);
}

void fx_estimates_settle(int card, uint32_t ours)
{
    if (__atomic_load_n(&estimated[card], __ATOMIC_SEQ_CST))
        fx_measure_twice(ours);
}

bool fx_expect(int card, uint64_t bytes)
{
    if (card < 0 || bytes == 0)
        return true;
    fx_enter();
    bool granted = fx_take_hard(card, bytes);
    if (granted)
        fx_extra_add(card, bytes);
    else
        fx_leave(false);
    return granted;
}

void fx_expect_failed(int card, uint64_t bytes)
{
    if (card < 0)
        return;
    pthread_mutex_lock(&extra_lock);
    uint64_t back = bytes < extra[card] ? bytes : extra[card];
    extra[card] -= back;
    pthread_mutex_unlock(&extra_lock);
    fx_give(card, back);
}

void fx_extra_add(int card, uint64_t bytes)
{
    if (card < 0 || bytes == 0)
        return;
    pthread_mutex_lock(&extra_lock);
    extra[card] += bytes;
    wish_before[card] = UINT64_MAX;
    estimated[card] = true;
    pthread_mutex_unlock(&extra_lock);
}

static void block_back(int card)
{
    if (blocks[card].n && !blocks[card].spare)
        blocks[card].spare = true;
    else
        fx_give(card, BLOCK);
}

static bool block_take(int card)
{
    fx_table_lock();
    bool spared = blocks[card].spare;
    blocks[card].spare = false;
    fx_table_unlock();
    return spared || fx_take_hard(card, BLOCK);
}

/* It lies in a block that was charged for it, or in one that is known. */
static void block_entered(int card, uint64_t key)
{
    struct fx_entry *block = fx_table_get(FX_KIND_BLOCK, key / BLOCK);
    if (block) {
        block->other++;
        block_back(card);
    } else if ((block = fx_table_put(FX_KIND_BLOCK, key / BLOCK, card, BLOCK))) {
        block->other = 1;
        blocks[card].n++;
    }
}

/* True when nothing lives in its block any more: that is the driver's to give back, and no longer charged as a block. */
static bool block_left(uint64_t key)
{
    struct fx_entry *block = fx_table_get(FX_KIND_BLOCK, key / BLOCK), gone;
    if (!block || --block->other)
        return false;
    fx_table_take(FX_KIND_BLOCK, key / BLOCK, &gone);
    if (--blocks[gone.card].n == 0 && blocks[gone.card].spare) {
        blocks[gone.card].spare = false;
        fx_give(gone.card, BLOCK);
    }
    return true;
}

bool fx_ticket_take_at(struct fx_ticket *ticket, uint64_t bytes)
{
    if (bytes >= SMALL)
        return fx_ticket_take(ticket, bytes);
    *ticket = (struct fx_ticket){.card = fx_current_card(), .small = true, .in_block = true};
    if (ticket->card < 0)
        return true;
    if (FX_REAL(cuCtxGetCurrent, CUresult (*)(void **))(&ticket->owner) != CUDA_SUCCESS)
        ticket->owner = NULL;
    fx_enter();
    if (block_take(ticket->card))
        return true;
    fx_leave(false);
    return false;
}

bool fx_ticket_take(struct fx_ticket *ticket, uint64_t bytes)
{
    *ticket = (struct fx_ticket){.card = fx_current_card()};
    if (ticket->card < 0)
        return true;
    if (FX_REAL(cuCtxGetCurrent, CUresult (*)(void **))(&ticket->owner) != CUDA_SUCCESS)
        ticket->owner = NULL;
    fx_enter();
    ticket->small = bytes < SMALL;
    if (!ticket->small) {
        ticket->bytes = up(bytes, BLOCK);
        if (fx_take_hard(ticket->card, ticket->bytes))
            return true;
    } else {
        int card = ticket->card;
        ticket->asked = up(bytes, SMALL_UNIT);
        fx_table_lock();
        uint64_t need = up(small[card].bytes + ticket->asked, BLOCK);
        uint64_t more = need > small[card].charged ? need - small[card].charged : 0;
        bool granted = more == 0 || fx_take(card, more);
        if (!granted) {
            fx_table_unlock();
            granted = fx_take_hard(card, more); /* settles pools, which takes the lock */
            fx_table_lock();
        }
        if (granted) {
            small[card].bytes += ticket->asked;
            small[card].charged += more;
        }
        fx_table_unlock();
        if (granted)
            return true;
    }
    fx_leave(false);
    return false;
}

/* A block stays while anything lives in it, so what was once needed is given back late: down to twice what is in use. */
static void small_freed(int card, uint64_t asked)
{
    small[card].bytes -= asked < small[card].bytes ? asked : small[card].bytes;
    uint64_t keep = small[card].bytes == 0 ? 0 : 2 * up(small[card].bytes, BLOCK) + 16 * BLOCK;
    if (small[card].charged > keep) {
        fx_give(card, small[card].charged - keep);
        small[card].charged = keep;
    }
}

static void refund(int card, bool is_small, uint64_t bytes, uint64_t asked)
{
    if (is_small)
        small_freed(card, asked);
    else
        fx_give(card, bytes);
}

static void refund_entry(const struct fx_entry *entry)
{
    if (entry->managed)
        managed[entry->card] -= entry->small ? entry->other : entry->bytes;
    if (entry->exported && fx_shared_freed(entry->card, entry->bytes))
        return; /* others hold it still */
    if (entry->in_block) {
        if (block_left(entry->key))
            fx_give(entry->card, BLOCK);
        return;
    }
    refund(entry->card, entry->small, entry->bytes, entry->other);
}

void fx_ticket_settle(struct fx_ticket *ticket, CUresult rc, enum fx_kind kind, uint64_t key)
{
    if (ticket->card < 0)
        return;
    fx_table_lock();
    if (rc == CUDA_SUCCESS) {
        struct fx_entry *entry = fx_table_put(kind, key, ticket->card, ticket->bytes);
        if (entry) { /* no host memory for the entry: it stays charged, which is the safe side */
            entry->small = ticket->small;
            entry->in_block = ticket->in_block;
            entry->other = ticket->asked;
            entry->owner = ticket->owner;
            entry->managed = ticket->managed;
            if (ticket->managed)
                managed[ticket->card] += ticket->small ? ticket->asked : ticket->bytes;
            if (ticket->in_block)
                block_entered(ticket->card, key); /* last: it may move entries */
        }
    } else if (ticket->in_block) {
        block_back(ticket->card);
    } else {
        refund(ticket->card, ticket->small, ticket->bytes, ticket->asked);
    }
    fx_table_unlock();
    fx_leave(true);
}

bool fx_free_begin(enum fx_kind kind, uint64_t key, struct fx_entry *entry)
{
    if (!fx.attached)
        return false;
    fx_enter();
    fx_table_lock();
    bool known = fx_table_take(kind, key, entry);
    fx_table_unlock();
    if (!known)
        fx_leave(false);
    return known;
}

void fx_free_end(bool known, CUresult rc, const struct fx_entry *entry)
{
    if (!known)
        return;
    fx_table_lock();
    if (rc == CUDA_SUCCESS) {
        refund_entry(entry);
    } else {
        struct fx_entry *again = fx_table_put((enum fx_kind)entry->kind, entry->key, entry->card, entry->bytes);
        if (again)
            *again = *entry;
    }
    fx_table_unlock();
    fx_leave(true);
}

void fx_free_later(const struct fx_entry *entry)
{
    fx_table_lock();
    if (entry->managed)
        managed[entry->card] -= entry->small ? entry->other : entry->bytes;
    if (entry->in_block) {
        if (block_left(entry->key))
            fx_extra_add(entry->card, BLOCK);
    } else if (entry->small)
        small_freed(entry->card, entry->other);
    else if (!entry->exported || !fx_shared_freed(entry->card, entry->bytes))
        fx_extra_add(entry->card, entry->bytes);
    fx_table_unlock();
    fx_leave(true);
}

void fx_free_owned(void *context)
{
    static const enum fx_kind OWNED[] = {FX_KIND_MEMORY, FX_KIND_ARRAY};
    fx_table_lock();
    for (unsigned i = 0; i < sizeof OWNED / sizeof *OWNED; i++) {
        uint64_t at = 0;
        struct fx_entry *entry, gone;
        while ((entry = fx_table_next(OWNED[i], &at)))
            if (entry->owner == context && fx_table_take(OWNED[i], entry->key, &gone)) {
                refund_entry(&gone);
                at = 0; /* taking out moves others */
            }
    }
    fx_table_unlock();
}

void fx_extra_moved(int card, uint64_t bytes)
{
    pthread_mutex_lock(&extra_lock);
    extra[card] -= bytes < extra[card] ? bytes : extra[card];
    wish_before[card] = 0;
    pthread_mutex_unlock(&extra_lock);
}

uint64_t fx_extra(int card)
{
    return __atomic_load_n(&extra[card], __ATOMIC_SEQ_CST);
}

void fx_measured(int card, uint64_t used_bytes)
{
    pthread_mutex_lock(&extra_lock);
    /* Managed pages are in no process's account, neither is what others hold of ours after we have let go, nor what is
     * charged for pools that may grow. */
    uint64_t unseen = extra[card] + managed[card] + fx_shared_bytes(card) + fx_pools_spare(card);
    unseen += __atomic_load_n(&blocks[card].spare, __ATOMIC_SEQ_CST) ? BLOCK : 0;
    uint64_t charged = fx_own(card), others = charged > unseen ? charged - unseen : 0;
    uint64_t wish = used_bytes > others ? used_bytes - others : 0;
    if (wish > extra[card]) {
        fx_take_fact(card, wish - extra[card]);
        extra[card] = wish;
    } else if (wish < extra[card] && wish_before[card] < extra[card]) {
        uint64_t to = wish > wish_before[card] ? wish : wish_before[card];
        fx_give(card, extra[card] - to);
        extra[card] = to;
    }
    if (wish == wish_before[card]) /* twice the same: no estimate is left in it */
        estimated[card] = false;
    wish_before[card] = wish;
    pthread_mutex_unlock(&extra_lock);
}

void fx_charge_forget(void)
{
    extra_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    fx_under_way = fx_n_settled = paused = 0;
    for (int card = 0; card < FX_MAX_DEVICES; card++) {
        small[card].bytes = small[card].charged = blocks[card].n = blocks[card].spare = 0;
        extra[card] = wish_before[card] = managed[card] = 0;
        estimated[card] = false;
    }
}
