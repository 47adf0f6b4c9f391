/* SPDX-License-Identifier: Apache-2.0
 * flexai-workload: runs one kind of load until its time, its iterations or its control file says so, then prints one JSON
 * line. An iteration counts when its work is complete on the card.
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "workload.h"

static volatile sig_atomic_t asked_to_end;
static struct options o;
static uint64_t done, refused, peak_bytes;
static double began, sum_ms, worst_ms;
static uint64_t n_latencies;
static float sample[65536];

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sleep_until(double at)
{
    struct timespec t = {(time_t)at, (long)((at - floor(at)) * 1e9)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void on_signal(int signal_number)
{
    (void)signal_number;
    asked_to_end = 1;
}

/* Whether to go on; waits while the control file says idle. */
static bool goes_on(void)
{
    if (control_order() == ORDER_IDLE) {
        cuda_synchronize();
        while (control_order() == ORDER_IDLE && !asked_to_end)
            sleep_until(now_s() + 0.0005);
    }
    return !asked_to_end && control_order() != ORDER_END && (!o.iterations || done < o.iterations) &&
           (o.seconds <= 0 || now_s() - began < o.seconds);
}

static void finish(uint64_t n)
{
    done += n;
    control_finished(done);
}

/* `launch` is one iteration of `us`; `depth` of them are kept in flight. They are awaited and counted in portions of up to
 * 2 ms: to be woken for each kernel of 50 us would cost the machine more than the kernel costs the card. */
static void fed(void (*launch)(uint64_t), uint64_t iterations, double us)
{
    double most = us > 0 ? 2000 / us : o.depth;
    unsigned half = o.depth > 1 ? o.depth / 2 : 1;
    unsigned portion = most < 1 ? 1 : most < half ? (unsigned)most : half;
    uint64_t size[1024];
    uint64_t sent = 0, counted = 0, n_sent = 0, n_awaited = 0;
    bool more = true;
    while (more || n_awaited < n_sent) {
        bool idle = control_order() == ORDER_IDLE;
        if (!idle || n_awaited == n_sent) /* what is in flight is counted before it waits for another order */
            more = more && goes_on();
        while (more && !idle && sent - counted + portion <= o.depth) {
            uint64_t n = o.iterations && o.iterations - sent < portion ? o.iterations - sent : portion;
            if (!n)
                break;
            for (uint64_t i = 0; i < n; i++)
                launch(iterations);
            sent += n;
            size[n_sent % 1024] = n;
            cuda_record((unsigned)(n_sent++ % 1024));
        }
        if (n_awaited < n_sent) {
            cuda_await((unsigned)(n_awaited % 1024));
            counted += size[n_awaited % 1024];
            finish(size[n_awaited++ % 1024]);
        }
    }
}

static void launch_graph(uint64_t iterations)
{
    (void)iterations;
    cuda_graph_launch();
}

static void note_latency(double ms)
{
    sample[n_latencies++ % 65536] = (float)ms;
    sum_ms += ms;
    worst_ms = ms > worst_ms ? ms : worst_ms;
    control_latency((float)ms);
}

static void step(void (*launch)(uint64_t), uint64_t iterations)
{
    while (goes_on()) {
        double at = now_s();
        launch(iterations);
        cuda_synchronize();
        note_latency((now_s() - at) * 1e3);
        finish(1);
        if (o.host_us > 0 && !o.pair)
            sleep_until(now_s() + o.host_us / 1e6);
    }
}

/* Open loop: a request is due at its time whether or not the one before is answered. */
static void latency(uint64_t iterations)
{
    double due = now_s();
    while (goes_on()) {
        if (due > now_s())
            sleep_until(due);
        else if (now_s() - due > 1)
            due = now_s();
        cuda_launch(iterations);
        cuda_synchronize();
        note_latency((now_s() - due) * 1e3);
        finish(1);
        due += o.period_us / 1e6;
    }
}

static void fill(void)
{
    static uint64_t block[4096];
    while (goes_on()) {
        size_t n = 0;
        uint64_t held = 0, size = 1ull << 30;
        while (n < 4096 && size >= (1ull << 20)) {
            block[n] = cuda_allocate(size);
            if (block[n]) {
                n++;
                held += size;
            } else {
                refused++;
                size /= 2;
            }
        }
        peak_bytes = held > peak_bytes ? held : peak_bytes;
        while (n)
            cuda_free(block[--n]);
        finish(1);
    }
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int error = options_read(&o, argc, argv);
    if (error)
        return error;
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    control_open(o.control);
    cuda_open(o.device);
    uint64_t iterations = cuda_iterations(o.kernel_us);
    uint64_t kept = o.memory_bytes ? cuda_allocate(o.memory_bytes) : 0;
    if (o.memory_bytes && !kept) {
        fprintf(stderr, "flexai-workload: %llu bytes: out of memory\n", (unsigned long long)o.memory_bytes);
        return 12;
    }
    if (!strcmp(o.kind, "graph"))
        cuda_graph_make(iterations, o.nodes);
    if (o.pair)
        pair_open(o.pair, o.collective);
    control_ready();
    began = now_s();
    if (!strcmp(o.kind, "flood"))
        fed(cuda_launch, iterations, o.kernel_us);
    else if (!strcmp(o.kind, "graph"))
        fed(launch_graph, iterations, o.kernel_us * o.nodes);
    else if (!strcmp(o.kind, "step"))
        step(cuda_launch, iterations);
    else if (!strcmp(o.kind, "latency"))
        latency(iterations);
    else if (o.pair)
        step(pair_step, iterations);
    else
        fill();
    double took = now_s() - began;
    if (o.pair)
        pair_close();
    size_t n = n_latencies < 65536 ? (size_t)n_latencies : 65536;
    qsort(sample, n, sizeof sample[0], by_value);
    printf("{\"kind\": \"%s\", \"device\": \"%s\", \"kernel_us\": %g, \"iterations\": %llu, \"seconds\": %.6f, "
           "\"card_seconds\": %.6f",
           o.kind, cuda_device_name(), o.kernel_us, (unsigned long long)done, took,
           (double)done * o.kernel_us / 1e6 * (!strcmp(o.kind, "graph") ? o.nodes : strcmp(o.kind, "fill") ? 1 : 0));
    if (n)
        printf(", \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"mean_ms\": %.3f, \"max_ms\": %.3f", (double)sample[n / 2],
               (double)sample[n * 99 / 100], sum_ms / (double)n_latencies, worst_ms);
    if (!strcmp(o.kind, "fill"))
        printf(", \"peak_bytes\": %llu, \"refused\": %llu", (unsigned long long)peak_bytes, (unsigned long long)refused);
    printf("}\n");
    return 0;
}
