/* SPDX-License-Identifier: Apache-2.0
 * A card's clock against ours. A question what it shows is answered some time between our asking and our having the
 * answer, which may take milliseconds while others keep the driver's locks: so what it is ahead is known to lie within
 * bounds, and a later answer that says less than we know already changes nothing.
 */
#ifndef FLEXAI_CARD_CLOCK_H
#define FLEXAI_CARD_CLOCK_H
#include <stdbool.h>
#include <stdint.h>

#define CARD_CLOCK_DRIFT_PPM 100 /* that one of them may go faster than the other */

struct card_clock {
    int64_t least_ns, most_ns; /* the card's minus ours */
    uint64_t seen_at;          /* by ours; 0: never */
};

/* It showed `card_ns` at some time of ours from `before_ns` to `after_ns`. Where that cannot be, a clock has leapt. */
static inline void card_clock_saw(struct card_clock *k, uint64_t before_ns, uint64_t card_ns, uint64_t after_ns)
{
    int64_t least = (int64_t)(card_ns - after_ns), most = (int64_t)(card_ns - before_ns);
    int64_t drift = (int64_t)((after_ns - k->seen_at) / 1000000 * CARD_CLOCK_DRIFT_PPM);
    bool known = k->seen_at && k->seen_at <= after_ns && k->least_ns - drift <= most && least <= k->most_ns + drift;
    k->least_ns = known && k->least_ns - drift > least ? k->least_ns - drift : least;
    k->most_ns = known && k->most_ns + drift < most ? k->most_ns + drift : most;
    k->seen_at = after_ns;
}

static inline int64_t card_clock_ahead(const struct card_clock *k)
{
    return k->least_ns + (k->most_ns - k->least_ns) / 2;
}

static inline uint64_t card_clock_unsure(const struct card_clock *k)
{
    return (uint64_t)(k->most_ns - k->least_ns) / 2;
}
#endif
