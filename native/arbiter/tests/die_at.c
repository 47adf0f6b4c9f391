/* SPDX-License-Identifier: Apache-2.0 */
#include "die_at.h"

#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define TRAP_FLAG 0x100

static struct mapping {
    char *at;
    size_t n, skip, n_skip;
} mapping[DIE_MAPPINGS];
static int n_mappings;
static unsigned long passed, last;
static struct mapping *open_one;

void die_point(void)
{
    if (++passed == last)
        syscall(SYS_kill, (pid_t)syscall(SYS_getpid), SIGKILL);
}

static void store_begins(int number, siginfo_t *info, void *context)
{
    ucontext_t *at = context;
    for (int i = 0; i < n_mappings; i++) {
        struct mapping *m = &mapping[i];
        size_t offset = (size_t)((char *)info->si_addr - m->at);
        if ((char *)info->si_addr < m->at || offset >= m->n)
            continue;
        if (offset < m->skip || offset >= m->skip + m->n_skip)
            die_point();
        mprotect(m->at, m->n, PROT_READ | PROT_WRITE);
        open_one = m;
        at->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
        return;
    }
    signal(number, SIG_DFL); /* a fault of its own */
}

static void store_is_done(int number, siginfo_t *info, void *context)
{
    ucontext_t *at = context;
    (void)number;
    (void)info;
    if (open_one)
        mprotect(open_one->at, open_one->n, PROT_READ);
    open_one = NULL;
    at->uc_mcontext.gregs[REG_EFL] &= ~(long long)TRAP_FLAG;
}

void die_watch(void *at, size_t n, size_t skip, size_t n_skip)
{
    struct sigaction begins = {.sa_sigaction = store_begins, .sa_flags = SA_SIGINFO | SA_NODEFER};
    struct sigaction done = {.sa_sigaction = store_is_done, .sa_flags = SA_SIGINFO};
    if (n_mappings == DIE_MAPPINGS)
        return;
    mapping[n_mappings++] = (struct mapping){.at = at, .n = n, .skip = skip, .n_skip = n_skip};
    sigfillset(&begins.sa_mask);
    sigdelset(&begins.sa_mask, SIGTRAP);
    sigfillset(&done.sa_mask);
    sigaction(SIGSEGV, &begins, NULL);
    sigaction(SIGTRAP, &done, NULL);
    mprotect(at, n, PROT_READ);
}

void die_at(unsigned long number)
{
    passed = 0;
    last = number;
}
