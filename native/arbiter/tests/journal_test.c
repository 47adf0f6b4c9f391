/* SPDX-License-Identifier: Apache-2.0
 * The stop journal under SIGKILL: a life of stops, resumes and freezes ends before every one of its writes, and so does
 * whoever cleans up after it; what comes then leaves nobody stopped. The card is a table of what is stopped.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"
#include "die_at.h"
#include "journal.h"

#define N_GROUPS 3

static atomic_uint *card; /* one word for each group: is it stopped? Shared, as a card is. */
static pid_t tenant;
static uint64_t tenant_ticks;
static char dir[] = "/tmp/fxjXXXXXX", freezer[64]; /* a file in the place of a group's cgroup.freeze */

static int fake_open(void **self, const char *uuid, char *why, size_t n_why)
{
    (void)uuid, (void)why, (void)n_why;
    *self = card;
    return 0;
}

static void fake_close(void *self)
{
    (void)self;
}

static struct cc_group group(uint32_t number)
{
    return (struct cc_group){.pid = (uint32_t)tenant, .start_ticks = tenant_ticks, .context = 7 + number, .handle = number};
}

static int fake_discover(void *self, uint32_t pid, struct cc_group *groups, int max)
{
    (void)self, (void)max;
    CHECK(pid == (uint32_t)tenant);
    for (uint32_t i = 0; i < N_GROUPS; i++)
        groups[i] = group(i);
    return N_GROUPS;
}

/* One after the other, as a driver does it that is asked for several. */
static int fake_stop(void *self, const uint32_t *handles, int n, int stopped)
{
    (void)self;
    for (int i = 0; i < n; i++)
        card[handles[i]] = (unsigned)stopped;
    return 0;
}

static const struct cc_ops fake = {.open = fake_open, .close = fake_close, .discover = fake_discover, .stop = fake_stop};

static struct journal *mapped(void)
{
    struct journal *j = journal_map(dir, true);
    CHECK(j);
    return j;
}

static void stop(struct journal *j, uint32_t number)
{
    struct cc_group one = group(number);
    CHECK(journal_add(j, "GPU-1", &one));
    fake.stop(card, &number, 1, 1);
}

static void resume(struct journal *j, uint32_t number)
{
    fake.stop(card, &number, 1, 0);
    journal_remove(j, "GPU-1", number);
}

/* What the arbiter does, in the order in which it does it. */
static void live(struct journal *j)
{
    stop(j, 0);
    stop(j, 0); /* again: it seemed to undo it */
    stop(j, 1);
    resume(j, 0);
    CHECK(journal_freeze(j, (uint32_t)tenant, tenant_ticks));
    stop(j, 2);
    stop(j, 0);
    CHECK(journal_freeze_group(j, freezer) && journal_freeze_group(j, freezer));
    CHECK(!journal_freeze_group(j, "/nowhere/cgroup.freeze"));
    journal_thaw(j, (uint32_t)tenant);
    resume(j, 1);
    journal_thaw_group(j, freezer);
    CHECK(journal_freeze(j, (uint32_t)tenant, tenant_ticks));
    resume(j, 0);
    resume(j, 2);
    journal_thaw(j, (uint32_t)tenant);
}

static void rescue(struct journal *j)
{
    journal_resume(j, &fake, NULL);
}

/* True: it came to its end before that point. */
static bool killed_before(void (*act)(struct journal *), unsigned long point)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        struct journal *j = mapped();
        die_watch(j, sizeof *j, 0, 0);
        die_watch(card, 4096, 0, 0);
        die_at(point);
        act(j);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFEXITED(status))
        return WEXITSTATUS(status) == 0;
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "signal %d", WTERMSIG(status));
    return false;
}

static char state_of_tenant(void)
{
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)tenant);
    FILE *file = fopen(path, "re");
    CHECK(file && fgets(line, sizeof line, file));
    fclose(file);
    return strrchr(line, ')')[2];
}

/* '1' while the group is frozen. */
static char state_of_group(void)
{
    char state = 0;
    int fd = open(freezer, O_RDONLY);
    CHECK(fd >= 0 && read(fd, &state, 1) == 1);
    close(fd);
    return state;
}

static void wait_for_tenant(bool frozen)
{
    for (int i = 0; i < 5000 && (state_of_tenant() == 'T') != frozen; i++)
        usleep(1000);
}

static void nobody_is_stopped(unsigned long point, unsigned long then)
{
    for (uint32_t i = 0; i < N_GROUPS; i++)
        CHECK(!card[i], "group %u; killed before write %lu, its rescuer before write %lu", i, point, then);
    wait_for_tenant(false);
    CHECK(state_of_group() == '0', "its group is frozen; killed before write %lu, its rescuer before write %lu", point, then);
    CHECK(state_of_tenant() != 'T', "frozen; killed before write %lu, its rescuer before write %lu", point, then);
    CHECK(!journal_holds(mapped()), "killed before write %lu, its rescuer before write %lu", point, then);
}

static void set_group(char state)
{
    int fd = open(freezer, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, &state, 1) == 1);
    close(fd);
}

/* What a kill left behind, so that it can be rescued from more than once. */
static struct left {
    struct journal journal;
    unsigned card[N_GROUPS];
    bool frozen;
    char group;
} left;

static void keep(const struct journal *j)
{
    left.journal = *j;
    for (int i = 0; i < N_GROUPS; i++)
        left.card[i] = card[i];
    usleep(500); /* a signal may be on its way */
    left.frozen = state_of_tenant() == 'T';
    left.group = state_of_group();
}

static void bring_back(struct journal *j)
{
    *j = left.journal;
    for (int i = 0; i < N_GROUPS; i++)
        card[i] = left.card[i];
    set_group(left.group);
    kill(tenant, left.frozen ? SIGSTOP : SIGCONT);
    wait_for_tenant(left.frozen);
}

int main(void)
{
    unsigned long point = 0, n_rescues = 0;
    card = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(card != MAP_FAILED && mkdtemp(dir));
    if ((tenant = fork()) == 0)
        for (;;)
            pause();
    tenant_ticks = process_start_ticks((uint32_t)tenant);
    snprintf(freezer, sizeof freezer, "%s/cgroup.freeze", dir);
    set_group('0');
    struct journal *j = mapped();
    while (!killed_before(live, ++point)) {
        keep(j);
        /* Who rescues is killed as well, before each of its own writes; the next one comes to its end. */
        for (unsigned long then = 1; !killed_before(rescue, then); then++) {
            rescue(j);
            nobody_is_stopped(point, then);
            bring_back(j);
            n_rescues++;
        }
        nobody_is_stopped(point, 0);
    }
    nobody_is_stopped(point, 0);
    printf("%lu points of a life, %lu of rescues\n", point - 1, n_rescues);
    kill(tenant, SIGKILL);
    char path[64];
    snprintf(path, sizeof path, "%s/journal", dir);
    unlink(path);
    unlink(freezer);
    rmdir(dir);
    return point > 40 && n_rescues > point ? 0 : 1;
}
