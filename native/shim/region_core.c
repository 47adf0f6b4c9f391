/* SPDX-License-Identifier: Apache-2.0 */
#include "region_core.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_SEQ_CST)
#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_SEQ_CST)
#define ADD(word, value) __atomic_fetch_add(&(word), (value), __ATOMIC_SEQ_CST)

uint64_t fx_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *map_file(const char *dir, const char *name, size_t size, bool writable, char *why, size_t n_why)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) {
        errno = ENAMETOOLONG;
        snprintf(why, n_why, "FLEXAI_TENANT_DIR is too long");
        return NULL;
    }
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (fd < 0) {
        snprintf(why, n_why, "%s: %s", path, strerror(errno));
        return NULL;
    }
    off_t length = lseek(fd, 0, SEEK_END); /* fstat needs a newer glibc symbol */
    void *at = NULL;
    if (length != (off_t)size) {
        snprintf(why, n_why, "%s: %lld bytes, this shim (region version %u) wants %zu", path, (long long)length,
                 FX_REGION_VERSION, size);
        errno = EPROTO;
    } else {
        at = mmap(NULL, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED) {
            snprintf(why, n_why, "%s: cannot map: %s", path, strerror(errno));
            at = NULL;
        }
    }
    int keep = errno;
    close(fd);
    errno = keep;
    return at;
}

/* The first 16 bytes are the same in both files. */
static bool head_right(const char *dir, const char *name, const volatile struct fx_policy *head, uint64_t magic,
                       size_t size, char *why, size_t n_why)
{
    if (head->magic == magic && head->version == FX_REGION_VERSION && head->size == size)
        return true;
    if (head->magic != magic)
        snprintf(why, n_why, "%s/%s: not a region file (magic %016llx)", dir, name, (unsigned long long)head->magic);
    else
        snprintf(why, n_why, "%s/%s: region version %u of %u bytes, this shim speaks version %u of %zu bytes", dir, name,
                 head->version, head->size, FX_REGION_VERSION, size);
    errno = EPROTO;
    return false;
}

int fx_region_open(struct fx_region *region, const char *dir, char *why, size_t n_why)
{
    struct fx_policy *policy = map_file(dir, "policy", sizeof *policy, false, why, n_why);
    if (!policy)
        return -errno;
    struct fx_ledger *ledger = map_file(dir, "ledger", sizeof *ledger, true, why, n_why);
    if (!ledger) {
        int keep = errno;
        munmap(policy, sizeof *policy);
        return -keep;
    }
    region->policy = policy;
    region->ledger = ledger;
    if (head_right(dir, "policy", policy, FX_POLICY_MAGIC, sizeof *policy, why, n_why) &&
        head_right(dir, "ledger", (const volatile struct fx_policy *)(const void *)ledger, FX_LEDGER_MAGIC, sizeof *ledger,
                   why, n_why))
        return 0;
    fx_region_close(region);
    return -EPROTO;
}

void fx_region_close(struct fx_region *region)
{
    if (region->policy)
        munmap((void *)(uintptr_t)region->policy, sizeof *region->policy);
    if (region->ledger)
        munmap(region->ledger, sizeof *region->ledger);
    region->policy = NULL;
    region->ledger = NULL;
}

bool fx_limits_read(const volatile struct fx_policy *policy, uint32_t device, struct fx_limits *limits)
{
    bool exists = false;
    for (int tries = 0; tries < 10000; tries++) {
        uint32_t before = LOAD(policy->seq);
        uint32_t n_devices = policy->n_devices;
        exists = device < n_devices && device < FX_MAX_DEVICES;
        if (exists) {
            const volatile struct fx_policy_device *from = &policy->device[device];
            for (size_t i = 0; i < sizeof limits->uuid; i++)
                limits->uuid[i] = from->uuid[i];
            limits->uuid[sizeof limits->uuid - 1] = 0;
            limits->memory_bytes = from->memory_bytes ? from->memory_bytes : UINT64_MAX;
            limits->context_bytes = from->context_bytes;
            limits->compute_milli = from->compute_milli;
            limits->limit_milli = from->limit_milli;
            limits->tenant_class = from->tenant_class;
        }
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if ((before & 1) == 0 && LOAD(policy->seq) == before)
            break;
    }
    return exists;
}

static void raise_peak(struct fx_ledger *ledger, uint32_t device, uint64_t now)
{
    uint64_t peak = LOAD(ledger->peak_bytes[device]);
    while (now > peak && !__atomic_compare_exchange_n(&ledger->peak_bytes[device], &peak, now, false, __ATOMIC_SEQ_CST,
                                                      __ATOMIC_SEQ_CST))
        ;
}

/* The ledger's word first, the slot's after it, and the other way round in a refund: who dies in between leaves the
 * ledger too high, never too low, until fx_reconcile. */
bool fx_charge(struct fx_ledger *ledger, uint32_t slot, uint32_t device, uint64_t bytes, uint64_t cap_bytes)
{
    ADD(ledger->slot[slot].n_begun, 1u);
    uint64_t charged = LOAD(ledger->charged_bytes[device]);
    bool granted;
    do {
        granted = bytes <= cap_bytes && charged <= cap_bytes - bytes;
    } while (granted && !__atomic_compare_exchange_n(&ledger->charged_bytes[device], &charged, charged + bytes, false,
                                                     __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    if (granted) {
        ADD(ledger->slot[slot].charged_bytes[device], bytes);
        raise_peak(ledger, device, charged + bytes);
    } else {
        ADD(ledger->n_refused[device], 1u);
    }
    ADD(ledger->slot[slot].n_done, 1u);
    return granted;
}

void fx_charge_fact(struct fx_ledger *ledger, uint32_t slot, uint32_t device, uint64_t bytes)
{
    ADD(ledger->slot[slot].n_begun, 1u);
    uint64_t before = ADD(ledger->charged_bytes[device], bytes);
    ADD(ledger->slot[slot].charged_bytes[device], bytes);
    raise_peak(ledger, device, before + bytes);
    ADD(ledger->slot[slot].n_done, 1u);
}

/* Never below zero, whoever scribbled in the file. */
static void take_down(uint64_t *word, uint64_t bytes)
{
    uint64_t now = LOAD(*word);
    while (!__atomic_compare_exchange_n(word, &now, now > bytes ? now - bytes : 0, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
        ;
}

void fx_refund(struct fx_ledger *ledger, uint32_t slot, uint32_t device, uint64_t bytes)
{
    ADD(ledger->slot[slot].n_begun, 1u);
    take_down(&ledger->slot[slot].charged_bytes[device], bytes);
    take_down(&ledger->charged_bytes[device], bytes);
    ADD(ledger->slot[slot].n_done, 1u);
}

static void slot_wipe(struct fx_slot *slot)
{
    STORE(slot->start_ticks, 0u);
    STORE(slot->host_pid, 0u);
    STORE(slot->pid_ns, 0u);
    STORE(slot->heartbeat_ns, 0u);
    STORE(slot->last_submit_ns, 0u);
    STORE(slot->waiting, 0u);
    STORE(slot->flags, 0u);
    STORE(slot->n_launches, 0u);
    STORE(slot->n_begun, 0u);
    STORE(slot->n_done, 0u);
    STORE(slot->n_imports, 0u);
    for (int device = 0; device < FX_MAX_DEVICES; device++) {
        STORE(slot->inflight[device], 0u);
        STORE(slot->drained_gen[device], 0u);
        STORE(slot->busy_until_ns[device], 0u);
        STORE(slot->waiting_on[device], 0u);
        STORE(slot->exported_mib[device], 0u);
    }
}

int fx_importer(struct fx_ledger *ledger, uint32_t but)
{
    int best = -1;
    for (int i = 0; i < FX_MAX_SLOTS; i++)
        if ((uint32_t)i != but && LOAD(ledger->slot[i].pid) && LOAD(ledger->slot[i].n_imports) &&
            (best < 0 || LOAD(ledger->slot[i].heartbeat_ns) > LOAD(ledger->slot[best].heartbeat_ns)))
            best = i; /* the latest sign of life: it may be that one of them is dead as well */
    return best;
}

int fx_slot_take(struct fx_ledger *ledger, uint32_t pid, uint64_t start_ticks, uint32_t pid_ns, uint64_t now_ns)
{
    for (uint32_t i = 0; i < FX_MAX_SLOTS; i++) {
        struct fx_slot *slot = &ledger->slot[i];
        uint32_t nobody = 0;
        if (LOAD(slot->pid) == 0 &&
            __atomic_compare_exchange_n(&slot->pid, &nobody, pid, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            STORE(slot->heartbeat_ns, now_ns);
            STORE(slot->pid_ns, pid_ns);
            STORE(slot->start_ticks, start_ticks);
            return (int)i;
        }
    }
    return -1;
}

void fx_slot_release(struct fx_ledger *ledger, uint32_t index)
{
    struct fx_slot *slot = &ledger->slot[index];
    int heir = fx_importer(ledger, index);
    for (uint32_t device = 0; device < FX_MAX_DEVICES; device++) {
        uint64_t bytes = __atomic_exchange_n(&slot->charged_bytes[device], 0, __ATOMIC_SEQ_CST);
        uint64_t kept = (uint64_t)LOAD(slot->exported_mib[device]) << 20;
        kept = heir < 0 ? 0 : kept < bytes ? kept : bytes;
        if (kept) { /* still on the card while others hold it: theirs to pay from now on */
            ADD(ledger->slot[heir].charged_bytes[device], kept);
            bytes -= kept;
        }
        if (bytes)
            take_down(&ledger->charged_bytes[device], bytes);
    }
    slot_wipe(slot);
    STORE(slot->pid, 0u);
}

/* Sum of the slots, and of the counts of charges begun; false when one is under way. */
static bool sum_slots(struct fx_ledger *ledger, uint64_t sums[FX_MAX_DEVICES], uint64_t *begun)
{
    memset(sums, 0, sizeof(uint64_t) * FX_MAX_DEVICES);
    *begun = 0;
    for (int i = 0; i < FX_MAX_SLOTS; i++) {
        uint32_t done = LOAD(ledger->slot[i].n_done);
        for (int device = 0; device < FX_MAX_DEVICES; device++)
            sums[device] += LOAD(ledger->slot[i].charged_bytes[device]);
        uint32_t started = LOAD(ledger->slot[i].n_begun);
        if (started != done)
            return false;
        *begun += started;
    }
    return true;
}

bool fx_reconcile(struct fx_ledger *ledger)
{
    uint64_t first[FX_MAX_DEVICES], second[FX_MAX_DEVICES], fast[FX_MAX_DEVICES], begun, still;
    if (!sum_slots(ledger, first, &begun))
        return false;
    for (int device = 0; device < FX_MAX_DEVICES; device++)
        fast[device] = LOAD(ledger->charged_bytes[device]);
    if (!sum_slots(ledger, second, &still) || still != begun || memcmp(first, second, sizeof first) != 0)
        return false;
    /* What the fast copy is wrong by was measured while nobody changed anything; whoever charges from here on moves it by
     * a known amount, so that a lost race only means: next time. */
    for (int device = 0; device < FX_MAX_DEVICES; device++)
        if (fast[device] != first[device])
            __atomic_compare_exchange_n(&ledger->charged_bytes[device], &fast[device], first[device], false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return true;
}

int fx_reap_lock(const char *dir)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/ledger", dir) >= (int)sizeof path)
        return -1;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

void fx_reap_unlock(int lock)
{
    flock(lock, LOCK_UN); /* a child forked meanwhile shares the description */
    close(lock);
}

int fx_reap(struct fx_ledger *ledger, const char *dir, uint32_t pid_ns, uint32_t also_pid)
{
    int lock = fx_reap_lock(dir);
    if (lock < 0)
        return -1;
    int n = 0;
    for (uint32_t i = 0; i < FX_MAX_SLOTS; i++) {
        uint32_t pid = LOAD(ledger->slot[i].pid);
        if (pid == 0 || LOAD(ledger->slot[i].pid_ns) != pid_ns)
            continue;
        if (pid != also_pid && !fx_process_gone(pid, LOAD(ledger->slot[i].start_ticks)))
            continue;
        fx_slot_release(ledger, i);
        n++;
    }
    fx_reconcile(ledger);
    fx_reap_unlock(lock);
    return n;
}

/* State, number of threads and start time from /proc/<pid>/stat, behind the last ')' of the name. */
static bool read_stat(uint32_t pid, char *state, long *n_threads, uint64_t *start)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = 0;
    char *at = strrchr(text, ')');
    if (!at || at[1] != ' ')
        return false;
    *state = at[2];
    at += 2;
    for (int field = 3; field < 22; field++) {
        if (field == 20)
            *n_threads = strtol(at, NULL, 10);
        at = strchr(at, ' ');
        if (!at)
            return false;
        at++;
    }
    *start = strtoull(at, NULL, 10);
    return true;
}

uint64_t fx_start_ticks(uint32_t pid)
{
    char state;
    long n_threads = 0;
    uint64_t start = 0;
    return read_stat(pid, &state, &n_threads, &start) ? start : 0;
}

bool fx_process_gone(uint32_t pid, uint64_t start_ticks)
{
    if (kill((pid_t)pid, 0) != 0 && errno == ESRCH)
        return true;
    char state;
    long n_threads = 0;
    uint64_t start = 0;
    if (!read_stat(pid, &state, &n_threads, &start))
        return false; /* alive, and /proc is hidden from us */
    if (start_ticks && start != start_ticks)
        return true;
    return (state == 'Z' || state == 'X') && n_threads <= 1; /* a leader may end before its threads do */
}

uint32_t fx_pid_ns(void)
{
    char text[64];
    ssize_t n = readlink("/proc/self/ns/pid", text, sizeof text - 1); /* "pid:[4026531836]" */
    if (n <= 5)
        return 0;
    text[n] = 0;
    return (uint32_t)strtoul(text + 5, NULL, 10);
}
