/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening the vendor's own library behind ours of the same name.
 */
#ifndef FLEXAI_REAL_H
#define FLEXAI_REAL_H

/* dlopen the vendor library: the path in environment variable `variable`, else `soname` in the loader's usual places,
 * leaving out our own file. NULL when there is none; `why` then says what was tried. */
void *fx_real_open(const char *variable, const char *soname, char *why, unsigned n_why);
#endif
