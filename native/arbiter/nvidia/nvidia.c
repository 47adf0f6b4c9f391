/* SPDX-License-Identifier: Apache-2.0
 *
 * The table cc_nvidia over the parts: opening a card by UUID and trying what works on it.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "nvidia.h"

static int fail(int error, char *why, size_t n_why, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, n_why, format, arguments);
    va_end(arguments);
    return error;
}

/* The driver numbers cards its own way, and knows those whose device file somebody holds: ask each for its UUID. */
static int find_gpu(struct nv_card *card, const char *uuid, uint32_t *instance)
{
    struct nv_attached_ids attached;
    memset(&attached, 0xFF, sizeof attached);
    int error = nv_control(&card->rm, card->rm.client, NV_GET_ATTACHED_IDS, &attached, sizeof attached);
    if (error)
        return error;
    for (int i = 0; i < NV_MAX_GPUS && attached.ids[i] != NV_NO_GPU; i++) {
        struct nv_uuid asked = {.gpu = attached.ids[i]};
        struct nv_id_info about = {.gpu = attached.ids[i]};
        if (nv_control(&card->rm, card->rm.client, NV_GET_UUID, &asked, sizeof asked))
            continue;
        asked.text[sizeof card->uuid - 1] = 0;
        if (uuid[0] && strcmp((const char *)asked.text, uuid) != 0)
            continue;
        memcpy(card->uuid, asked.text, sizeof card->uuid);
        card->gpu = attached.ids[i];
        error = nv_control(&card->rm, card->rm.client, NV_GET_ID_INFO, &about, sizeof about);
        *instance = about.device_instance;
        return error;
    }
    return -ENODEV;
}

static int try_file(struct nv_card *card, int minor, const char *uuid, uint32_t *instance)
{
    const struct nv_sys *sys = card->sys;
    char path[32];
    snprintf(path, sizeof path, "/dev/nvidia%d", minor);
    card->card_fd = sys->open(sys->context, path);
    if (card->card_fd < 0)
        return card->card_fd;
    struct nv_register_fd together = {.ctl_fd = card->rm.fd};
    sys->ioctl(sys->context, card->card_fd, NV_ESC_REGISTER_FD, &together); /* older drivers do without */
    int error = find_gpu(card, uuid, instance);
    if (error) {
        sys->close(sys->context, card->card_fd);
        card->card_fd = -1;
    }
    return error;
}

static int attach(struct nv_card *card, const char *uuid, char *why, size_t n_why)
{
    struct nv_card_file files[NV_MAX_CARDS];
    const struct nv_sys *sys = card->sys;
    int n = sys->cards(sys->context, files, NV_MAX_CARDS);
    if (n <= 0)
        return fail(n ? n : -ENODEV, why, n_why, "no card in /proc/driver/nvidia/gpus or /dev: is the driver loaded?");
    card->n_cards = n;
    int error = nv_rm_open(&card->rm, sys);
    if (error)
        return fail(error, why, n_why, "/dev/nvidiactl: %s (driver status 0x%x)", strerror(-error), card->rm.status);
    uint32_t instance = 0;
    error = -ENODEV;
    for (int i = 0; i < n && error; i++)
        if (!uuid[0] || !files[i].uuid[0] || !strcmp(files[i].uuid, uuid))
            error = try_file(card, files[i].minor, uuid, &instance);
    if (error)
        return fail(error, why, n_why, "of %d card(s) none opens as %s: %s (driver status 0x%x)", n,
                    uuid[0] ? uuid : "the first", strerror(-error), card->rm.status);
    struct nv_device_alloc device = {
        .device = instance, .client_share = card->rm.client, .va_mode = NV_DEVICE_VA_MODE_MULTIPLE};
    error = nv_alloc(&card->rm, card->rm.client, NV_CLASS_DEVICE, &device, sizeof device, &card->device);
    struct nv_subdevice_alloc subdevice = {0};
    if (!error)
        error = nv_alloc(&card->rm, card->device, NV_CLASS_SUBDEVICE, &subdevice, sizeof subdevice, &card->subdevice);
    if (error)
        return fail(error, why, n_why, "no device object: %s (driver status 0x%x)", strerror(-error), card->rm.status);
    return 0;
}

int nv_attach(const struct nv_sys *sys, struct nv_card **card, const char *uuid, char *why, size_t n_why)
{
    struct nv_card *c = calloc(1, sizeof *c);
    if (!c)
        return fail(-ENOMEM, why, n_why, "out of memory");
    c->sys = sys;
    c->rm.fd = c->card_fd = -1;
    int error = attach(c, uuid, why, n_why);
    if (error) {
        nv_close(c);
        return error;
    }
    *card = c;
    return 0;
}

int nv_open(const struct nv_sys *sys, struct nv_card **card, const char *uuid, char *why, size_t n_why)
{
    struct nv_card *c;
    int error = nv_attach(sys, &c, uuid, why, n_why);
    if (error)
        return error;
    char missing[128];
    nv_log_open(&c->log, &c->rm, c->subdevice, missing, sizeof missing); /* without: the self-test says so */
    c->opened_ticks = sys->now_ticks(sys->context);
    nv_mark_now(c);
    *card = c;
    return 0;
}

void nv_close(struct nv_card *card)
{
    for (int i = 0; i < NV_MAX_PROCESSES; i++)
        if (card->processes[i].used)
            nv_process_drop(card, &card->processes[i]);
    if (card->rm.fd >= 0)
        nv_log_close(&card->log, &card->rm);
    if (card->card_fd >= 0)
        card->sys->close(card->sys->context, card->card_fd);
    nv_rm_close(&card->rm);
    free(card);
}

/* ---- self-test: on a channel group of our own that never runs, on ourselves, never on a tenant ---- */

struct test {
    struct nv_card *card;
    struct nv_check *checks;
    int n, max;
};

static int note(struct test *t, const char *name, int error, uint64_t began_ns, const char *text)
{
    if (t->n < t->max) {
        struct nv_check *check = &t->checks[t->n++];
        memset(check, 0, sizeof *check);
        snprintf(check->name, sizeof check->name, "%s", name);
        check->error = error;
        check->status = error ? t->card->rm.status : 0;
        check->cost_ns = t->card->sys->now_ns(t->card->sys->context) - began_ns;
        if (error)
            snprintf(check->note, sizeof check->note, "%s: %s (driver status 0x%x)", text, strerror(-error),
                     check->status);
    }
    return error;
}

static uint64_t now(const struct test *t)
{
    return t->card->sys->now_ns(t->card->sys->context);
}

static int test_group(struct test *t, uint32_t *group)
{
    uint64_t began = now(t);
    struct nv_group_alloc wanted = {.engine = NV_ENGINE_GRAPHICS};
    int error = nv_alloc(&t->card->rm, t->card->device, NV_CLASS_GROUP, &wanted, sizeof wanted, group);
    return note(t, "group", error, began, "no channel group of our own to try controls on");
}

static int test_timeslice(struct test *t, uint32_t group)
{
    const uint64_t wanted = 3000;
    uint64_t us = wanted, found = 0, began = now(t);
    int error = nv_control(&t->card->rm, group, NV_SET_TIMESLICE, &us, sizeof us);
    if (note(t, "set_timeslice", error, began, "the driver does not let us set time slices"))
        return error;
    began = now(t);
    error = nv_control(&t->card->rm, group, NV_GET_TIMESLICE, &found, sizeof found);
    if (!error && found != wanted)
        error = -EPROTO;
    return note(t, "get_timeslice", error, began, "a time slice that was set does not read back");
}

static int test_preempt(struct test *t, uint32_t group)
{
    struct nv_preempt wanted = NV_PREEMPT_WITHIN(1000);
    uint64_t began = now(t);
    int error = nv_control(&t->card->rm, group, NV_PREEMPT, &wanted, sizeof wanted);
    /* A group that never ran has nothing to evict, and the wait for it ends by timeout: the control exists then. */
    if (error == -EBUSY || error == -EINVAL || error == -ETIMEDOUT)
        error = 0;
    return note(t, "preempt", error, began, "no preemption");
}

static int test_stop(struct test *t)
{
    struct nv_disable none = {.disable = 1};
    uint64_t began = now(t);
    int error = nv_control(&t->card->rm, t->card->subdevice, NV_DISABLE_CHANNELS, &none, sizeof none);
    if (error == -EINVAL)
        error = 0; /* an empty list is refused as such: the control exists and is open to us */
    return note(t, "stop", error, began, "channels cannot be stopped");
}

static int test_log(struct test *t)
{
    struct nv_card *card = t->card;
    char why[128] = "";
    uint64_t began = now(t), dropped;
    struct cc_moment told;
    int error = 0;
    if (!card->log.open)
        error = nv_log_open(&card->log, &card->rm, card->subdevice, why, sizeof why);
    struct cc_log_record none[1];
    if (!error) {
        error = nv_log_read(&card->log, &card->rm, card->subdevice, none, 0, &dropped, &told);
        error = error > 0 ? 0 : error;
    }
    return note(t, "log", error, began, why[0] ? why : "the context-switch log does not answer");
}

static int test_discover(struct test *t)
{
    const struct nv_sys *sys = t->card->sys;
    uint64_t began = now(t), held = sys->capabilities(sys->context);
    if (!(held & 1ull << CAP_SYS_PTRACE))
        return note(t, "discover", -EPERM, began, "needs CAP_SYS_PTRACE");
    struct nv_handle_info ask = {.object = t->card->subdevice, .index = NV_HANDLE_CLASS};
    int error = nv_control(&t->card->rm, t->card->rm.client, NV_GET_HANDLE_INFO, &ask, sizeof ask);
    if (!error && (uint32_t)ask.value != NV_CLASS_SUBDEVICE)
        error = -EPROTO;
    return note(t, "discover", error, began, "the driver does not say what objects are");
}

int nv_self_test(struct nv_card *card, struct cc_capabilities *caps, struct nv_check *checks, int max)
{
    struct test t = {.card = card, .checks = checks, .max = max};
    uint32_t group = 0;
    memset(caps, 0, sizeof *caps);
    if (!test_group(&t, &group)) {
        caps->timeslice = !test_timeslice(&t, group);
        caps->preempt = !test_preempt(&t, group);
        nv_free(&card->rm, card->device, group);
    }
    caps->stop = !test_stop(&t);
    caps->log = !test_log(&t);
    caps->discover = !test_discover(&t);
    for (int i = 0; i < t.n && !caps->note[0]; i++)
        if (checks[i].error)
            snprintf(caps->note, sizeof caps->note, "%s: %.*s", checks[i].name, 100, checks[i].note);
    return t.n;
}

/* ---- the table ---- */

static int table_open(void **self, const char *uuid, char *why, size_t n_why)
{
    struct nv_card *card = NULL;
    int error = nv_open(&nv_machine, &card, uuid, why, n_why);
    *self = card;
    return error;
}

static void table_close(void *self) { nv_close(self); }

static int table_self_test(void *self, struct cc_capabilities *caps)
{
    struct nv_check checks[16];
    nv_self_test(self, caps, checks, 16);
    return 0;
}

static int table_discover(void *self, uint32_t pid, struct cc_group *groups, int max)
{
    return nv_discover(self, pid, groups, max);
}

static void table_forget(void *self, uint32_t handle)
{
    struct nv_card *card = self;
    struct nv_group *group = nv_group_of(card, handle);
    if (!group)
        return;
    uint16_t owner = group->process;
    nv_group_drop(card, group);
    for (int i = 0; i < NV_MAX_GROUPS; i++)
        if (card->groups[i].used && card->groups[i].process == owner)
            return;
    nv_process_drop(card, &card->processes[owner]);
}

/* A runlist's entry holds a time slice as 8 bits shifted by some, in units of 1024 ns: of 33401, 34.08 ms were seen in the
 * log (H200, 580.159.04), of 13763 14.09. The driver's own default, 2048, is 2.1 ms. */
static uint32_t driver_us(uint32_t us)
{
    uint32_t units = (uint32_t)(((uint64_t)us * 1000 + 512) / 1024), shift = 0;
    while (units >> shift > 255)
        shift++;
    uint32_t nearest = shift ? (units + (1u << (shift - 1))) >> shift << shift : units;
    return nearest ? nearest : 1;
}

static uint32_t real_us(uint32_t units) { return (uint32_t)(((uint64_t)units * 1024 + 500) / 1000); }

static int table_set(void *self, uint32_t handle, uint32_t us)
{
    uint32_t units = driver_us(us);
    int error = nv_set_timeslice(self, handle, units);
    return error ? error : (int)real_us(units);
}

static int table_get(void *self, uint32_t handle, uint32_t *us)
{
    uint32_t units = 0;
    int error = nv_get_timeslice(self, handle, &units);
    *us = error ? *us : real_us(units);
    return error;
}
static int table_preempt(void *self, uint32_t handle) { return nv_preempt(self, handle); }

static int table_stop(void *self, const uint32_t *handles, int n, int stopped)
{
    return nv_stop(self, handles, n, stopped);
}

static int table_read_log(void *self, struct cc_log_record *records, int max, uint64_t *dropped, struct cc_moment *told)
{
    struct nv_card *card = self;
    nv_show(card);
    return nv_log_read(&card->log, &card->rm, card->subdevice, records, max, dropped, told);
}

const struct cc_ops cc_nvidia = {
    .name = "nvidia",
    .open = table_open,
    .close = table_close,
    .self_test = table_self_test,
    .discover = table_discover,
    .forget = table_forget,
    .set_timeslice = table_set,
    .get_timeslice = table_get,
    .stop = table_stop,
    .preempt = table_preempt,
    .read_log = table_read_log,
};
