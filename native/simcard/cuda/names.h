/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLEXAI_SIM_NAMES_H
#define FLEXAI_SIM_NAMES_H
/* A variant of a driver function: from which CUDA version on a base name means it. */
struct sim_name {
    const char *base;
    int per_thread;
    int version;
    void *function;
    int missing; /* answers CUDA_ERROR_NOT_SUPPORTED */
};
extern const struct sim_name sim_names[]; /* ends with base 0 */
#endif
