/* SPDX-License-Identifier: Apache-2.0
 * A test program's one word: CHECK says what did not hold and ends the program.
 */
#ifndef FLEXAI_SIMCARD_CHECK_H
#define FLEXAI_SIMCARD_CHECK_H
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static inline void check_failed(const char *file, int line, const char *what, const char *format, ...)
{
    va_list list;
    fprintf(stderr, "%s:%d: %s does not hold: ", file, line, what);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}
#define CHECK(what, ...)                                                                                               \
    do {                                                                                                               \
        if (!(what))                                                                                                   \
            check_failed(__FILE__, __LINE__, #what, "" __VA_ARGS__);                                                   \
    } while (0)
#define CHECK_NEAR(got, goal, within)                                                                                  \
    do {                                                                                                               \
        double got_ = (double)(got), goal_ = (double)(goal);                                                           \
        CHECK(got_ - goal_ <= (within) && goal_ - got_ <= (within), "%s is %g, not %g", #got, got_, goal_);            \
    } while (0)
#endif
