/* SPDX-License-Identifier: Apache-2.0
 *
 * flexai-nvprobe: what NVIDIA's controls do on this machine, one JSON object a line, for `flexai doctor` and for people;
 * and the smallest policies over them (watch, limit, share), a proof of the controls that owes nothing to the arbiter.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "probe.h"

struct nv_card *card;
volatile sig_atomic_t ending;

static void on_signal(int number) { (void)number; ending = 1; }

int explain(const char *what, int error)
{
    fprintf(stderr, "flexai-nvprobe: %s: %s (driver status 0x%x)\n", what, strerror(-error), card ? card->rm.status : 0);
    return 1;
}

static int open_card(const char *wanted)
{
    char why[160];
    if (!nv_open(&nv_machine, &card, wanted, why, sizeof why))
        return 0;
    fprintf(stderr, "flexai-nvprobe: %s: %s\n", wanted[0] ? wanted : "first card", why);
    return 1;
}

static void print_text(const char *text)
{
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text >= 0x20)
            putchar(*text);
}

static int check_card(const char *wanted)
{
    if (open_card(wanted))
        return 1;
    struct cc_capabilities caps;
    struct nv_check checks[16];
    int n = nv_self_test(card, &caps, checks, 16), failed = 0;
    for (int i = 0; i < n; i++) {
        printf("{\"card\":\"%s\",\"check\":\"%s\",\"ok\":%s,\"us\":%.1f,\"status\":%u,\"note\":\"", card->uuid, checks[i].name,
               checks[i].error ? "false" : "true", (double)checks[i].cost_ns / 1e3, checks[i].status);
        print_text(checks[i].note);
        printf("\"}\n");
        failed |= checks[i].error != 0;
    }
    printf("{\"card\":\"%s\",\"check\":\"capabilities\",\"ok\":%s,\"timeslice\":%d,\"stop\":%d,\"preempt\":%d,\"log\":%d,"
           "\"discover\":%d,\"clock\":\"%s\"}\n", card->uuid, failed ? "false" : "true", caps.timeslice, caps.stop,
           caps.preempt, caps.log, caps.discover, card->log.clock_is_guessed ? "guessed from records" : "card");
    nv_close(card);
    card = NULL;
    return failed;
}

static int check_all(const char *wanted)
{
    if (wanted[0])
        return check_card(wanted);
    struct nv_card_file files[NV_MAX_CARDS];
    int n = nv_machine.cards(NULL, files, NV_MAX_CARDS), failed = n <= 0;
    if (failed)
        fprintf(stderr, "flexai-nvprobe: no NVIDIA card: /proc/driver/nvidia/gpus is missing or empty\n");
    for (int i = 0; i < n; i++)
        failed |= check_card(files[i].uuid);
    return failed;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: flexai-nvprobe [--card UUID] [check]            try every control; one JSON object a line\n"
            "       flexai-nvprobe discover PID...                  the process's compute groups\n"
            "       flexai-nvprobe watch SECONDS                    who had the card, by the driver's log\n"
            "       flexai-nvprobe limit PID PERCENT SECONDS [PERIOD_MS]\n"
            "       flexai-nvprobe share SECONDS TURN_MS PID:WEIGHT...\n"
            "       flexai-nvprobe stop PID... | resume PID...      a stop lasts until resumed\n"
            "       flexai-nvprobe timeslice PID [US]               read, or set and read\n"
            "       flexai-nvprobe calls PID [N]                    what each control costs\n"
            "       flexai-nvprobe memory                           the card's free memory until the end of input\n");
    return 2;
}

static int command(int n, char **words)
{
    const char *name = words[0];
    if (!strcmp(name, "watch") && n == 2)
        return probe_watch(atof(words[1]));
    if (!strcmp(name, "discover") && n >= 2)
        return find_tenants(words + 1, n - 1);
    if (!strcmp(name, "limit") && n >= 4)
        return find_tenants(words + 1, 1) || probe_limit(atof(words[2]), atof(words[3]), n > 4 ? atof(words[4]) : 30);
    if (!strcmp(name, "share") && n >= 4)
        return find_tenants(words + 3, n - 3) || probe_share(atof(words[1]), atof(words[2]));
    if (!strcmp(name, "timeslice") && n >= 2)
        return find_tenants(words + 1, 1) || probe_slices(n > 2 ? words[2] : NULL);
    if (!strcmp(name, "calls") && n >= 2)
        return find_tenants(words + 1, 1) || probe_calls(n > 2 ? atoi(words[2]) : 200);
    if ((!strcmp(name, "stop") || !strcmp(name, "resume")) && n >= 2) {
        if (find_tenants(words + 1, n - 1))
            return 1;
        for (int i = 0; i < n_tenants; i++) {
            int error = set_stopped(&tenants[i], name[0] == 's');
            if (error)
                return explain(name, error);
        }
        return 0;
    }
    return usage();
}

int main(int n, char **words)
{
    const char *wanted = "";
    n--, words++;
    if (n >= 2 && !strcmp(words[0], "--card")) {
        wanted = words[1];
        n -= 2, words += 2;
    }
    if (n == 0 || !strcmp(words[0], "check"))
        return check_all(wanted);
    if (words[0][0] == '-')
        return usage();
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (n == 1 && !strcmp(words[0], "memory"))
        return memory_command(wanted);
    if (open_card(wanted))
        return 1;
    int rc = command(n, words);
    nv_close(card);
    return rc;
}
