/* SPDX-License-Identifier: Apache-2.0
 *
 * Included before anything else by every file of the shim: binds what moved into libc.so.6 with glibc 2.34 to the version
 * it always had, so that the library loads into containers as old as glibc 2.17. A test holds the result to that.
 */
#ifndef FLEXAI_GLIBC_H
#define FLEXAI_GLIBC_H
#if defined(__x86_64__)
#define FX_OLD "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define FX_OLD "GLIBC_2.17"
#endif
#define FX_BIND(name) __asm__(".symver " #name "," #name "@" FX_OLD)
FX_BIND(dlopen);
FX_BIND(dlsym);
FX_BIND(dladdr);
FX_BIND(dlerror);
FX_BIND(pthread_create);
FX_BIND(pthread_detach);
FX_BIND(pthread_once);
FX_BIND(pthread_attr_setstacksize);
FX_BIND(pthread_sigmask);
#endif
