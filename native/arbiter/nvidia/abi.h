/* SPDX-License-Identifier: Apache-2.0
 *
 * What we use of NVIDIA's resource manager interface: classes, control numbers and structures, in this one place. Source:
 * NVIDIA's open kernel modules, tag 580.95.05 (header named beside each); the same in 550 to 595 unless said otherwise.
 */
#ifndef FLEXAI_NVIDIA_ABI_H
#define FLEXAI_NVIDIA_ABI_H
#include <stdint.h>

/* nv_escape.h, nv-ioctl-numbers.h: ioctl type 'F' on /dev/nvidiactl */
enum { NV_ESC_REGISTER_FD = 201, NV_ESC_RM_FREE = 0x29, NV_ESC_RM_CONTROL = 0x2A, NV_ESC_RM_ALLOC = 0x2B,
       NV_ESC_RM_MAP_MEMORY = 0x4E };

/* Classes (cl0000.h, cl0080.h, cl2080.h, cl90cd.h, cl90ce.h, cla06c.h) */
enum { NV01_ROOT_CLIENT = 0x41, NV01_DEVICE_0 = 0x80, NV20_SUBDEVICE_0 = 0x2080, NV_EVENT_BUFFER = 0x90cd,
       NV_MEMORY_LIST_SYSTEM = 0x90ce, KEPLER_CHANNEL_GROUP_A = 0xa06c };
/* Families told by their last byte: ..6f a channel, ..c0 a compute engine object (0xa0c0 Kepler and later). */
static inline int nv_is_channel(uint32_t class) { return (class & 0xff) == 0x6f && class >= 0xa06f; }
static inline int nv_is_compute(uint32_t class) { return (class & 0xff) == 0xc0 && class >= 0xa0c0; }

/* Controls */
enum {
    NV0000_CLIENT_GET_HANDLE_INFO = 0xd02,      /* ctrl0000client.h */
    NV0000_GPU_GET_ATTACHED_IDS = 0x201,        /* ctrl0000gpu.h */
    NV0000_GPU_GET_ID_INFO_V2 = 0x205,
    NV2080_GPU_GET_ID = 0x20800142,             /* ctrl2080gpu.h */
    NV2080_GPU_GET_GID_INFO = 0x2080014a,
    NV2080_EVENT_FECS_BIND_EVTBUF_V2 = 0x20801238,
    NV2080_FIFO_DISABLE_CHANNELS = 0x2080110b,  /* ctrl2080fifo.h */
    NVA06C_SET_TIMESLICE = 0xa06c0103,          /* ctrla06c.h */
    NVA06C_GET_TIMESLICE = 0xa06c0104,
    NVA06C_PREEMPT = 0xa06c0105,
    NV90CD_ENABLE = 0x90cd0101,                 /* ctrl90cd.h */
    NV90CD_UPDATE_GET = 0x90cd0102,
    NV90CD_FLUSH = 0x90cd0104,
};
enum { NV_INFO_PARENT = 1, NV_INFO_CLASS = 2 }; /* of GET_HANDLE_INFO */
enum { NV_ERR_INSUFFICIENT_PERMISSIONS = 0x1b, NV_ERR_OBJECT_NOT_FOUND = 0x57 };

struct nv_control { uint32_t client, object, cmd, flags; uint64_t params; uint32_t n, status; };
struct nv_alloc { uint32_t root, parent, object, class; uint64_t params; uint32_t n, status; };
struct nv_free { uint32_t root, parent, object, status; };
struct nv_register { int32_t fd; };
struct nv_map {
    struct { uint32_t client, device, memory, pad; uint64_t offset, length, linear; uint32_t status, flags; } p;
    int32_t fd;
    uint32_t pad;
};

struct nv_handle_info { uint32_t object, index; uint64_t data; };
struct nv_attached_ids { uint32_t id[32]; };
struct nv_id_info { uint32_t id, flags, device, subdevice, sli, board, instance; int32_t numa; };
struct nv_gpu_id { uint32_t id; };
struct nv_gid_info { uint32_t index, flags, length; uint8_t data[256]; };
struct nv_device_params { uint32_t id, share, target_client, target_device, flags, pad; uint64_t start, size, limit;
                          uint32_t mode, pad2; };
struct nv_subdevice_params { uint32_t id; };
/* nvos.h NV_MEMORY_ALLOCATION_PARAMS; `numa` came in 550, older drivers take the shorter size too. */
struct nv_memory_params {
    uint32_t owner, type, flags, width, height;
    int32_t pitch;
    uint32_t attr, attr2, format, comp, zcull, pad;
    uint64_t low, high, size, align, offset, limit, address;
    uint32_t tag_count, va, internal, tag;
    int32_t numa;
    uint32_t pad2;
};
#define NV_MEMORY_PARAMS_BEFORE_550 offsetof(struct nv_memory_params, numa)
#define NV_ATTR_CACHED (1u << 29)
#define NV_ATTR2_USER_READ_ONLY (1u << 22)

/* cl90cd.h */
struct nv_event_buffer_params {
    uint64_t header, records;
    uint32_t record_bytes, n_records;
    uint64_t vardata;
    uint32_t vardata_bytes, records_threshold;
    uint64_t notification;
    uint32_t vardata_threshold, subdevice, flags, h_header, h_records, h_vardata;
};
struct nv_event_header { uint32_t get, put; uint64_t count, dropped, vardata_dropped; };
struct nv_event_enable { uint8_t enable, pad[3]; uint32_t flags; };
enum { NV_OVERFLOW_KEEP_OLDEST = 1 };
struct nv_event_get { uint32_t get, vardata_get; };
struct nv_fecs_bind { uint32_t buffer, record_bytes, level, filter; uint8_t all_users, pad[3]; uint32_t reason; };
enum { NV_FECS_LEVEL_COMPAT = 1 };
/* cl90cdFecs.h */
struct nv_fecs_record {
    uint16_t type, subtype;
    uint32_t vardata;
    uint8_t tag, vm;
    uint16_t sequence;
    uint32_t context, pid;
    uint16_t reserved;
    uint8_t instance, compute_instance;
    uint64_t ts_ns;
};
enum { NV_FECS_RUNS = 6, NV_FECS_LEFT = 7 };

struct nv_disable_channels {
    uint8_t disable, pad[3];
    uint32_t n;
    uint8_t only_scheduling, rewind, pad2[6];
    uint64_t event;
    uint32_t client[64], channel[64];
};
struct nv_timeslice { uint64_t us; };
struct nv_preempt { uint8_t wait, manual, pad[2]; uint32_t timeout_us; };

_Static_assert(sizeof(struct nv_control) == 32 && sizeof(struct nv_alloc) == 32, "escapes");
_Static_assert(sizeof(struct nv_map) == 56, "map");
_Static_assert(sizeof(struct nv_fecs_record) == 32, "record");
_Static_assert(sizeof(struct nv_event_header) == 32, "header");
_Static_assert(sizeof(struct nv_disable_channels) == 536, "disable");
_Static_assert(sizeof(struct nv_event_buffer_params) == 72, "event buffer");
#endif
