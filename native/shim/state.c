/* SPDX-License-Identifier: Apache-2.0 */
#include "glibc.h"
#include "state.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "charge.h"
#include "gate.h"
#include "measure.h"
#include "pools.h"
#include "shared.h"
#include "table.h"

struct fx_state fx;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool prepared;
/* By card: what this process has charged, kept in step with its slot. */
static pthread_mutex_t own_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t own[FX_MAX_DEVICES];

static void say(const char *what)
{
    char line[1024];
    int n = snprintf(line, sizeof line, "flexai: %s\n", what);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1) < 0)
        return; /* nobody to tell */
}

/* In a child of fork the driver has to be initialised anew, and so have we: the parent's slot and allocations are the
 * parent's. (The mappings are inherited and stay; the slot is not ours.) */
static void after_fork(void)
{
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    lock = fresh;
    own_lock = fresh;
    memset(own, 0, sizeof own);
    fx.attached = false;
    fx_table_forget();
    fx_charge_forget();
    fx_measure_forget();
    fx_contexts_forget();
    fx_graphs_forget();
    fx_pools_forget();
    fx_shared_forget();
    fx_gate_forget();
    fx_threads_forget();
}

/* A tenant that was parked may have come back to other cards than its environment names: a program that it starts then
 * is shown those that it has now. Whatever else the tenant has chosen of its cards, by number or by order, stays. */
static void name_cards_anew(void)
{
    const char *named = getenv("FLEXAI_CARDS"), *shown = getenv("CUDA_VISIBLE_DEVICES");
    struct fx_limits limits;
    char cards[FX_MAX_DEVICES * FX_UUID_BYTES] = "", visible[4096] = "";
    if (!named || strlen(named) >= sizeof cards)
        return;
    size_t n = 0;
    for (uint32_t card = 0; card < FX_MAX_DEVICES && fx_limits_read(fx.region.policy, card, &limits); card++)
        n += (size_t)snprintf(cards + n, sizeof cards - n, "%s%s", card ? "," : "", limits.uuid);
    if (strcmp(cards, named) == 0)
        return;
    char list[4096], *rest = list, *one;
    snprintf(list, sizeof list, "%s", shown ? shown : "");
    for (n = 0; (one = strsep(&rest, ",")) && n < sizeof visible;) {
        uint32_t card = 0;
        size_t length = strlen(one);
        const char *at = named;
        while (*at && (strncmp(at, one, length) != 0 || (at[length] && at[length] != ',') || !length)) {
            at += strcspn(at, ",");
            at += *at == ',';
            card++;
        }
        bool known = *at && fx_limits_read(fx.region.policy, card, &limits);
        n += (size_t)snprintf(visible + n, sizeof visible - n, "%s%s", n ? "," : "", known ? limits.uuid : one);
    }
    if (shown)
        setenv("CUDA_VISIBLE_DEVICES", visible, 1);
    setenv("FLEXAI_CARDS", cards, 1);
}

enum fx_mode fx_prepare(void)
{
    pthread_mutex_lock(&lock);
    if (!prepared) {
        prepared = true;
        const char *dir = getenv("FLEXAI_TENANT_DIR");
        if (dir && *dir) {
            char why[768] = "";
            if (strlen(dir) < sizeof fx.dir) {
                strcpy(fx.dir, dir);
                fx.mode = fx_region_open(&fx.region, dir, why, sizeof why) == 0 ? FX_TENANT : FX_BROKEN;
            } else {
                fx.mode = FX_BROKEN;
                strcpy(why, "FLEXAI_TENANT_DIR is too long");
            }
            if (fx.mode == FX_BROKEN) {
                char line[900];
                snprintf(line, sizeof line, "the slice of this process cannot be used, so no card is: %s", why);
                say(line);
            }
            if (fx.mode == FX_TENANT)
                name_cards_anew();
            pthread_atfork(NULL, NULL, after_fork);
        }
    }
    enum fx_mode mode = fx.mode;
    pthread_mutex_unlock(&lock);
    return mode;
}

static void uuid_text(const unsigned char raw[16], char text[FX_UUID_BYTES])
{
    char *at = text + sprintf(text, "GPU-");
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        at += sprintf(at, "%02x", raw[i]);
    }
}

/* By UUID, so that neither CUDA_VISIBLE_DEVICES nor the driver's order matters. */
static void map_cards(void)
{
    memset(fx.card_of, -1, sizeof fx.card_of);
    memset(fx.ordinal_of, -1, sizeof fx.ordinal_of);
    struct fx_limits limits;
    fx.n_cards = 0;
    while (fx.n_cards < FX_MAX_DEVICES && fx_limits_read(fx.region.policy, fx.n_cards, &limits))
        fx.n_cards++;
    fx.n_ordinals = 0;
    if (FX_REAL(cuDeviceGetCount, CUresult (*)(int *))(&fx.n_ordinals) != CUDA_SUCCESS)
        fx.n_ordinals = 0;
    if (fx.n_ordinals > FX_MAX_ORDINALS)
        fx.n_ordinals = FX_MAX_ORDINALS;
    for (int ordinal = 0; ordinal < fx.n_ordinals; ordinal++) {
        unsigned char raw[16];
        char text[FX_UUID_BYTES];
        CUresult rc = FX_REAL(cuDeviceGetUuid_v2, CUresult (*)(void *, CUdevice))(raw, ordinal);
        if (rc != CUDA_SUCCESS) /* a driver before 11.4 */
            rc = FX_REAL(cuDeviceGetUuid, CUresult (*)(void *, CUdevice))(raw, ordinal);
        if (rc != CUDA_SUCCESS)
            continue;
        uuid_text(raw, text);
        for (uint32_t card = 0; card < fx.n_cards; card++)
            if (fx_limits_read(fx.region.policy, card, &limits) &&
                (strcasecmp(text, limits.uuid) == 0 ||
                 (strncmp(limits.uuid, "MIG-", 4) == 0 && strcasecmp(text + 4, limits.uuid + 4) == 0))) {
                fx.card_of[ordinal] = (int8_t)card;
                fx.ordinal_of[card] = (int8_t)ordinal;
                strcpy(fx.began_on[card], limits.uuid);
            }
    }
}

void fx_attach(void)
{
    pthread_mutex_lock(&lock);
    if (!fx.attached && fx.mode == FX_TENANT) {
        uint32_t pid = (uint32_t)getpid();
        fx.pid_ns = fx_pid_ns();
        int slot = -1;
        for (int tries = 0; tries < 200 && slot < 0; tries++) {
            /* Another reaper at work: only wait for it when we have to. */
            if (fx_reap(fx.region.ledger, fx.dir, fx.pid_ns, pid) < 0 && tries < 100) {
                usleep(500);
                continue;
            }
            slot = fx_slot_take(fx.region.ledger, pid, fx_start_ticks(pid), fx.pid_ns, fx_now_ns());
        }
        if (slot < 0) {
            fx.mode = FX_BROKEN;
            say("the slice of this process cannot be used, so no card is: 256 processes of the tenant hold it already");
        } else {
            fx.slot = (uint32_t)slot;
            map_cards();
            fx.attached = true;
            fx_gate_attach();
            fx_threads_start();
        }
    }
    pthread_mutex_unlock(&lock);
}

int fx_card_of(CUdevice device)
{
    return fx.attached && device >= 0 && device < fx.n_ordinals ? fx.card_of[device] : -1;
}

int fx_current_card(void)
{
    CUdevice device;
    if (!fx.attached || FX_REAL(cuCtxGetDevice, CUresult (*)(CUdevice *))(&device) != CUDA_SUCCESS)
        return -1;
    return fx_card_of(device);
}

uint64_t fx_cap(int card)
{
    struct fx_limits limits;
    return card >= 0 && fx_limits_read(fx.region.policy, (uint32_t)card, &limits) ? limits.memory_bytes : UINT64_MAX;
}

static bool charge(int card, uint64_t bytes)
{
    uint64_t cap = fx_cap(card);
    pthread_mutex_lock(&own_lock);
    bool granted = fx_charge(fx.region.ledger, fx.slot, (uint32_t)card, bytes, cap);
    if (granted)
        own[card] += bytes;
    pthread_mutex_unlock(&own_lock);
    return granted;
}

bool fx_take(int card, uint64_t bytes)
{
    if (card < 0 || bytes == 0)
        return true;
    /* A dead process of the tenant may still hold its charge. */
    return charge(card, bytes) ||
           (fx_reap(fx.region.ledger, fx.dir, fx.pid_ns, 0) > 0 && charge(card, bytes));
}

void fx_take_fact(int card, uint64_t bytes)
{
    if (card < 0 || bytes == 0)
        return;
    pthread_mutex_lock(&own_lock);
    fx_charge_fact(fx.region.ledger, fx.slot, (uint32_t)card, bytes);
    own[card] += bytes;
    pthread_mutex_unlock(&own_lock);
}

void fx_give(int card, uint64_t bytes)
{
    if (card < 0 || bytes == 0)
        return;
    pthread_mutex_lock(&own_lock);
    fx_refund(fx.region.ledger, fx.slot, (uint32_t)card, bytes);
    own[card] -= bytes < own[card] ? bytes : own[card];
    pthread_mutex_unlock(&own_lock);
}

uint64_t fx_own(int card)
{
    return __atomic_load_n(&own[card], __ATOMIC_SEQ_CST);
}

void fx_disown(void)
{
    struct fx_slot *slot = &fx.region.ledger->slot[fx.slot];
    if (__atomic_load_n(&slot->n_imports, __ATOMIC_SEQ_CST))
        return;
    int heir = fx_importer(fx.region.ledger, fx.slot);
    pthread_mutex_lock(&own_lock);
    for (uint32_t card = 0; card < fx.n_cards; card++) {
        uint64_t charged = __atomic_load_n(&slot->charged_bytes[card], __ATOMIC_SEQ_CST);
        if (charged <= own[card])
            continue;
        if (heir >= 0) {
            __atomic_sub_fetch(&slot->charged_bytes[card], charged - own[card], __ATOMIC_SEQ_CST);
            __atomic_add_fetch(&fx.region.ledger->slot[heir].charged_bytes[card], charged - own[card], __ATOMIC_SEQ_CST);
        } else {
            fx_refund(fx.region.ledger, fx.slot, card, charged - own[card]);
        }
    }
    pthread_mutex_unlock(&own_lock);
}
