/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLEXAI_WORKLOAD_H
#define FLEXAI_WORKLOAD_H
#include <stdbool.h>
#include <stdint.h>

struct options {
    const char *kind;      /* flood, latency, step, graph, fill, spin-pair */
    double kernel_us;      /* card time of one kernel */
    double seconds;        /* 0 = no limit */
    uint64_t iterations;   /* 0 = no limit */
    uint64_t memory_bytes; /* allocated and kept */
    unsigned depth;        /* launches in flight */
    double host_us;        /* step: time on the host between steps */
    double period_us;      /* latency: between requests */
    unsigned nodes;        /* graph: kernels per replay */
    int device;
    const char *control;
    const char *pair;      /* spin-pair: the file by which the two find each other */
    bool collective;       /* spin-pair: its kernel has the name of a collective library's */
};
int options_read(struct options *o, int argc, char **argv);

/* The driver, opened by name as any program does. Each call exits with a message when it fails. */
void cuda_open(int device);
const char *cuda_device_name(void);
bool cuda_simulated(void);
/* How many iterations of flexai_work make kernel_us on this card; measured on a real one. */
uint64_t cuda_iterations(double kernel_us);
void cuda_launch(uint64_t iterations);
void cuda_record(unsigned slot);      /* events 0..n-1 */
void cuda_await(unsigned slot);
void cuda_synchronize(void);
uint64_t cuda_allocate(uint64_t bytes); /* 0 when refused */
void cuda_free(uint64_t at);
void cuda_graph_make(uint64_t iterations, unsigned nodes);
void cuda_graph_launch(void);

/* Memory that a peer process holds too; a kernel that waits in it. */
struct cuda_handle { unsigned char bytes[64]; };
struct cuda_handle cuda_share(uint64_t at);
uint64_t cuda_join(struct cuda_handle handle); /* 0 when it is of a card that is not ours */
uint64_t cuda_register(void *host, size_t bytes); /* where a card finds memory of the host */
void cuda_leave(uint64_t at);
void cuda_fill(uint64_t at, uint32_t value, size_t n);
void cuda_spin_make(bool collective);
/* Until *peer >= turn, then `iterations`, then *own = turn + 1. */
void cuda_spin(uint64_t peer, uint64_t own, uint32_t turn, uint64_t iterations);

/* The spin pair: spin.c. */
void pair_open(const char *path, bool collective);
void pair_step(uint64_t iterations);
void pair_close(void);

/* The shared control file (apps/bench/torch_workloads.py says its layout); does nothing without one. */
enum order { ORDER_IDLE = 0, ORDER_RUN = 1, ORDER_END = 2 };
void control_open(const char *path);
void control_ready(void);
enum order control_order(void);
void control_finished(uint64_t iterations);
void control_latency(float ms);
#endif
