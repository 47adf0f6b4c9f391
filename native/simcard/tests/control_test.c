/* SPDX-License-Identifier: Apache-2.0
 * cc_simcard against a running flexai-simcard with two floods of pids A and B on its first card. Each case leaves the
 * card as it found it.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include "channel_control.h"
#include "check.h"

static void *card;
static struct cc_group group[2];

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

struct held {
    uint64_t ns[2], from, to;
    int n_starts[2];
};

/* Who had the card in the next `ms`, by the log: an interval still open at the end counts up to it. */
static struct held watch(long ms)
{
    static struct cc_log_record records[1024];
    struct held h = {0};
    uint64_t dropped, since[2] = {0}, end = 0;
    struct cc_moment told;
    do
        CHECK(cc_simcard.read_log(card, records, 1024, &dropped, &told) >= 0);
    while (dropped);
    h.from = told.card_ns;
    while (end < h.from + (uint64_t)ms * 1000000) {
        sleep_ms(20);
        int n = cc_simcard.read_log(card, records, 1024, &dropped, &told);
        end = told.card_ns;
        CHECK(n >= 0 && dropped == 0);
        for (int i = 0; i < n; i++)
            for (int who = 0; who < 2; who++) {
                if (records[i].context != group[who].context)
                    continue;
                CHECK(records[i].pid == group[who].pid);
                if (records[i].kind == CC_LOG_START) {
                    since[who] = records[i].ts_ns;
                    h.n_starts[who]++;
                } else {
                    h.ns[who] += records[i].ts_ns - (since[who] ? since[who] : h.from);
                    since[who] = 0;
                }
            }
    }
    for (int who = 0; who < 2; who++)
        if (since[who])
            h.ns[who] += end - since[who];
    h.to = end;
    return h;
}

static double share(const struct held *h, int who)
{
    return 100.0 * (double)h->ns[who] / (double)(h->to - h->from);
}

static void two_floods_have_48_percent_each_by_the_log(void)
{
    struct held h = watch(500);
    CHECK_NEAR(share(&h, 0), 48.1, 1.0);
    CHECK_NEAR(share(&h, 1), 48.1, 1.0);
}

static void time_slices_of_four_to_one_give_four_to_one(void)
{
    uint32_t us = 0;
    CHECK(cc_simcard.set_timeslice(card, group[0].handle, 4000) == 0);
    CHECK(cc_simcard.set_timeslice(card, group[1].handle, 1000) == 0);
    CHECK(cc_simcard.get_timeslice(card, group[0].handle, &us) == 0 && us == 4000);
    struct held h = watch(500);
    CHECK_NEAR(share(&h, 0), 100 * 4.097 / 5.36, 1.0); /* of 5 ms and two changes of 0.083 and 0.097 ms */
    CHECK_NEAR(share(&h, 1), 100 * 1.097 / 5.36, 1.0);
    CHECK(cc_simcard.set_timeslice(card, group[0].handle, 2000) == 0);
    CHECK(cc_simcard.set_timeslice(card, group[1].handle, 2000) == 0);
}

static void a_stopped_group_has_nothing_and_the_other_all(void)
{
    CHECK(cc_simcard.stop(card, &group[0].handle, 1, 1) == 0);
    struct held h = watch(200);
    CHECK(h.ns[0] == 0 && h.n_starts[0] == 0);
    CHECK(cc_simcard.stop(card, &group[0].handle, 1, 0) == 0);
    h = watch(300);
    CHECK_NEAR(share(&h, 0), 48.1, 1.5);
}

static void a_control_call_takes_its_time(void)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < 100; i++)
        CHECK(cc_simcard.preempt(card, group[0].handle) == 0);
    clock_gettime(CLOCK_MONOTONIC, &b);
    CHECK((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 >= 40); /* 0.4 ms each */
}

static void what_is_not_there_is_refused(void)
{
    struct cc_group none;
    uint32_t us = 7, wrong = 999999;
    void *other;
    char why[128];
    CHECK(cc_simcard.discover(card, 1, &none, 1) == 0);
    CHECK(cc_simcard.set_timeslice(card, wrong, 1000) == -ESRCH);
    CHECK(cc_simcard.get_timeslice(card, wrong, &us) == -ESRCH && us == 7);
    CHECK(cc_simcard.stop(card, &wrong, 1, 1) == -ESRCH);
    CHECK(cc_simcard.open(&other, "GPU-nobody", why, sizeof why) == -ENODEV && strstr(why, "GPU-nobody"));
}

int main(int argc, char **argv)
{
    char why[128];
    struct cc_capabilities caps;
    CHECK(argc == 4, "control_test UUID PID PID");
    CHECK(cc_simcard.open(&card, argv[1], why, sizeof why) == 0, "%s", why);
    CHECK(cc_simcard.self_test(card, &caps) == 0);
    CHECK(caps.timeslice && caps.stop && caps.preempt && caps.log && caps.discover);
    for (int i = 0; i < 2; i++) {
        CHECK(cc_simcard.discover(card, (uint32_t)strtoul(argv[2 + i], NULL, 10), &group[i], 1) == 1);
        CHECK(group[i].start_ticks != 0 && group[i].n_channels == 8);
    }
    two_floods_have_48_percent_each_by_the_log();
    time_slices_of_four_to_one_give_four_to_one();
    a_stopped_group_has_nothing_and_the_other_all();
    a_control_call_takes_its_time();
    what_is_not_there_is_refused();
    cc_simcard.close(card);
    return 0;
}
