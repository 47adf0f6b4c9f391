/* SPDX-License-Identifier: Apache-2.0
 * The context-switch log (FECS event buffer): who had the card, to the nanosecond. The reader's contract follows
 * fecs_event_list.c and eventbufferproducer.c: the oldest records are kept and drops counted, the counter is read before
 * UPDATE_GET resets it, the ring is not 2^16 records long (their sequence has 16 bits), and we flush ourselves.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include "card.h"

#define N_RECORDS 32768u
#define HEADER_BYTES 4096u
#define RECORD_BYTES (N_RECORDS * sizeof(struct nv_fecs_record))
#define OFFSET_FOR_NS 10000000000ull /* the least offset is forgotten after so long: clocks drift */

uint64_t nvidia_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static int memory(struct nvidia_card *c, uint32_t *object, uint64_t bytes)
{
    struct nv_memory_params m = {.attr = NV_ATTR_CACHED, .attr2 = NV_ATTR2_USER_READ_ONLY, .size = bytes, .numa = -1};
    int error = rm_alloc(c->control, c->root, c->root, object, NV_MEMORY_LIST_SYSTEM, &m, sizeof m);
    if (!error)
        return 0;
    struct nv_memory_params old = {.attr = NV_ATTR_CACHED, .attr2 = NV_ATTR2_USER_READ_ONLY, .size = bytes};
    return rm_alloc(c->control, c->root, c->root, object, NV_MEMORY_LIST_SYSTEM, &old, NV_MEMORY_PARAMS_BEFORE_550);
}

int nvidia_log_open(struct nvidia_card *c)
{
    c->h_header = 0xf1000003;
    c->h_records = 0xf1000004;
    c->h_buffer = 0xf1000005;
    int error = memory(c, &c->h_header, HEADER_BYTES);
    if (!error)
        error = memory(c, &c->h_records, RECORD_BYTES);
    struct nv_event_buffer_params p = {
        .record_bytes = sizeof(struct nv_fecs_record), .n_records = N_RECORDS, .subdevice = c->subdevice,
        .h_header = c->h_header, .h_records = c->h_records};
    if (!error)
        error = rm_alloc(c->control, c->root, c->root, &c->h_buffer, NV_EVENT_BUFFER, &p, sizeof p);
    if (!error)
        c->header = rm_map(c->control, c->root, c->h_header, HEADER_BYTES, &error);
    if (!error)
        c->records = rm_map(c->control, c->root, c->h_records, RECORD_BYTES, &error);
    struct nv_fecs_bind bind = {
        .buffer = c->h_buffer, .record_bytes = sizeof(struct nv_fecs_record), .level = NV_FECS_LEVEL_COMPAT, .all_users = 1};
    if (!error)
        error = rm_control(c->control, c->root, c->subdevice, NV2080_EVENT_FECS_BIND_EVTBUF_V2, &bind, sizeof bind);
    struct nv_event_enable enable = {.enable = 1, .flags = NV_OVERFLOW_KEEP_OLDEST};
    if (!error)
        error = rm_control(c->control, c->root, c->h_buffer, NV90CD_ENABLE, &enable, sizeof enable);
    if (error)
        nvidia_log_close(c);
    return error;
}

void nvidia_log_close(struct nvidia_card *c)
{
    if (c->header)
        rm_system->unmap((void *)(uintptr_t)c->header, HEADER_BYTES);
    if (c->records)
        rm_system->unmap((void *)(uintptr_t)c->records, RECORD_BYTES);
    c->header = NULL;
    c->records = NULL;
}

/* The card's clock now, by the smallest delay seen between a record's time and ours. */
static uint64_t card_now(struct nvidia_card *c, uint64_t latest_ts, uint64_t now)
{
    if (latest_ts) {
        int64_t offset = (int64_t)(now - latest_ts);
        if (!c->offset_at || offset < c->clock_offset || now - c->offset_at > OFFSET_FOR_NS) {
            c->clock_offset = offset;
            c->offset_at = now;
        }
    }
    return c->offset_at ? (uint64_t)((int64_t)now - c->clock_offset) : now;
}

int nvidia_log_read(struct nvidia_card *c, struct cc_log_record *out, int max, uint64_t *dropped, uint64_t *now_ns)
{
    if (!c->header)
        return -ENOSYS;
    int error = rm_control(c->control, c->root, c->h_buffer, NV90CD_FLUSH, NULL, 0);
    if (error)
        return error;
    uint64_t now = nvidia_now_ns(), drops = *(const volatile uint64_t *)&c->header->dropped, latest = 0;
    uint32_t put = *(const volatile uint32_t *)&c->header->put;
    atomic_thread_fence(memory_order_acquire);
    if (put >= N_RECORDS)
        return -EPROTO;
    int n = 0;
    while (c->get != put && n < max) {
        const struct nv_fecs_record *r = &c->records[c->get];
        c->get = (c->get + 1) % N_RECORDS;
        if (r->tag != NV_FECS_RUNS && r->tag != NV_FECS_LEFT)
            continue;
        latest = r->ts_ns;
        out[n++] = (struct cc_log_record){
            .ts_ns = r->ts_ns, .pid = r->pid, .context = r->context,
            .kind = r->tag == NV_FECS_RUNS ? CC_LOG_START : CC_LOG_END};
    }
    *dropped = drops;
    *now_ns = card_now(c, latest, now);
    struct nv_event_get get = {c->get, 0};
    error = rm_control(c->control, c->root, c->h_buffer, NV90CD_UPDATE_GET, &get, sizeof get);
    return error ? error : n;
}
