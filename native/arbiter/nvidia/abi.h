/* SPDX-License-Identifier: Apache-2.0
 *
 * What this folder knows of NVIDIA's driver: ioctl and control numbers, classes, structures. Layouts are facts of the
 * driver's ABI, taken from the headers of its open kernel modules (tag 580.95.05; the header is named at each), and
 * compared with 535, 550, 570 and 595. Differences between branches:
 *   - NV_MEMORY_ALLOCATION_PARAMS ends at `tag` in 535 and gained `numaNode` in 550 (both sizes are tried, new first).
 *   - everything else here is the same in all five.
 */
#ifndef FLEXAI_NVIDIA_ABI_H
#define FLEXAI_NVIDIA_ABI_H
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* ---- ioctls: nv-ioctl-numbers.h, nv_escape.h, nvos.h ---- */
#define NV_IOCTL(number, type) _IOWR('F', number, type)
#define NV_MAJOR 195
#define NV_CONTROL_MINOR 255

struct nv_register_fd { int32_t ctl_fd; };                      /* nv-ioctl.h nv_ioctl_register_fd_t */
#define NV_ESC_REGISTER_FD NV_IOCTL(201, struct nv_register_fd)

struct nv_os_free { uint32_t root, parent, object, status; };   /* nvos.h NVOS00_PARAMETERS */
#define NV_ESC_RM_FREE NV_IOCTL(0x29, struct nv_os_free)

struct nv_os_control {                                          /* nvos.h NVOS54_PARAMETERS */
    uint32_t client, object, command, flags;
    uint64_t parameters;
    uint32_t n_parameters, status;
};
#define NV_ESC_RM_CONTROL NV_IOCTL(0x2A, struct nv_os_control)

struct nv_os_alloc {                                            /* nvos.h NVOS21_PARAMETERS */
    uint32_t root, parent, object, class;
    uint64_t parameters;
    uint32_t n_parameters, status;
};
#define NV_ESC_RM_ALLOC NV_IOCTL(0x2B, struct nv_os_alloc)

struct nv_os_map {                                              /* nvos.h NVOS33 + nv-unix-nvos-params-wrappers.h */
    uint32_t client, device, memory, pad;
    uint64_t offset, length, linear;
    uint32_t status, flags;
    int32_t fd;
    uint32_t pad2;
};
#define NV_ESC_RM_MAP_MEMORY NV_IOCTL(0x4E, struct nv_os_map)
#define NV_MAP_READ_ONLY 1u

_Static_assert(sizeof(struct nv_os_control) == 32 && sizeof(struct nv_os_alloc) == 32, "nvos.h");
_Static_assert(sizeof(struct nv_os_map) == 56 && offsetof(struct nv_os_map, fd) == 48, "nvos.h");

/* ---- status: nvstatuscodes.h ---- */
enum {
    NV_STATUS_OK = 0x00,
    NV_STATUS_INSUFFICIENT_PERMISSIONS = 0x1B,
    NV_STATUS_INVALID_ARGUMENT = 0x1F,
    NV_STATUS_INVALID_CHANNEL = 0x21,
    NV_STATUS_INVALID_CLIENT = 0x23,
    NV_STATUS_INVALID_COMMAND = 0x24,
    NV_STATUS_INVALID_OBJECT = 0x31,
    NV_STATUS_INVALID_OBJECT_HANDLE = 0x33,
    NV_STATUS_INVALID_PARAM_STRUCT = 0x3A,
    NV_STATUS_INVALID_STATE = 0x40,
    NV_STATUS_NO_MEMORY = 0x51,
    NV_STATUS_NOT_SUPPORTED = 0x56,
    NV_STATUS_OBJECT_NOT_FOUND = 0x57,
    NV_STATUS_TIMEOUT = 0x65,
    NV_STATUS_GPU_IS_LOST = 0x0F,
};

/* ---- classes ---- */
enum {
    NV_CLASS_CLIENT = 0x0041,        /* cl0041.h NV01_ROOT_CLIENT */
    NV_CLASS_DEVICE = 0x0080,        /* cl0080.h NV01_DEVICE_0 */
    NV_CLASS_SUBDEVICE = 0x2080,     /* cl2080.h NV20_SUBDEVICE_0 */
    NV_CLASS_GROUP = 0xA06C,         /* cla06c.h KEPLER_CHANNEL_GROUP_A */
    NV_CLASS_EVENT_BUFFER = 0x90CD,  /* cl90cd.h NV_EVENT_BUFFER */
    NV_CLASS_EVENT_MEMORY = 0x90CE,  /* cl90ce.h NV01_MEMORY_DEVICELESS */
    NV_CLASS_SHARED_DATA = 0x00DE,   /* cl00de.h RM_USER_SHARED_DATA; 545 and later */
};
/* Channels are 0x..6F from Kepler (A16F) on, compute objects 0x..C0 (A0C0): one pair per generation of hardware. */
static inline int nv_is_channel(uint32_t class) { return (class & 0xFF) == 0x6F && class >= 0xA06F; }
static inline int nv_is_compute(uint32_t class) { return (class & 0xFF) == 0xC0 && class >= 0xA0C0; }

/* ---- allocation parameters ---- */
struct nv_device_alloc {             /* cl0080.h NV0080_ALLOC_PARAMETERS */
    uint32_t device, client_share, target_client, target_device, flags, pad;
    uint64_t va_size, va_start, va_limit;
    uint32_t va_mode, pad2;
};
#define NV_DEVICE_VA_MODE_MULTIPLE 2u
struct nv_subdevice_alloc { uint32_t subdevice; };
struct nv_group_alloc {              /* nvos.h NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS */
    uint32_t error_object, ecc_object, va_space, engine;
    uint8_t for_vgpu_plugin, pad[3];
};
#define NV_ENGINE_GRAPHICS 1u        /* cl2080_notification.h NV2080_ENGINE_TYPE_GR0 */
struct nv_memory_alloc {             /* nvos.h NV_MEMORY_ALLOCATION_PARAMS */
    uint32_t owner, type, flags, width, height;
    int32_t pitch;
    uint32_t attributes, attributes2, format, compression_coverage, zcull, pad;
    uint64_t range_low, range_high, size, alignment, offset, limit, address;
    uint32_t context_tag, va_space, internal_flags, tag;
    int32_t numa_node;               /* 550 and later */
    uint32_t pad2;
};
#define NV_MEMORY_ALLOC_535 offsetof(struct nv_memory_alloc, numa_node)
#define NV_MEMORY_ATTR_CACHED (1u << 29)          /* nvos.h NVOS32_ATTR_COHERENCY_CACHED */
#define NV_MEMORY_ATTR2_USER_READ_ONLY (1u << 22) /* nvos.h NVOS32_ATTR2_PROTECTION_USER */
struct nv_event_buffer_alloc {       /* cl90cd.h NV_EVENT_BUFFER_ALLOC_PARAMETERS */
    uint64_t header_out, records_out;
    uint32_t record_size, n_records;
    uint64_t vardata_out;
    uint32_t vardata_size, records_threshold;
    uint64_t notification;
    uint32_t vardata_threshold, subdevice, flags, header, records, vardata;
};

/* ---- controls ---- */
#define NV_GET_HANDLE_INFO 0x0D02u   /* ctrl0000client.h NV0000_CTRL_CMD_CLIENT_GET_HANDLE_INFO */
struct nv_handle_info { uint32_t object, index; uint64_t value; };
enum { NV_HANDLE_PARENT = 1, NV_HANDLE_CLASS = 2 };

#define NV_GET_PROBED_IDS 0x0214u    /* ctrl0000gpu.h; ended by NV_NO_GPU */
#define NV_GET_ATTACHED_IDS 0x0201u
#define NV_MAX_GPUS 32
#define NV_NO_GPU 0xFFFFFFFFu
struct nv_attached_ids { uint32_t ids[NV_MAX_GPUS]; };
#define NV_GET_ID_INFO 0x0205u
struct nv_id_info {
    uint32_t gpu, flags, device_instance, subdevice_instance, sli_status, board, gpu_instance;
    int32_t numa;
};
#define NV_GET_UUID 0x0275u
struct nv_uuid { uint32_t gpu, flags; uint8_t text[256]; uint32_t length; };
#define NV_GET_GPU_ID 0x20800142u    /* ctrl2080gpu.h */
#define NV_GET_TIME 0x20800403u      /* ctrl2080tmr.h, u64 ns */

#define NV_SET_TIMESLICE 0xA06C0103u /* ctrla06cgpfifo.h, u64 us */
#define NV_GET_TIMESLICE 0xA06C0104u
#define NV_PREEMPT 0xA06C0105u
struct nv_preempt { uint8_t wait, manual_timeout, pad[2]; uint32_t timeout_us; };
/* Left to itself the driver waits 4 s for a group that never ran, its locks held: the wait is bounded by us. */
#define NV_PREEMPT_WITHIN(us) {.wait = 1, .manual_timeout = 1, .timeout_us = (us)}

#define NV_DISABLE_CHANNELS 0x2080110Bu /* ctrl2080fifo.h */
#define NV_DISABLE_MAX 64
struct nv_disable {
    uint8_t disable, pad[3];
    uint32_t n;
    uint8_t only_scheduling, rewind, pad2[6]; /* both stay 0: 1 leaves work running, or discards it */
    uint64_t event;                           /* 0: the call waits until the channels are off the card */
    uint32_t clients[NV_DISABLE_MAX], channels[NV_DISABLE_MAX];
};
_Static_assert(sizeof(struct nv_disable) == 24 + 8 * NV_DISABLE_MAX, "ctrl2080fifo.h");

#define NV_BIND_LOG 0x20801238u      /* ctrl2080gr.h NV2080_CTRL_CMD_GR_FECS_BIND_EVTBUF_FOR_UID_V2 */
struct nv_bind_log {
    uint32_t event_buffer, record_size, detail, filter;
    uint8_t all_users, pad[3];
    uint32_t reason;
};
#define NV_LOG_DETAIL_SIMPLE 1u      /* only the start and the end of a context's time on the card */
#define NV_LOG_ENABLE 0x90CD0101u    /* ctrl90cd.h */
#define NV_LOG_UPDATE_GET 0x90CD0102u
#define NV_LOG_FLUSH 0x90CD0104u
struct nv_log_enable { uint8_t enable, pad[3]; uint32_t flags; };
#define NV_LOG_KEEP_OLDEST 1u
struct nv_log_get { uint32_t records, vardata; };

/* ---- the log's shared memory: cl90cd.h, cl90cdFecs.h ---- */
struct nv_log_header {
    uint32_t get, put;
    uint64_t count, dropped, vardata_dropped;
};
struct nv_log_record {
    uint16_t type, subtype;
    uint32_t vardata;
    uint8_t tag, vm;
    uint16_t sequence;
    uint32_t context, pid;
    uint16_t reserved;
    uint8_t mig_gpu, mig_compute;
    uint64_t timestamp;
};
_Static_assert(sizeof(struct nv_log_record) == 32, "cl90cd.h, cl90cdFecs.h");
enum { NV_TAG_RUNS = 6, NV_TAG_LEFT = 7 };
#define NV_PID_UNKNOWN 0xFFFFFFFFu

/* ---- the page that the driver writes what it knows of a card to: cl00de.h NV00DE_SHARED_DATA, its beginning ---- */
struct nv_shared_alloc { uint64_t polled; }; /* 0: only what the driver writes as it happens, as this is */
struct nv_shared_data {
    uint64_t bar1_sequence;
    uint32_t bar1_size, bar1_free;
    uint64_t memory_sequence; /* odd while it is written, from NV_SEQUENCE_FIRST on; 0: never written */
    uint64_t memory_total_bytes, memory_free_bytes;
};
#define NV_SEQUENCE_FIRST 0xFF00000000000000ull
_Static_assert(offsetof(struct nv_shared_data, memory_free_bytes) == 32, "cl00de.h");
#endif
