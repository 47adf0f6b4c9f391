/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLEXAI_CUDA_VARIANT_H
#define FLEXAI_CUDA_VARIANT_H
/* One exported variant of a function that we handle; table generated from gen/cuda_versions.txt. */
struct cuda_variant {
    const char *base;       /* the name cuGetProcAddress is asked for */
    int index;              /* FX_<exported name> */
    int since;              /* CUDA version, 12030 = 12.3 */
    int per_thread;         /* 1 = a _ptsz or _ptds variant */
};
extern const struct cuda_variant cuda_variants[];
#endif
