/* SPDX-License-Identifier: Apache-2.0
 *
 * cc_nvidia's parts against a driver made of memory. `nvidia_test --list` names the cases, `nvidia_test CASE` runs one;
 * the Python suite runs them all under ASan and UBSan.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "fake_driver.h"

#define CHECK(what)                                                                   \
    do {                                                                              \
        if (!(what)) {                                                                \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #what);  \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)
#define FIRST 0x5C000001u

static struct fake_driver *f;
static struct nv_card *card;
static char why[160];
static struct cc_moment told;

static void start(void)
{
    f = fake_new();
    CHECK(!nv_open(&f->sys, &card, FAKE_UUID, why, sizeof why));
}

/* After every case: no descriptor, mapping or object of ours may be left. */
static void finish(void)
{
    if (card)
        nv_close(card);
    CHECK(f->n_open == 0);
    CHECK(f->n_maps == 0);
    free(f);
}

static uint32_t tenant(uint32_t pid, int n_channels)
{
    f->now_ticks += 10;
    fake_process(f, pid, 5);
    uint32_t client = fake_client(f, pid, 12);
    fake_context(f, client, FIRST, n_channels, FAKE_GPU);
    f->now_ticks += 10;
    return client;
}

static struct cc_group one(uint32_t pid)
{
    struct cc_group groups[4];
    CHECK(nv_discover(card, pid, groups, 4) == 1);
    return groups[0];
}

/* ---- opening ---- */

static void opens_the_card_of_the_uuid(void)
{
    start();
    CHECK(card->gpu == FAKE_GPU && !strcmp(card->uuid, FAKE_UUID) && card->log.open);
    CHECK(f->n_open == 2); /* the control device and the card: nothing else stays */
    finish();
}

static void opens_without_the_drivers_proc(void)
{
    f = fake_new();
    f->no_proc = 1;
    CHECK(!nv_open(&f->sys, &card, FAKE_UUID, why, sizeof why));
    finish();
}

static void says_why_a_card_does_not_open(void)
{
    f = fake_new();
    CHECK(nv_open(&f->sys, &card, "GPU-nobody", why, sizeof why) == -ENODEV && strstr(why, "GPU-nobody"));
    CHECK(f->n_open == 0);
    f->n_cards = 0;
    CHECK(nv_open(&f->sys, &card, FAKE_UUID, why, sizeof why) < 0 && strstr(why, "driver loaded"));
    f->n_cards = 1;
    static const uint32_t classes[] = {NV_CLASS_CLIENT, NV_CLASS_DEVICE, NV_CLASS_SUBDEVICE};
    for (size_t i = 0; i < 3; i++) {
        f->fail_class = classes[i];
        CHECK(nv_open(&f->sys, &card, FAKE_UUID, why, sizeof why) == -EPERM && strstr(why, "0x1b"));
        CHECK(f->n_open == 0);
    }
    card = NULL;
    finish();
}

static void a_driver_of_535_takes_the_shorter_structure(void)
{
    f = fake_new();
    f->old_memory_abi = 1;
    CHECK(!nv_open(&f->sys, &card, FAKE_UUID, why, sizeof why));
    CHECK(card->log.open);
    finish();
}

/* ---- self-test ---- */

static void the_self_test_finds_everything(void)
{
    start();
    struct cc_capabilities caps;
    struct nv_check checks[16];
    int n = nv_self_test(card, &caps, checks, 16);
    CHECK(n == 7 && caps.timeslice && caps.stop && caps.preempt && caps.log && caps.discover && !caps.note[0]);
    finish();
}

static void the_self_test_names_the_control_that_is_missing(void)
{
    static const struct { uint32_t command; const char *name; } each[] = {
        {NV_SET_TIMESLICE, "set_timeslice"}, {NV_GET_TIMESLICE, "get_timeslice"}, {NV_PREEMPT, "preempt"},
        {NV_DISABLE_CHANNELS, "stop"}, {NV_LOG_FLUSH, "log"}, {NV_GET_HANDLE_INFO, "discover"}};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        start();
        f->fail_command = each[i].command;
        f->fail_status = NV_STATUS_NOT_SUPPORTED;
        struct cc_capabilities caps;
        struct nv_check checks[16];
        nv_self_test(card, &caps, checks, 16);
        int missing = !caps.timeslice + !caps.stop + !caps.preempt + !caps.log + !caps.discover;
        CHECK(missing == 1);
        CHECK(!strncmp(caps.note, each[i].name, strlen(each[i].name)) && strstr(caps.note, "0x56"));
        finish();
    }
}

static void a_log_that_does_not_bind_is_told_and_leaves_nothing(void)
{
    static const uint32_t commands[] = {NV_BIND_LOG, NV_LOG_ENABLE};
    for (size_t i = 0; i < 2; i++) {
        f = fake_new();
        f->fail_command = commands[i];
        f->fail_status = NV_STATUS_INSUFFICIENT_PERMISSIONS;
        CHECK(!nv_open(&f->sys, &card, FAKE_UUID, why, sizeof why));
        CHECK(!card->log.open && f->n_maps == 0);
        struct cc_capabilities caps;
        struct nv_check checks[16];
        nv_self_test(card, &caps, checks, 16);
        CHECK(!caps.log && caps.stop && caps.timeslice && caps.note[0]);
        uint64_t dropped;
        CHECK(nv_log_read(&card->log, &card->rm, card->subdevice, NULL, 0, &dropped, &told) == -EOPNOTSUPP);
        finish();
    }
}

static void discovery_needs_the_right_to_look_into_processes(void)
{
    start();
    f->capabilities = 0;
    struct cc_capabilities caps;
    struct nv_check checks[16];
    nv_self_test(card, &caps, checks, 16);
    CHECK(!caps.discover && strstr(caps.note, "CAP_SYS_PTRACE"));
    finish();
}

/* ---- discovery ---- */

static void finds_the_compute_group_and_all_its_channels(void)
{
    start();
    tenant(100, 8);
    int open_before = f->n_open;
    struct cc_group group = one(100);
    CHECK(group.n_channels == 8 && group.pid == 100);
    CHECK(f->n_open == open_before + 1); /* a pidfd; what was borrowed is given back */
    finish();
}

static void finds_a_group_of_128_channels(void)
{
    start();
    tenant(100, 128);
    CHECK(one(100).n_channels == 128);
    finish();
}

static void finds_several_contexts_and_several_clients(void)
{
    start();
    uint32_t client = tenant(100, 8);
    fake_context(f, client, FIRST + 500, 4, FAKE_GPU);
    uint32_t second = fake_client(f, 100, 14);
    fake_context(f, second, FIRST, 2, FAKE_GPU);
    struct cc_group groups[8];
    CHECK(nv_discover(card, 100, groups, 8) == 3);
    uint32_t sum = groups[0].n_channels + groups[1].n_channels + groups[2].n_channels;
    CHECK(sum == 14);
    finish();
}

static void groups_of_another_card_are_not_ours(void)
{
    start();
    uint32_t client = tenant(100, 8);
    fake_context(f, client, FIRST + 500, 4, FAKE_OTHER_GPU);
    CHECK(one(100).n_channels == 8);
    finish();
}

static void objects_beyond_the_first_block_are_found(void)
{
    start();
    uint32_t client = tenant(100, 2);
    for (uint32_t h = 100; h < 4100; h += 100)
        fake_object(f, client, FIRST + h, 0x003E, client);
    fake_context(f, client, FIRST + 4200, 3, FAKE_GPU);
    struct cc_group groups[4];
    CHECK(nv_discover(card, 100, groups, 4) == 2);
    finish();
}

static void a_second_look_keeps_handles_and_guesses_nothing(void)
{
    start();
    uint32_t client = tenant(100, 8);
    struct cc_group before = one(100);
    int wrong = f->n_wrong_clients;
    fake_object(f, client, FIRST + 30, 0xC86F, FIRST + 2); /* a stream made one more channel */
    struct cc_group after = one(100);
    CHECK(after.handle == before.handle && after.n_channels == 9);
    fake_object(f, client, FIRST + 900, 0xC86F, FIRST + 2); /* far from the others: in time */
    for (int i = 0; i < 16; i++)
        after = one(100);
    CHECK(after.handle == before.handle && after.n_channels == 10);
    CHECK(f->n_wrong_clients == wrong); /* numbers drawn since are our own */
    for (int i = 0; i < 50; i++)
        one(100);
    CHECK(f->n_wrong_clients == wrong);
    finish();
}

static void a_context_apart_from_the_others_is_found_in_time(void)
{
    start();
    uint32_t client = tenant(100, 8);
    fake_context(f, client, FIRST + 3000, 4, FAKE_GPU);
    struct cc_group groups[4];
    int n = 0;
    for (int i = 0; i < 16 && n < 2; i++)
        n = nv_discover(card, 100, groups, 4);
    CHECK(n == 2);
    finish();
}

static void a_first_look_is_bounded_by_what_is_there(void)
{
    start();
    tenant(100, 8);
    int before = f->n_controls;
    one(100);
    CHECK(f->n_controls - before < 1200);
    finish();
}

static void a_later_look_is_cheap(void)
{
    start();
    tenant(100, 8);
    one(100);
    int before = f->n_controls;
    one(100);
    CHECK(f->n_controls - before < 500);
    finish();
}

static void a_context_that_is_taken_down_is_let_go(void)
{
    start();
    uint32_t client = tenant(100, 8);
    fake_context(f, client, FIRST + 500, 4, FAKE_GPU);
    struct cc_group groups[4];
    CHECK(nv_discover(card, 100, groups, 4) == 2);
    for (int i = 0; i < f->n_objects; i++)
        if (f->objects[i].client == client && f->objects[i].handle >= FIRST + 500 && f->objects[i].handle < FIRST + 600)
            f->objects[i].client = f->objects[i].handle = 0;
    CHECK(nv_discover(card, 100, groups, 4) == 1 && groups[0].n_channels == 8);
    finish();
}

static void a_process_that_only_watches_is_not_guessed_at_for_ever(void)
{
    start();
    f->now_ticks += 10;
    fake_process(f, 100, 5);
    f->now_ticks += 10;
    struct cc_group groups[4];
    CHECK(nv_discover(card, 100, groups, 4) == 0);
    int wrong = f->n_wrong_clients;
    for (int i = 0; i < 100; i++)
        CHECK(nv_discover(card, 100, groups, 4) == 0);
    CHECK(f->n_wrong_clients == wrong);
    uint32_t client = fake_client(f, 100, 11); /* and when it begins to compute it is found */
    fake_context(f, client, FIRST, 8, FAKE_GPU);
    CHECK(one(100).n_channels == 8);
    finish();
}

static void the_search_is_bracketed_by_the_process_start(void)
{
    start();
    for (int i = 0; i < 3000; i++)
        f->next_client++; /* clients of long ago */
    f->now_ticks += 100;
    nv_mark_now(card);
    tenant(100, 8);
    one(100);
    CHECK(f->n_wrong_clients <= 40);
    finish();
}

static void a_process_that_ends_during_discovery_is_let_go(void)
{
    for (int after = 0; after < 520; after += 13) {
        start();
        tenant(100, 8);
        f->kill_pid_at_command = NV_GET_HANDLE_INFO;
        f->kill_pid = 100;
        f->fail_after = after;
        struct cc_group groups[4];
        int open_before = f->n_open;
        CHECK(nv_discover(card, 100, groups, 4) == -ESRCH);
        CHECK(f->n_open == open_before);
        finish();
    }
}

static void a_number_with_a_new_owner_is_a_new_process(void)
{
    start();
    tenant(100, 8);
    struct cc_group old = one(100);
    fake_kill(f, 100);
    tenant(100, 3);
    struct cc_group new = one(100);
    CHECK(new.n_channels == 3 && new.handle != old.handle && new.start_ticks != old.start_ticks);
    uint32_t us;
    CHECK(nv_get_timeslice(card, old.handle, &us) == -ESTALE);
    CHECK(nv_stop(card, &old.handle, 1, 1) == -ESTALE);
    finish();
}

static void hundreds_of_processes_come_and_go_without_a_leak(void)
{
    start();
    for (uint32_t pid = 1000; pid < 1400; pid++) {
        tenant(pid, 2);
        one(pid);
        fake_kill(f, pid);
    }
    CHECK(f->n_open <= 2 + NV_MAX_PROCESSES);
    tenant(5000, 4);
    CHECK(one(5000).n_channels == 4);
    finish();
}

static void malformed_answers_are_survived(void)
{
    start();
    uint32_t client = tenant(100, 4);
    fake_object(f, client, FIRST + 600, 0xCBC0, 0xFFFFFFFF);   /* compute object of no channel */
    fake_object(f, client, FIRST + 601, 0xC86F, FIRST + 601);  /* its own parent */
    fake_object(f, client, FIRST + 602, 0xCBC0, FIRST + 601);
    fake_object(f, client, FIRST + 603, NV_CLASS_GROUP, 0);
    CHECK(one(100).n_channels == 4);
    finish();
}

/* ---- controls ---- */

static void time_slices_are_set_read_and_seen_to_be_changed(void)
{
    start();
    uint32_t client = tenant(100, 8), us = 0, asked = 0;
    struct cc_group group = one(100);
    int open_before = f->n_open;
    CHECK(!nv_timeslice_tampered(card, group.handle, &asked, &us)); /* never set by us */
    CHECK(!nv_set_timeslice(card, group.handle, 4000) && f->last_timeslice == 4000);
    CHECK(!nv_get_timeslice(card, group.handle, &us) && us == 4000);
    CHECK(!nv_timeslice_tampered(card, group.handle, &asked, &us));
    for (int i = 0; i < f->n_objects; i++)
        if (f->objects[i].client == client && f->objects[i].class == NV_CLASS_GROUP)
            f->objects[i].timeslice = 900000;
    CHECK(nv_timeslice_tampered(card, group.handle, &asked, &us) == 1 && asked == 4000 && us == 900000);
    CHECK(!nv_preempt(card, group.handle));
    CHECK(f->n_open == open_before);
    finish();
}

static void time_slices_are_in_the_cards_own_units(void)
{
    start();
    tenant(100, 8);
    struct cc_group group = one(100);
    static const struct { uint32_t us, units, real_us; } each[] = {
        {33401, 32640, 33423}, {100, 98, 100}, {1000, 976, 999}, {2097, 2048, 2097}, {1, 1, 1}, {1000000, 974848, 998244},
    };
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        uint32_t us = 0;
        CHECK(cc_nvidia.set_timeslice(card, group.handle, each[i].us) == (int)each[i].real_us);
        CHECK(f->last_timeslice == each[i].units);
        CHECK(!cc_nvidia.get_timeslice(card, group.handle, &us) && us == each[i].real_us);
    }
    finish();
}

static void every_control_passes_on_the_drivers_refusal(void)
{
    static const struct { uint32_t status; int error; } each[] = {
        {NV_STATUS_INSUFFICIENT_PERMISSIONS, -EPERM}, {NV_STATUS_INVALID_CLIENT, -ENOENT},
        {NV_STATUS_NOT_SUPPORTED, -EOPNOTSUPP}, {NV_STATUS_TIMEOUT, -ETIMEDOUT}, {NV_STATUS_GPU_IS_LOST, -ENODEV},
        {0x7777, -EINVAL}};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        start();
        tenant(100, 8);
        struct cc_group group = one(100);
        uint32_t us = 77;
        int open_before = f->n_open;
        f->fail_status = each[i].status;
        f->fail_command = NV_SET_TIMESLICE;
        CHECK(nv_set_timeslice(card, group.handle, 1000) == each[i].error);
        f->fail_command = NV_GET_TIMESLICE;
        CHECK(nv_get_timeslice(card, group.handle, &us) == each[i].error && us == 77);
        f->fail_command = NV_PREEMPT;
        CHECK(nv_preempt(card, group.handle) == each[i].error);
        f->fail_command = NV_LOG_FLUSH;
        uint64_t dropped;
        CHECK(nv_log_read(&card->log, &card->rm, card->subdevice, NULL, 0, &dropped, &told) == each[i].error);
        CHECK(f->n_open == open_before);
        finish();
    }
}

static void an_ioctl_that_fails_is_its_errno(void)
{
    start();
    tenant(100, 8);
    struct cc_group group = one(100);
    f->fail_command = NV_SET_TIMESLICE;
    f->fail_errno = -EIO;
    CHECK(nv_set_timeslice(card, group.handle, 1000) == -EIO);
    finish();
}

static int read_as_the_arbiter(void)
{
    static struct cc_log_record records[16];
    uint64_t lost;
    return cc_nvidia.read_log(card, records, 16, &lost, &told);
}

static void who_ran_before_the_log_is_made_to_show_itself_once(void)
{
    f = fake_new();
    tenant(100, 8); /* a lone busy context writes no record: after a restart nobody would know that it runs */
    tenant(101, 8);
    CHECK(!nv_open(&f->sys, &card, FAKE_UUID, why, sizeof why));
    uint32_t stopped = one(101).handle;
    one(100);
    CHECK(!nv_stop(card, &stopped, 1, 1));
    CHECK(f->n_preempts == 0 && read_as_the_arbiter() == 0 && f->n_preempts == 1);
    CHECK(!nv_stop(card, &stopped, 1, 0)); /* the stopped one when it may run again */
    CHECK(read_as_the_arbiter() == 0 && f->n_preempts == 2);
    for (int i = 0; i < 10; i++) {
        one(100);
        CHECK(read_as_the_arbiter() == 0 && f->n_preempts == 2);
    }
    tenant(102, 8);
    one(102);
    CHECK(read_as_the_arbiter() == 0 && f->n_preempts == 2); /* began under our eyes */
    finish();
}

static void several_tenants_stop_in_one_call(void)
{
    start();
    uint32_t handles[3], clients[3];
    for (uint32_t i = 0; i < 3; i++) {
        clients[i] = tenant(100 + i, 8);
        handles[i] = one(100 + i).handle;
    }
    f->n_disable_calls = 0;
    CHECK(!nv_stop(card, handles, 3, 1) && f->n_disable_calls == 1);
    for (int i = 0; i < 3; i++)
        CHECK(fake_disabled(f, clients[i]) == 8);
    CHECK(!nv_stop(card, handles, 3, 0) && f->n_disable_calls == 2);
    for (int i = 0; i < 3; i++)
        CHECK(fake_disabled(f, clients[i]) == 0);
    finish();
}

static void calls_hold_64_channels_at_most(void)
{
    start();
    uint32_t client = tenant(100, 128), handle = one(100).handle;
    f->n_disable_calls = 0;
    CHECK(!nv_stop(card, &handle, 1, 1));
    CHECK(f->n_disable_calls == 2 && f->biggest_disable == 64 && fake_disabled(f, client) == 128);
    finish();
}

static void a_dead_tenant_holds_up_nobody(void)
{
    for (int stopped = 1; stopped >= 0; stopped--) {
        start();
        uint32_t clients[3], handles[3];
        for (uint32_t i = 0; i < 3; i++) {
            clients[i] = tenant(100 + i, 8);
            handles[i] = one(100 + i).handle;
        }
        if (!stopped)
            CHECK(!nv_stop(card, handles, 3, 1));
        f->kill_pid_at_command = NV_DISABLE_CHANNELS;
        f->kill_pid = 101;
        f->fail_after = 0;
        CHECK(!nv_stop(card, handles, 3, stopped));
        CHECK(fake_disabled(f, clients[0]) == (stopped ? 8 : 0) && fake_disabled(f, clients[2]) == (stopped ? 8 : 0));
        finish();
    }
}

static void what_is_dying_is_stopped_by_one_call_or_not_at_all(void)
{
    start();
    tenant(100, 8);
    uint32_t handle = one(100).handle;
    int before = f->n_disable_calls;
    CHECK(!nv_stop(card, &handle, 1, CC_STOP_DYING) && f->n_disable_calls == before + 1);
    f->fail_command = NV_DISABLE_CHANNELS;
    f->fail_status = NV_STATUS_INVALID_CHANNEL;
    before = f->n_controls;
    CHECK(nv_stop(card, &handle, 1, CC_STOP_DYING) == -ENOENT && f->n_controls == before + 1);
    finish();
}

static void a_channel_that_is_gone_needs_no_stop(void)
{
    start();
    uint32_t client = tenant(100, 8), handle = one(100).handle;
    f->dead_channel = FIRST + 6;
    CHECK(!nv_stop(card, &handle, 1, 1) && fake_disabled(f, client) == 7);
    CHECK(!nv_stop(card, &handle, 1, 0) && fake_disabled(f, client) == 0);
    finish();
}

static void a_stop_that_fails_is_undone(void)
{
    start();
    uint32_t client = tenant(100, 128), handle = one(100).handle;
    f->fail_command = NV_DISABLE_CHANNELS;
    f->fail_status = NV_STATUS_TIMEOUT;
    f->fail_after = 1; /* the first 64 are stopped, then nothing works any more */
    CHECK(nv_stop(card, &handle, 1, 1) == -ETIMEDOUT);
    f->fail_command = 0;
    CHECK(!card->groups[handle & 0xFFFF].stopped);
    CHECK(!nv_stop(card, &handle, 1, 0) && fake_disabled(f, client) == 0);
    finish();
}

static void a_resume_goes_on_past_a_failure(void)
{
    start();
    uint32_t clients[2], handles[2];
    for (uint32_t i = 0; i < 2; i++) {
        clients[i] = tenant(100 + i, 8);
        handles[i] = one(100 + i).handle;
    }
    CHECK(!nv_stop(card, handles, 2, 1));
    uint32_t unknown[3] = {handles[0], 0x12340001, handles[1]};
    CHECK(!nv_stop(card, unknown, 3, 0));
    CHECK(!fake_disabled(f, clients[0]) && !fake_disabled(f, clients[1]));
    finish();
}

/* ---- the log ---- */

static struct cc_log_record got[NV_LOG_RECORDS];
static uint64_t dropped, now_ns;


static int read_all(int max)
{
    int n = nv_log_read(&card->log, &card->rm, card->subdevice, got, max, &dropped, &told);
    now_ns = told.card_ns;
    return n;
}

static uint64_t card_time(void) { return (uint64_t)((int64_t)f->now_ns + f->card_offset_ns); }

static void records_come_in_order_with_the_cards_clock(void)
{
    start();
    uint64_t t = card_time();
    f->now_ns += 5000000;
    fake_log(f, NV_TAG_RUNS, 100, 7, t + 1000);
    fake_log(f, 3, 100, 7, t + 1500); /* of no interest */
    fake_log(f, NV_TAG_LEFT, 100, 7, t + 2000);
    CHECK(read_all(100) == 2 && dropped == 0);
    CHECK(got[0].kind == CC_LOG_START && got[0].ts_ns == t + 1000 && got[0].pid == 100 && got[0].context == 7);
    CHECK(got[1].kind == CC_LOG_END);
    CHECK(now_ns >= t + 2000 && now_ns <= card_time() && card_time() - now_ns < 10000);
    CHECK(read_all(100) == 0);
    finish();
}

static void a_small_buffer_gets_the_rest_next_time(void)
{
    start();
    uint64_t t = card_time();
    f->now_ns += 5000000;
    for (uint32_t i = 0; i < 10; i++)
        fake_log(f, i % 2 ? NV_TAG_LEFT : NV_TAG_RUNS, 100, 7, t + i);
    CHECK(read_all(4) == 4 && now_ns == t + 3); /* time is accounted as far as records were given */
    CHECK(read_all(4) == 4 && read_all(4) == 2 && dropped == 0 && now_ns > t + 9);
    finish();
}

static void the_ring_wraps(void)
{
    start();
    uint64_t t = card_time();
    f->now_ns += 5000000;
    for (int lap = 0; lap < 5; lap++) {
        for (uint32_t i = 0; i < 20000; i++)
            fake_log(f, i % 2 ? NV_TAG_LEFT : NV_TAG_RUNS, 100, 7, t++);
        CHECK(read_all(NV_LOG_RECORDS) == 20000 && dropped == 0);
    }
    finish();
}

static void losses_are_counted_once(void)
{
    start();
    uint64_t t = card_time();
    f->now_ns += 5000000;
    for (uint32_t i = 0; i < NV_LOG_RECORDS + 99; i++)
        fake_log(f, i % 2 ? NV_TAG_LEFT : NV_TAG_RUNS, 100, 7, t++);
    CHECK(read_all(NV_LOG_RECORDS) == (int)NV_LOG_RECORDS - 1 && dropped == 100);
    fake_log(f, NV_TAG_RUNS, 100, 7, t++); /* its sequence shows the same gap: not told twice */
    CHECK(read_all(10) == 1 && dropped == 0);
    finish();
}

static void losses_the_header_forgot_show_in_the_sequence(void)
{
    start();
    uint64_t t = card_time();
    f->now_ns += 5000000;
    fake_log(f, NV_TAG_RUNS, 100, 7, t++);
    CHECK(read_all(10) == 1 && dropped == 0);
    f->sequence = (uint16_t)(f->sequence + 250); /* dropped between our look and UPDATE_GET */
    fake_log(f, NV_TAG_LEFT, 100, 7, t++);
    CHECK(read_all(10) == 1 && dropped == 250);
    finish();
}

static void more_than_a_lap_of_the_sequence_is_still_counted(void)
{
    start();
    uint64_t t = card_time();
    f->now_ns += 5000000;
    fake_log(f, NV_TAG_RUNS, 100, 7, t++);
    CHECK(read_all(10) == 1);
    f->header.dropped = 70000;
    CHECK(read_all(10) == 0 && dropped == 70000);
    f->sequence = (uint16_t)(f->sequence + 70010);
    fake_log(f, NV_TAG_LEFT, 100, 7, t++);
    CHECK(read_all(10) == 1 && dropped == 10);
    finish();
}

static void a_put_outside_the_ring_is_refused(void)
{
    start();
    f->header.put = NV_LOG_RECORDS;
    CHECK(read_all(10) == -EPROTO);
    f->header.put = 0xFFFFFFFF;
    CHECK(read_all(10) == -EPROTO);
    f->header.put = 0;
    CHECK(read_all(10) == 0);
    finish();
}

static void a_freed_contexts_end_finds_its_process_again(void)
{
    start();
    uint64_t t = card_time();
    f->now_ns += 5000000;
    fake_log(f, NV_TAG_RUNS, 100, 7, t + 1);
    fake_log(f, NV_TAG_LEFT, NV_PID_UNKNOWN, 7, t + 2);
    fake_log(f, NV_TAG_LEFT, NV_PID_UNKNOWN, 8, t + 3);
    CHECK(read_all(10) == 3);
    CHECK(got[1].pid == 100 && got[2].pid == NV_PID_UNKNOWN);
    finish();
}

static void a_driver_without_a_clock_is_read_by_its_records(void)
{
    f = fake_new();
    f->fail_command = NV_GET_TIME;
    f->fail_status = NV_STATUS_NOT_SUPPORTED;
    CHECK(!nv_open(&f->sys, &card, FAKE_UUID, why, sizeof why));
    CHECK(card->log.clock_is_guessed);
    uint64_t t = card_time();
    f->now_ns += 1000000;
    fake_log(f, NV_TAG_RUNS, 100, 7, t);
    CHECK(read_all(10) == 1 && now_ns >= t);
    f->now_ns += 1000000;
    fake_log(f, NV_TAG_LEFT, 100, 7, card_time());
    CHECK(read_all(10) == 1);
    f->now_ns += 1000000;
    CHECK(read_all(10) == 0 && now_ns + 10000 > card_time() && now_ns < card_time() + 10000);
    finish();
}

static void a_clock_that_is_not_the_logs_is_given_up(void)
{
    start();
    fake_log(f, NV_TAG_RUNS, 100, 7, card_time() + 3600000000000ull);
    CHECK(read_all(10) == 1 && card->log.clock_is_guessed);
    CHECK(now_ns >= got[0].ts_ns);
    finish();
}

/* Others keep the driver's locks, as they do while contexts are made. */
static void waits(uint32_t command, uint64_t ns)
{
    f->slow_command = command;
    f->slow_ns = ns;
}

static bool clock_is_right(uint64_t within_ns)
{
    int64_t off = (int64_t)(told.card_ns - told.our_ns) - f->card_offset_ns;
    return off <= (int64_t)within_ns && -off <= (int64_t)within_ns;
}

static void a_reading_that_waits_for_locks_knows_the_time_as_it_did(void)
{
    start();
    uint64_t t = card_time();
    fake_log(f, NV_TAG_RUNS, 100, 7, t + 11000000); /* while we wait */
    waits(NV_LOG_FLUSH, 12000000);
    CHECK(read_all(10) == 1 && !card->log.clock_is_guessed);
    CHECK(told.card_ns == t + 11000000 && clock_is_right(1000));
    waits(0, 0);
    CHECK(read_all(10) == 0 && clock_is_right(1000) && told.card_ns >= t + 12000000);
    finish();
}

static void a_clock_that_is_answered_late_tells_nothing_new(void)
{
    start();
    for (int i = 0; i < 3; i++) {
        f->now_ns += 1100000000;
        waits(NV_GET_TIME, 10000000);
        CHECK(read_all(10) == 0 && clock_is_right(500000));
    }
    waits(0, 0);
    f->now_ns += 25000000; /* what it has drifted meanwhile is asked soon */
    CHECK(read_all(10) == 0 && clock_is_right(1000));
    finish();
}

static void a_clock_that_was_set_is_asked_at_once(void)
{
    start();
    fake_log(f, NV_TAG_RUNS, 100, 7, card_time());
    CHECK(read_all(10) == 1);
    f->card_offset_ns += 5000000000;
    f->now_ns += 1000000;
    fake_log(f, NV_TAG_LEFT, 100, 7, card_time());
    CHECK(read_all(10) == 1 && !card->log.clock_is_guessed && clock_is_right(1000));
    f->card_offset_ns -= 7000000000; /* back: nothing shows it but the clock, which is asked each second */
    f->now_ns += 1100000000;
    fake_log(f, NV_TAG_RUNS, 100, 7, card_time());
    CHECK(read_all(10) == 1 && !card->log.clock_is_guessed && clock_is_right(1000) && told.card_ns < card_time());
    finish();
}

static void the_context_of_a_lone_group_is_learnt_from_the_log(void)
{
    start();
    tenant(100, 8);
    CHECK(one(100).context == 0);
    fake_log(f, NV_TAG_RUNS, 100, 0xABC, card_time());
    CHECK(read_all(10) == 1);
    CHECK(one(100).context == 0xABC);
    finish();
}

/* ---- the real machine, as far as one without a card goes ---- */

static int n_fds(void)
{
    int n = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder))
        n++;
    if (folder)
        closedir(folder);
    return n;
}

static void free_memory_is_read_without_a_call(void)
{
    start();
    struct nv_memory memory;
    uint64_t bytes = 0;
    f->shared = (struct nv_shared_data){.memory_sequence = NV_SEQUENCE_FIRST + 2, .memory_free_bytes = 5};
    CHECK(!nv_memory_open(&memory, card) && !nv_memory_read(&memory, &bytes) && bytes == 5);
    int before = f->n_controls;
    f->shared.memory_free_bytes = 7;
    f->shared.memory_sequence += 2;
    CHECK(!nv_memory_read(&memory, &bytes) && bytes == 7 && f->n_controls == before);
    f->shared.memory_sequence++; /* the driver is at it */
    CHECK(nv_memory_read(&memory, &bytes) == -EAGAIN);
    nv_memory_close(&memory, card);
    finish();
}

static void a_driver_that_tells_no_free_memory_leaves_nothing_open(void)
{
    start();
    struct nv_memory memory;
    int maps = f->n_maps;
    CHECK(nv_memory_open(&memory, card) == -EOPNOTSUPP && f->n_maps == maps); /* never written */
    f->fail_class = NV_CLASS_SHARED_DATA;
    CHECK(nv_memory_open(&memory, card) == -EPERM && !memory.object && !memory.data);
    finish();
}

static void the_machine_borrows_control_devices_only(void)
{
    int before = n_fds(), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int pidfd = nv_machine.pidfd_open(NULL, (uint32_t)getpid());
    CHECK(pidfd >= 0 && !nv_machine.process_ended(NULL, pidfd));
    CHECK(nv_machine.borrow(NULL, pidfd, null) == -EBADF);
    CHECK(nv_machine.borrow(NULL, pidfd, 4000) == -EBADF);
    int fds[8];
    CHECK(nv_machine.control_fds(NULL, (uint32_t)getpid(), fds, 8) == 0);
    CHECK(nv_machine.control_fds(NULL, 0x7FFFFFFF, fds, 8) == -ESRCH);
    close(null);
    nv_machine.close(NULL, pidfd);
    CHECK(n_fds() == before);
}

static void the_machine_sees_a_process_begin_and_end(void)
{
    uint64_t ticks = 0, before = nv_machine.now_ticks(NULL);
    pid_t child = fork();
    if (!child) {
        pause();
        _exit(0);
    }
    CHECK(!nv_machine.start_ticks(NULL, (uint32_t)child, &ticks));
    CHECK(ticks + 1 >= before && ticks <= nv_machine.now_ticks(NULL));
    int pidfd = nv_machine.pidfd_open(NULL, (uint32_t)child);
    CHECK(!nv_machine.process_ended(NULL, pidfd));
    kill(child, SIGKILL);
    for (int i = 0; i < 1000 && !nv_machine.process_ended(NULL, pidfd); i++)
        usleep(1000);
    CHECK(nv_machine.process_ended(NULL, pidfd)); /* before anybody has waited for it */
    waitpid(child, NULL, 0);
    CHECK(nv_machine.start_ticks(NULL, (uint32_t)child, &ticks) == -ESRCH);
    nv_machine.close(NULL, pidfd);
}

static void the_table_of_a_machine_without_a_card_says_so(void)
{
    void *self = NULL;
    int before = n_fds(), error = cc_nvidia.open(&self, "GPU-nobody", why, sizeof why);
    CHECK(error < 0 && !self && why[0] && n_fds() == before);
}

#define CASE(name) {#name, name}
static const struct { const char *name; void (*run)(void); } cases[] = {
    CASE(opens_the_card_of_the_uuid), CASE(opens_without_the_drivers_proc), CASE(says_why_a_card_does_not_open),
    CASE(a_driver_of_535_takes_the_shorter_structure), CASE(the_self_test_finds_everything),
    CASE(the_self_test_names_the_control_that_is_missing), CASE(a_log_that_does_not_bind_is_told_and_leaves_nothing),
    CASE(discovery_needs_the_right_to_look_into_processes), CASE(finds_the_compute_group_and_all_its_channels),
    CASE(finds_a_group_of_128_channels), CASE(finds_several_contexts_and_several_clients),
    CASE(groups_of_another_card_are_not_ours), CASE(objects_beyond_the_first_block_are_found),
    CASE(a_second_look_keeps_handles_and_guesses_nothing),
    CASE(a_context_apart_from_the_others_is_found_in_time), CASE(a_first_look_is_bounded_by_what_is_there),
    CASE(a_later_look_is_cheap), CASE(a_context_that_is_taken_down_is_let_go), CASE(a_process_that_only_watches_is_not_guessed_at_for_ever),
    CASE(the_search_is_bracketed_by_the_process_start), CASE(a_process_that_ends_during_discovery_is_let_go),
    CASE(a_number_with_a_new_owner_is_a_new_process), CASE(hundreds_of_processes_come_and_go_without_a_leak),
    CASE(malformed_answers_are_survived), CASE(time_slices_are_set_read_and_seen_to_be_changed),
    CASE(time_slices_are_in_the_cards_own_units),
    CASE(every_control_passes_on_the_drivers_refusal), CASE(an_ioctl_that_fails_is_its_errno),
    CASE(who_ran_before_the_log_is_made_to_show_itself_once), CASE(several_tenants_stop_in_one_call), CASE(calls_hold_64_channels_at_most), CASE(a_dead_tenant_holds_up_nobody),
    CASE(a_channel_that_is_gone_needs_no_stop), CASE(what_is_dying_is_stopped_by_one_call_or_not_at_all), CASE(a_stop_that_fails_is_undone), CASE(a_resume_goes_on_past_a_failure),
    CASE(records_come_in_order_with_the_cards_clock), CASE(a_small_buffer_gets_the_rest_next_time), CASE(the_ring_wraps),
    CASE(losses_are_counted_once), CASE(losses_the_header_forgot_show_in_the_sequence),
    CASE(more_than_a_lap_of_the_sequence_is_still_counted), CASE(a_put_outside_the_ring_is_refused),
    CASE(a_freed_contexts_end_finds_its_process_again), CASE(a_driver_without_a_clock_is_read_by_its_records),
    CASE(a_clock_that_is_not_the_logs_is_given_up),
    CASE(a_reading_that_waits_for_locks_knows_the_time_as_it_did), CASE(a_clock_that_is_answered_late_tells_nothing_new),
    CASE(a_clock_that_was_set_is_asked_at_once), CASE(the_context_of_a_lone_group_is_learnt_from_the_log),
    CASE(free_memory_is_read_without_a_call), CASE(a_driver_that_tells_no_free_memory_leaves_nothing_open),
    CASE(the_machine_borrows_control_devices_only), CASE(the_machine_sees_a_process_begin_and_end),
    CASE(the_table_of_a_machine_without_a_card_says_so)};

int main(int n, char **words)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (n > 1 && !strcmp(words[1], "--list"))
            printf("%s\n", cases[i].name);
        else if (n < 2 || !strcmp(words[1], cases[i].name))
            cases[i].run();
    }
    return 0;
}
