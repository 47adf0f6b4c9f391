/* SPDX-License-Identifier: Apache-2.0
 *
 * The parts of cc_nvidia, which see the machine only through `struct nv_sys`, so that tests can be the driver.
 *   rm.c        one client of NVIDIA's resource manager: alloc, control, free; statuses to errno
 *   log.c       the context-switch log
 *   memory.c    how much of the card's memory is free, without the driver's locks
 *   processes.c which processes are known, their descriptors borrowed for one call at a time
 *   discover.c  the compute groups of a process, found from outside
 *   control.c   time slices, stop and resume, preemption
 *   nvidia.c    the table cc_nvidia, opening and self-test
 * One thread per card object; several cards are several objects.
 */
#ifndef FLEXAI_NVIDIA_H
#define FLEXAI_NVIDIA_H
#include "abi.h"
#include "card_clock.h"
#include "channel_control.h"

#define NV_MAX_CARDS 32
#define NV_MAX_PROCESSES 256
#define NV_MAX_GROUPS 512
#define NV_MAX_CLIENTS 8             /* of one process, that own compute groups */
#define NV_MAX_FDS 256               /* control descriptors looked at in one process */
#define NV_MAX_MARKS 64
#define NV_MAX_DRAWN 256
#define NV_LOG_RECORDS (1u << 15)    /* not 2^16: the sequence has 16 bits, and a lost lap must show */

struct nv_card_file { char uuid[48]; int minor; }; /* uuid empty: not told */

/* The machine. Every function answers 0 or more, or a negative errno. */
struct nv_sys {
    void *context;
    int (*open)(void *context, const char *path);
    int (*close)(void *context, int fd);
    int (*ioctl)(void *context, int fd, unsigned long request, void *argument);
    void *(*map)(void *context, size_t length, int fd); /* read-only; NULL on failure */
    void (*unmap)(void *context, void *at, size_t length);
    int (*pidfd_open)(void *context, uint32_t pid);
    int (*process_ended)(void *context, int pidfd);     /* 1, or 0 */
    /* A duplicate of a process's descriptor, only if it is (still) the driver's control device. */
    int (*borrow)(void *context, int pidfd, int fd);
    /* The process's descriptors of the control device, ascending; the count, at most max. */
    int (*control_fds)(void *context, uint32_t pid, int *fds, int max);
    int (*start_ticks)(void *context, uint32_t pid, uint64_t *ticks);
    int (*cards)(void *context, struct nv_card_file *cards, int max);
    uint64_t (*capabilities)(void *context);            /* effective, as in capability.h */
    uint64_t (*now_ns)(void *context);                  /* monotonic */
    uint64_t (*now_ticks)(void *context);               /* since boot, unit of start_ticks */
};
extern const struct nv_sys nv_machine;

/* ---- rm.c ---- */
struct nv_rm {
    const struct nv_sys *sys;
    int fd;
    uint32_t client;
    uint32_t next_handle;
    uint32_t status;                 /* the driver's word on the last failure; 0 if it was an errno */
};
int nv_errno(uint32_t status);       /* negative errno for a driver status */
int nv_control_as(struct nv_rm *rm, int fd, uint32_t client, uint32_t object, uint32_t command, void *parameters,
                  size_t n);
int nv_control(struct nv_rm *rm, uint32_t object, uint32_t command, void *parameters, size_t n);
int nv_alloc(struct nv_rm *rm, uint32_t parent, uint32_t class, void *parameters, size_t n, uint32_t *handle);
int nv_free(struct nv_rm *rm, uint32_t parent, uint32_t handle);
/* Read-only; NULL on failure. */
const void *nv_map(struct nv_rm *rm, uint32_t device, uint32_t memory, size_t length);
int nv_rm_open(struct nv_rm *rm, const struct nv_sys *sys);
void nv_rm_close(struct nv_rm *rm);
/* A number no client had before: a fresh client, freed at once. 0 if none could be had. */
uint32_t nv_fresh_client(const struct nv_sys *sys);

/* ---- log.c ---- */
struct nv_log {
    uint32_t buffer, header_memory, records_memory;
    const volatile struct nv_log_header *header;
    const struct nv_log_record *records;
    uint32_t n_records, get, told; /* told: the driver knows that we are so far */
    uint16_t sequence;
    uint8_t open, have_sequence, clock_is_guessed, bound;
    uint64_t reported;               /* losses already told since the last gap in the sequence */
    struct card_clock clock;
    uint64_t calibrated_at_ns, last_ts_ns;
    struct { uint32_t context, pid; } names[1024];
};
int nv_log_open(struct nv_log *log, struct nv_rm *rm, uint32_t subdevice, char *why, size_t n_why);
void nv_log_close(struct nv_log *log, struct nv_rm *rm);
int nv_log_read(struct nv_log *log, struct nv_rm *rm, uint32_t subdevice, struct cc_log_record *records, int max,
                uint64_t *dropped, struct cc_moment *told);

/* ---- memory.c ---- */
struct nv_card;
struct nv_memory {
    uint32_t object;
    const volatile struct nv_shared_data *data;
};
int nv_memory_open(struct nv_memory *memory, struct nv_card *card);
void nv_memory_close(struct nv_memory *memory, struct nv_card *card);
/* Bytes of the card that nobody has, kept by the driver as it gives and takes; no call, no lock. -EAGAIN: being written. */
int nv_memory_read(const struct nv_memory *memory, uint64_t *free_bytes);

/* ---- processes.c ---- */
struct nv_client {                   /* of a process, and what is known of its objects */
    uint32_t client;
    int fd;                          /* number of its descriptor there */
    uint32_t n_objects, room, cursor, end; /* end: one past the last that was there */
    struct { uint32_t class, parent; } *objects;
};
struct nv_process {
    uint32_t pid;
    uint64_t start_ticks;
    int pidfd;
    int n_clients;
    struct nv_client *clients[NV_MAX_CLIENTS];
    uint32_t tried_to;               /* every client number below this has been tried */
    uint32_t fds_tried;              /* with these descriptors: their hash */
    uint8_t used;
};
struct nv_group {
    uint32_t client, group, n_channels, asked_us;
    uint16_t generation, process;
    int fd;                          /* the tenant's own descriptor number, borrowed when needed */
    uint8_t used, seen, stopped;
    uint8_t unshown;                 /* began before our log: if it is alone and busy, no record says so */
    uint32_t channels[CC_MAX_GROUP_CHANNELS];
};
struct nv_mark { uint64_t ticks; uint32_t client; };

struct nv_card {
    const struct nv_sys *sys;
    struct nv_rm rm;
    int card_fd, n_cards;
    char uuid[48];
    uint32_t gpu, device, subdevice;
    struct nv_log log;
    struct nv_process processes[NV_MAX_PROCESSES];
    struct nv_group groups[NV_MAX_GROUPS];
    struct nv_mark marks[NV_MAX_MARKS];
    int n_marks, n_unshown;
    uint64_t opened_ticks;
    uint32_t drawn[NV_MAX_DRAWN];    /* numbers of our own short-lived clients, a ring: never worth a guess */
    unsigned n_drawn;
    uint64_t n_guesses;              /* client numbers tried in vain: each is a line in the kernel's log */
};
/* The process, known or made known; NULL if it is gone (-ESRCH), or the table is full. */
int nv_process_of(struct nv_card *card, uint32_t pid, struct nv_process **process);
void nv_process_drop(struct nv_card *card, struct nv_process *process);
struct nv_group *nv_group_of(struct nv_card *card, uint32_t handle);
uint32_t nv_group_handle(const struct nv_card *card, const struct nv_group *group);
struct nv_group *nv_group_add(struct nv_card *card, struct nv_process *process, uint32_t client, uint32_t group);
void nv_group_drop(struct nv_card *card, struct nv_group *group);
int nv_borrow(struct nv_card *card, const struct nv_process *process, int fd);

/* ---- discover.c ---- */
void nv_client_free(struct nv_client *client);
void nv_mark_now(struct nv_card *card);
int nv_discover(struct nv_card *card, uint32_t pid, struct cc_group *groups, int max);

/* ---- control.c ---- */
int nv_set_timeslice(struct nv_card *card, uint32_t handle, uint32_t us);
int nv_get_timeslice(struct nv_card *card, uint32_t handle, uint32_t *us);
/* 1 if somebody else changed the time slice since we set it, 0 if not (or never set). */
int nv_timeslice_tampered(struct nv_card *card, uint32_t handle, uint32_t *asked_us, uint32_t *found_us);
int nv_preempt(struct nv_card *card, uint32_t handle);
/* Preempt each group that began before our log did, once: if it is busy it comes back, and the log says so. */
void nv_show(struct nv_card *card);
int nv_stop(struct nv_card *card, const uint32_t *handles, int n, int stopped);

/* ---- nvidia.c ---- */
/* The card of that UUID; "" is the first. Attached: without its log. */
int nv_attach(const struct nv_sys *sys, struct nv_card **card, const char *uuid, char *why, size_t n_why);
int nv_open(const struct nv_sys *sys, struct nv_card **card, const char *uuid, char *why, size_t n_why);
void nv_close(struct nv_card *card);
struct nv_check { char name[24]; int error; uint32_t status; uint64_t cost_ns; char note[160]; };
/* Try each control on what is ours; the count of checks written. */
int nv_self_test(struct nv_card *card, struct cc_capabilities *caps, struct nv_check *checks, int max);
#endif
