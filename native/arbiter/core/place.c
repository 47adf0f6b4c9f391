/* SPDX-License-Identifier: Apache-2.0
 * Where the slots of gangs lie in a round: a slot is at the same moments on all cards of its gang, and no two overlap on one.
 */
#include "align.h"

/* As early as its cards allow beside those that have their place. */
static void place(struct gang *g, const struct gang *gangs, int n, uint64_t round_ns)
{
    for (int k = -1; k < n; k++) {
        uint64_t at = k < 0 ? 0 : gangs[k].begin + gangs[k].length;
        if (k >= 0 && (!gangs[k].placed || !(gangs[k].cards & g->cards)))
            continue;
        bool fits = at + g->length <= round_ns + round_ns / 1000;
        for (int j = 0; j < n && fits; j++)
            fits = !gangs[j].placed || !(gangs[j].cards & g->cards) || at >= gangs[j].begin + gangs[j].length ||
                   at + g->length <= gangs[j].begin;
        if (fits && (!g->placed || at < g->begin)) {
            g->begin = at;
            g->placed = true;
        }
    }
}

int ac_place_all(struct gang *gangs, int n, uint32_t cards, uint64_t round_ns, int64_t less_ns)
{
    int n_left = 0;
    for (int g = 0; g < n; g++)
        if (gangs[g].cards & cards)
            gangs[g].length = gangs[g].placed = 0;
    for (;;) {
        struct gang *next = NULL;
        uint64_t most = 0;
        for (int g = 0; g < n; g++) {
            uint64_t size = gangs[g].part_ppm * (uint64_t)__builtin_popcount(gangs[g].cards);
            if ((gangs[g].cards & cards) && !gangs[g].length && size > most) {
                next = &gangs[g];
                most = size;
            }
        }
        if (!next)
            return n_left;
        int64_t part = (int64_t)(round_ns * next->part_ppm / WHOLE_PPM) + 1, more = next->due_ns - less_ns;
        next->length = (uint64_t)(part + more > part / 4 ? part + more : part / 4 + 1);
        place(next, gangs, n, round_ns);
        n_left += !next->placed;
    }
}
