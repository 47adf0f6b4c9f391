/* SPDX-License-Identifier: Apache-2.0
 *
 * A driver made of memory: objects of clients, a log ring, processes with descriptors; any control can be told to fail,
 * hang on garbage, or be cut short by a process's death. Every descriptor is counted.
 */
#ifndef FAKE_DRIVER_H
#define FAKE_DRIVER_H
#include "nvidia.h"

#define FAKE_UUID "GPU-11111111-2222-3333-4444-555555555555"
#define FAKE_GPU 0x600u
#define FAKE_OTHER_GPU 0x700u
#define FAKE_OBJECTS 4096

enum fake_fd_kind { FAKE_FREE, FAKE_CONTROL, FAKE_CARD, FAKE_PIDFD, FAKE_BORROWED };
struct fake_object { uint32_t client, handle, class, parent, gpu; int disabled; uint64_t timeslice; };
struct fake_process { uint32_t pid; uint64_t start; int ended, n_fds, fds[64]; uint32_t clients[64]; };

struct fake_driver {
    struct { enum fake_fd_kind kind; uint32_t pid; int fd; } fds[512];
    int n_open, most_open;
    struct fake_object objects[FAKE_OBJECTS];
    int n_objects;
    struct fake_object *last_object;
    struct fake_process processes[512];
    int n_processes;
    uint32_t next_client;
    uint64_t now_ns, now_ticks, capabilities;
    int64_t card_offset_ns;
    uint32_t slow_command; /* whose answer takes so long, */
    uint64_t slow_ns;
    int n_cards, no_proc;
    /* faults */
    uint32_t fail_command, fail_status;  /* this control answers that */
    int fail_errno, fail_after;          /* or the ioctl itself; after so many good answers */
    uint32_t fail_class;                 /* allocations of this class are refused */
    uint32_t dead_channel;               /* DISABLE names it: refused */
    uint32_t kill_pid_at_command;        /* the process of pid dies when the control is asked */
    uint32_t kill_pid;
    int old_memory_abi;                  /* a driver of 535: the longer structure is refused */
    /* what was asked */
    int n_controls, n_preempts, n_disable_calls, n_wrong_clients, n_fresh_clients, n_update_get, biggest_disable;
    uint64_t last_timeslice;
    /* the log */
    struct nv_log_header header;
    struct nv_log_record records[NV_LOG_RECORDS];
    uint16_t sequence;
    int n_maps;
    struct nv_shared_data shared;
    struct nv_sys sys;
};
struct fake_driver *fake_new(void);
uint32_t fake_client(struct fake_driver *f, uint32_t pid, int fd);
void fake_object(struct fake_driver *f, uint32_t client, uint32_t handle, uint32_t class, uint32_t parent);
struct fake_process *fake_process(struct fake_driver *f, uint32_t pid, int n_fds);
/* A context as NVIDIA's library makes it: device, subdevice, compute group with channels, a copy group beside it. */
uint32_t fake_context(struct fake_driver *f, uint32_t client, uint32_t first, int n_channels, uint32_t gpu);
void fake_log(struct fake_driver *f, int tag, uint32_t pid, uint32_t context, uint64_t ts_ns);
void fake_kill(struct fake_driver *f, uint32_t pid);
int fake_disabled(struct fake_driver *f, uint32_t client);
#endif
