/* SPDX-License-Identifier: Apache-2.0
 * Gangs and their slots in a round that cards have in common.
 */
#ifndef FLEXAI_ARBITER_ALIGN_H
#define FLEXAI_ARBITER_ALIGN_H
#include "state.h"

#define WHOLE_PPM 1000000ull

struct gang {
    uint32_t id, cards; /* a bit for each */
    uint64_t part_ppm, begin, length;
    int64_t due_ns;
    bool placed;
};

/* The largest first, by time and cards. Each slot is as long as its gang is due, but for less_ns. How many have no room? */
int ac_place_all(struct gang *gangs, int n, uint32_t cards, uint64_t round_ns, int64_t less_ns);
#endif
