/* SPDX-License-Identifier: Apache-2.0
 * One card as the arbiter holds it: our own client with device, subdevice and the log's reader; the groups found so far.
 */
#ifndef FLEXAI_NVIDIA_CARD_H
#define FLEXAI_NVIDIA_CARD_H
#include <stdbool.h>
#include "channel_control.h"
#include "rm.h"

#define MAX_KNOWN 512

/* A compute group of a process. No descriptor of the process is kept: a duplicate would keep a dead tenant's memory. */
struct known_group {
    bool used;
    uint32_t pid;
    uint64_t start_ticks;
    int fd;              /* number of the control descriptor in that process */
    uint32_t client, group;
    uint32_t n_channels;
    uint32_t channel[CC_MAX_GROUP_CHANNELS];
};

struct nvidia_card {
    int control, device_fd;
    uint32_t root, device, subdevice, gpu_id;
    uint32_t h_header, h_records, h_buffer;
    const struct nv_event_header *header;
    const struct nv_fecs_record *records;
    uint32_t get;
    uint64_t drops_seen;
    int64_t clock_offset;   /* CLOCK_MONOTONIC less the card's clock, the least seen lately */
    uint64_t offset_at;
    uint32_t low_client;    /* clients made before this one are known or not ours */
    struct known_group known[MAX_KNOWN];
};

/* log.c */
int nvidia_log_open(struct nvidia_card *card);
void nvidia_log_close(struct nvidia_card *card);
int nvidia_log_read(struct nvidia_card *card, struct cc_log_record *records, int max, uint64_t *dropped, uint64_t *now_ns);
/* discover.c */
int nvidia_discover(struct nvidia_card *card, uint32_t pid, struct cc_group *groups, int max);
uint64_t nvidia_start_ticks(uint32_t pid);
uint64_t nvidia_now_ns(void);
#endif
