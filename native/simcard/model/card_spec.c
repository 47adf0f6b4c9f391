/* SPDX-License-Identifier: Apache-2.0
 * What cards look like. Switching, control and log figures were measured on an H200 (see README.md); the others differ
 * in size and speed only, from the vendor's data sheets.
 */
#include <string.h>
#include "simcard_model.h"

#define GIB (1024ull * 1024 * 1024)
#define MIB (1024ull * 1024)
#define COMMON                                                                                                         \
    .context_bytes = 64 * MIB, .copy_latency_ns = 3000, .timeslice_ns = 2000000, .switch_gap_ns = 83000,                \
    .warmup_ns = 97000, .n_log_records = 8190,                                                                         \
    .control_ns = {[SM_SET_TIMESLICE] = 365000, [SM_STOP] = 600000, [SM_RESUME] = 310000, [SM_PREEMPT] = 380000,       \
                   [SM_FLUSH] = 50000}

static const struct sm_card_spec specs[] = {
    {.name = "h200", .full_name = "NVIDIA H200 (simulated)", .memory_bytes = 141 * GIB, .speed_milli = 1000,
     .n_multiprocessors = 132, .compute_major = 9, .compute_minor = 0, .clock_mhz = 1980, .memory_clock_mhz = 3201,
     .bus_bits = 6144, .power_idle_w = 75, .power_limit_w = 700,
     .copy_bytes_per_s = {55000000000ull, 55000000000ull, 2000000000000ull}, COMMON},
    {.name = "h100", .full_name = "NVIDIA H100 80GB HBM3 (simulated)", .memory_bytes = 80 * GIB, .speed_milli = 1000,
     .n_multiprocessors = 132, .compute_major = 9, .compute_minor = 0, .clock_mhz = 1980, .memory_clock_mhz = 2619,
     .bus_bits = 5120, .power_idle_w = 70, .power_limit_w = 700,
     .copy_bytes_per_s = {55000000000ull, 55000000000ull, 1400000000000ull}, COMMON},
    {.name = "a100", .full_name = "NVIDIA A100-SXM4-80GB (simulated)", .memory_bytes = 80 * GIB, .speed_milli = 600,
     .n_multiprocessors = 108, .compute_major = 8, .compute_minor = 0, .clock_mhz = 1410, .memory_clock_mhz = 1593,
     .bus_bits = 5120, .power_idle_w = 60, .power_limit_w = 400,
     .copy_bytes_per_s = {25000000000ull, 25000000000ull, 900000000000ull}, COMMON},
    {.name = "l40s", .full_name = "NVIDIA L40S (simulated)", .memory_bytes = 48 * GIB, .speed_milli = 500,
     .n_multiprocessors = 142, .compute_major = 8, .compute_minor = 9, .clock_mhz = 2520, .memory_clock_mhz = 9001,
     .bus_bits = 384, .power_idle_w = 35, .power_limit_w = 350,
     .copy_bytes_per_s = {25000000000ull, 25000000000ull, 350000000000ull}, COMMON},
    {.name = "t4", .full_name = "Tesla T4 (simulated)", .memory_bytes = 16 * GIB, .speed_milli = 100,
     .n_multiprocessors = 40, .compute_major = 7, .compute_minor = 5, .clock_mhz = 1590, .memory_clock_mhz = 5001,
     .bus_bits = 256, .power_idle_w = 10, .power_limit_w = 70,
     .copy_bytes_per_s = {12000000000ull, 12000000000ull, 120000000000ull}, COMMON},
};

const struct sm_card_spec *sm_card_spec_at(size_t i)
{
    return i < sizeof specs / sizeof specs[0] ? &specs[i] : NULL;
}

const struct sm_card_spec *sm_card_spec(const char *name)
{
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++)
        if (strcmp(specs[i].name, name) == 0)
            return &specs[i];
    return NULL;
}
