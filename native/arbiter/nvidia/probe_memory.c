/* SPDX-License-Identifier: Apache-2.0
 * How much memory of a card is free, looked at often.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "probe.h"

#define SPAN_NS 10000000u
#define LOOK_EVERY_NS 100000
#define MOST_TRIES 10000

struct span { uint64_t at_ns, least_bytes, longest_ns; };

static int watch_memory(const struct nv_memory *memory)
{
    struct span *spans = NULL;
    size_t n = 0, room = 0, n_looks = 0;
    uint64_t last_ns = now(), free_bytes = 0;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    const struct timespec pause = {.tv_nsec = LOOK_EVERY_NS};
    for (int i = 0; nv_memory_read(memory, &free_bytes); i++)
        if (i == MOST_TRIES)
            return explain("free memory", -EAGAIN);
    printf("{\"memory\":\"watching\",\"free_bytes\":%llu}\n", (unsigned long long)free_bytes);
    while (!ending && ppoll(&input, 1, &pause, NULL) == 0) {
        int error = nv_memory_read(memory, &free_bytes);
        uint64_t at_ns = now(), gap_ns = at_ns - last_ns;
        if (error)
            continue; /* the time without a look goes on */
        last_ns = at_ns;
        n_looks++;
        if (n == 0 || at_ns - spans[n - 1].at_ns >= SPAN_NS) {
            if (n == room) {
                room = room ? 2 * room : 4096;
                struct span *more = realloc(spans, room * sizeof *spans);
                if (!more)
                    break;
                spans = more;
            }
            spans[n++] = (struct span){at_ns - at_ns % SPAN_NS, free_bytes, 0};
        }
        struct span *span = &spans[n - 1];
        span->least_bytes = free_bytes < span->least_bytes ? free_bytes : span->least_bytes;
        span->longest_ns = gap_ns > span->longest_ns ? gap_ns : span->longest_ns;
    }
    printf("{\"looks\":%zu,\"free_bytes\":%llu,\"spans\":[", n_looks, (unsigned long long)free_bytes);
    for (size_t i = 0; i < n; i++)
        printf("%s[%llu,%llu,%llu]", i ? "," : "", (unsigned long long)spans[i].at_ns,
               (unsigned long long)spans[i].least_bytes, (unsigned long long)spans[i].longest_ns);
    printf("]}\n");
    free(spans);
    return 0;
}

int memory_command(const char *wanted)
{
    char why[160];
    struct nv_memory memory;
    if (nv_attach(&nv_machine, &card, wanted, why, sizeof why)) {
        fprintf(stderr, "flexai-nvprobe: %s: %s\n", wanted[0] ? wanted : "first card", why);
        return 1;
    }
    int error = nv_memory_open(&memory, card), rc = error ? explain("free memory", error) : watch_memory(&memory);
    if (!error)
        nv_memory_close(&memory, card);
    nv_close(card);
    return rc;
}
