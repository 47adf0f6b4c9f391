/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's context-switch log (fecs_event_list.c, eventbufferproducer.c in tag 580.95.05): a ring in shared memory
 * that the driver fills when asked to flush. Kept oldest, so that losses are counted: `dropped` in the header is reset
 * by UPDATE_GET and so read first, and a gap in the 16-bit sequence shows what happened between the two.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "nvidia.h"

#define CALIBRATE_EVERY_NS 1000000000ull
#define CALIBRATE_AGAIN_NS 20000000ull /* while it is not known well: others kept the driver's locks as we asked */
#define UNSURE_NS 100000
#define TOLD_PARTS 8                  /* of the ring: when so much of it was read, the driver may write there again */
#define CLOCK_TOLERANCE_NS 2000000    /* a record this far ahead of what the card's clock can show: not the same clock */
#define N_NAMES (sizeof((struct nv_log *)0)->names / sizeof((struct nv_log *)0)->names[0])

static uint64_t now(const struct nv_rm *rm)
{
    return rm->sys->now_ns(rm->sys->context);
}

static int memory(struct nv_rm *rm, size_t length, uint32_t *handle)
{
    struct nv_memory_alloc wanted = {
        .attributes = NV_MEMORY_ATTR_CACHED,
        .attributes2 = NV_MEMORY_ATTR2_USER_READ_ONLY,
        .size = length,
        .numa_node = -1,
    };
    int error = nv_alloc(rm, rm->client, NV_CLASS_EVENT_MEMORY, &wanted, sizeof wanted, handle);
    if (error && (rm->status == NV_STATUS_INVALID_PARAM_STRUCT || rm->status == NV_STATUS_INVALID_ARGUMENT))
        error = nv_alloc(rm, rm->client, NV_CLASS_EVENT_MEMORY, &wanted, NV_MEMORY_ALLOC_535, handle);
    return error;
}

static const char *bind_reason(uint32_t reason)
{
    static const char *const texts[] = {
        "no reason given", "this card is too old", "not enabled on this card", "not enabled",
        "needs CAP_SYS_ADMIN in the initial user namespace", "needs the profiling capability",
    };
    return reason < sizeof texts / sizeof *texts ? texts[reason] : "unknown reason";
}

/* The card's clock against ours: what three questions tell. */
static void calibrate(struct nv_log *log, struct nv_rm *rm, uint32_t subdevice)
{
    for (int i = 0; i < 3; i++) {
        uint64_t card = 0, before = now(rm);
        if (nv_control(rm, subdevice, NV_GET_TIME, &card, sizeof card) || !card) {
            log->clock_is_guessed = 1;
            return;
        }
        card_clock_saw(&log->clock, before, card, now(rm));
    }
    log->calibrated_at_ns = now(rm);
    if (log->last_ts_ns > log->calibrated_at_ns + (uint64_t)log->clock.most_ns + CLOCK_TOLERANCE_NS)
        log->last_ts_ns = 0; /* it was set back */
}

static void calibrate_in_time(struct nv_log *log, struct nv_rm *rm, uint32_t subdevice)
{
    uint64_t every = card_clock_unsure(&log->clock) > UNSURE_NS ? CALIBRATE_AGAIN_NS : CALIBRATE_EVERY_NS;
    if (!log->clock_is_guessed && now(rm) - log->calibrated_at_ns > every)
        calibrate(log, rm, subdevice);
}

int nv_log_open(struct nv_log *log, struct nv_rm *rm, uint32_t subdevice, char *why, size_t n_why)
{
    memset(log, 0, sizeof *log);
    const char *step = "memory of the log";
    log->n_records = NV_LOG_RECORDS;
    size_t length = (size_t)log->n_records * sizeof(struct nv_log_record);
    int error = memory(rm, 4096, &log->header_memory);
    if (!error)
        error = memory(rm, length, &log->records_memory);
    if (!error) {
        step = "event buffer";
        struct nv_event_buffer_alloc wanted = {
            .record_size = sizeof(struct nv_log_record),
            .n_records = log->n_records,
            .subdevice = subdevice,
            .header = log->header_memory,
            .records = log->records_memory,
        };
        error = nv_alloc(rm, rm->client, NV_CLASS_EVENT_BUFFER, &wanted, sizeof wanted, &log->buffer);
    }
    if (!error) {
        step = "mapping of the log"; /* its memory has no device: the client stands for it */
        log->header = nv_map(rm, rm->client, log->header_memory, 4096);
        log->records = log->header ? nv_map(rm, rm->client, log->records_memory, length) : NULL;
        error = log->records ? 0 : -EIO;
    }
    struct nv_bind_log bind = {
        .event_buffer = log->buffer,
        .record_size = sizeof(struct nv_log_record),
        .detail = NV_LOG_DETAIL_SIMPLE,
        .all_users = 1,
    };
    if (!error) {
        step = "binding of the log";
        error = nv_control(rm, subdevice, NV_BIND_LOG, &bind, sizeof bind);
        if (error)
            step = bind_reason(bind.reason);
    }
    if (!error) {
        step = "enabling of the log";
        struct nv_log_enable enable = {.enable = 1, .flags = NV_LOG_KEEP_OLDEST};
        error = nv_control(rm, log->buffer, NV_LOG_ENABLE, &enable, sizeof enable);
    }
    if (error) {
        snprintf(why, n_why, "%s: %s (driver status 0x%x)", step, strerror(-error), rm->status);
        nv_log_close(log, rm);
        return error;
    }
    log->get = log->told = log->header->put < log->n_records ? log->header->put : 0;
    calibrate(log, rm, subdevice);
    log->open = 1;
    return 0;
}

void nv_log_close(struct nv_log *log, struct nv_rm *rm)
{
    const struct nv_sys *sys = rm->sys;
    if (log->buffer)
        nv_free(rm, rm->client, log->buffer);
    if (log->records)
        sys->unmap(sys->context, (void *)(uintptr_t)log->records, (size_t)log->n_records * sizeof *log->records);
    if (log->header)
        sys->unmap(sys->context, (void *)(uintptr_t)log->header, 4096);
    if (log->records_memory)
        nv_free(rm, rm->client, log->records_memory);
    if (log->header_memory)
        nv_free(rm, rm->client, log->header_memory);
    memset(log, 0, sizeof *log);
}

/* A freed context's last record may have lost its pid; who started it still knows. */
static uint32_t name(struct nv_log *log, const struct nv_log_record *record)
{
    size_t at = (record->context * 2654435761u) % N_NAMES;
    if (record->pid != NV_PID_UNKNOWN) {
        log->names[at].context = record->context;
        log->names[at].pid = record->pid;
        return record->pid;
    }
    return log->names[at].pid && log->names[at].context == record->context ? log->names[at].pid : NV_PID_UNKNOWN;
}

/* Losses that a gap in the sequence shows, beyond those already told: the gap is known modulo 2^16 only. */
static uint64_t gap(struct nv_log *log, uint16_t sequence)
{
    uint16_t expected = (uint16_t)(log->sequence + 1);
    uint64_t lost = log->have_sequence ? (uint16_t)(sequence - expected) : 0;
    log->sequence = sequence;
    log->have_sequence = 1;
    if (!lost)
        return 0; /* older than what was dropped, if anything was */
    while (lost < log->reported)
        lost += 1u << 16;
    uint64_t news = lost - log->reported;
    log->reported = 0;
    return news;
}

static int64_t too_early(const struct nv_log *log, uint64_t ts_ns, uint64_t flushed_ns)
{
    return (int64_t)(ts_ns - flushed_ns) - log->clock.most_ns;
}

/* A record is older than the end of the call that brought it. */
static void judge_clock(struct nv_log *log, struct nv_rm *rm, uint32_t subdevice, uint64_t ts_ns, uint64_t flushed_ns)
{
    if (!log->clock_is_guessed && too_early(log, ts_ns, flushed_ns) > CLOCK_TOLERANCE_NS) {
        calibrate(log, rm, subdevice); /* it was set, perhaps */
        log->clock_is_guessed |= too_early(log, ts_ns, flushed_ns) > CLOCK_TOLERANCE_NS;
    }
    /* The least delay ever seen between a record and its reading is as near as records alone can tell. */
    if (log->clock_is_guessed && (!log->clock.seen_at || too_early(log, ts_ns, flushed_ns) > 0))
        log->clock = (struct card_clock){(int64_t)(ts_ns - flushed_ns), (int64_t)(ts_ns - flushed_ns), flushed_ns};
}

int nv_log_read(struct nv_log *log, struct nv_rm *rm, uint32_t subdevice, struct cc_log_record *records, int max,
                uint64_t *dropped, struct cc_moment *told)
{
    *dropped = 0;
    *told = (struct cc_moment){0};
    if (!log->open)
        return -EOPNOTSUPP;
    calibrate_in_time(log, rm, subdevice);
    /* Every record before this instant is in the ring once the flush is over, and what came while it waited for locks. */
    uint64_t began_at = now(rm);
    int error = nv_control(rm, log->buffer, NV_LOG_FLUSH, NULL, 0);
    if (error)
        return error;
    uint64_t flushed_at = now(rm);
    uint64_t lost = log->header->dropped;
    uint32_t put = log->header->put;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (put >= log->n_records)
        return -EPROTO;
    log->reported += lost;
    *dropped = lost;
    int n = 0;
    for (; log->get != put && n < max; log->get = (log->get + 1) % log->n_records) {
        struct nv_log_record record = log->records[log->get];
        *dropped += gap(log, record.sequence);
        if (record.tag != NV_TAG_RUNS && record.tag != NV_TAG_LEFT)
            continue;
        judge_clock(log, rm, subdevice, record.timestamp, flushed_at);
        log->last_ts_ns = record.timestamp;
        records[n++] = (struct cc_log_record){
            .ts_ns = record.timestamp,
            .pid = name(log, &record),
            .context = record.context,
            .kind = record.tag == NV_TAG_RUNS ? CC_LOG_START : CC_LOG_END,
        };
    }
    int more = log->get != put;
    /* The driver need not know each time how far we are: the call takes every card's locks as the flush does. */
    uint32_t untold = (log->get + log->n_records - log->told) % log->n_records;
    struct nv_log_get got = {.records = log->get};
    if (lost || untold >= log->n_records / TOLD_PARTS) {
        error = nv_control(rm, log->buffer, NV_LOG_UPDATE_GET, &got, sizeof got);
        if (error)
            return error;
        log->told = log->get;
    }
    uint64_t ahead = (uint64_t)card_clock_ahead(&log->clock), complete = began_at + ahead;
    /* With records left to read, time has only been accounted up to the last one given out. */
    told->card_ns = more || complete < log->last_ts_ns ? log->last_ts_ns : complete;
    told->our_ns = told->card_ns - ahead;
    return n;
}
