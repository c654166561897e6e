/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _NULLHZ_SOFT_GPU_GLUE_H
#define _NULLHZ_SOFT_GPU_GLUE_H

#include <linux/types.h>

/* Called by ffi.rs, which documents them. */
bool nullhz_soft_gpu_read(unsigned long pfn, u64 stamp[4]);
void nullhz_soft_gpu_write(unsigned long pfn, const u64 mark[4]);
void nullhz_soft_gpu_mark_dirty(unsigned long pfn);
u64 nullhz_soft_gpu_monotonic_ns(void);

#endif /* _NULLHZ_SOFT_GPU_GLUE_H */
