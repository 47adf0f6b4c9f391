/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLEXAI_SIMCARD_ORDER_H
#define FLEXAI_SIMCARD_ORDER_H
/* Tell a running daemon. Returns an exit status; 2: the words make no command. */
int order(const char *socket, int n, char **words);
#endif
