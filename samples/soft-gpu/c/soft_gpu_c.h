/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _NULLHZ_SOFT_GPU_C_H
#define _NULLHZ_SOFT_GPU_C_H

#include <linux/atomic.h>
#include <linux/maple_tree.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/xarray.h>
#include <nullhz/mmu_batch.h>

#include "../uapi/soft_gpu.h"

/* User addresses end here; the library's notifiers need not know the last page. */
#define SOFT_GPU_END	(TASK_SIZE_MAX - PAGE_SIZE)

/**
 * struct soft_gpu_context - the memory of a process, as the device sees it
 * @mm: the memory; not kept alive
 * @space: the library's view of it
 * @tag: what entries of the TLBs are known by
 * @table: the device's page table: frame numbers by page number
 * @ranges: struct soft_gpu_range by address
 * @all: unmaps everything, when the context ends
 */
struct soft_gpu_context {
	struct mm_struct *mm;
	struct nullhz_mmu_batch_space *space;
	u32 tag;
	struct xarray table;
	struct maple_tree ranges;
	struct nullhz_mmu_batch_unmap all;

	atomic64_t registered;
	atomic64_t events;
	atomic64_t elided;
	atomic64_t zapped;
	atomic64_t faults;
	atomic64_t refused;
	atomic64_t retries;
	atomic64_t accesses;
	atomic64_t violations;
};

/**
 * struct soft_gpu_range - a range that the device may fault in
 * @start: its first address
 * @interval: bytes that an interval watches, but for the last one
 * @count: how many intervals there are
 * @intervals: the library's, one after the other
 */
struct soft_gpu_range {
	u64 start;
	u64 interval;
	u64 count;
	struct nullhz_mmu_batch_interval *intervals[] __counted_by(count);
};

/* driver.c: what a driver on nullhz_mmu_batch consists of */
int soft_gpu_driver_init(void);
void soft_gpu_driver_exit(void);
int soft_gpu_context_init(struct soft_gpu_context *context, struct mm_struct *mm, u32 tag);
void soft_gpu_context_destroy(struct soft_gpu_context *context);
int soft_gpu_register(struct soft_gpu_context *context, u64 start, u64 length, u64 interval,
		      u64 count);
int soft_gpu_fault(struct soft_gpu_context *context, u64 address);

/**
 * struct soft_gpu_attempt - an access of the device, as far as it got by itself
 * @context: whose
 * @address: of the page
 * @mapped: out: it was translated; else there was nothing to read
 * @hit: out: by the TLB
 * @stamp: out: what is in the page
 */
struct soft_gpu_attempt {
	struct soft_gpu_context *context;
	u64 address;
	bool mapped;
	bool hit;
	struct nullhz_soft_gpu_stamp stamp;
};

/* hardware.c: the device */
#define SOFT_GPU_TLB_ENTRIES	256

int soft_gpu_hardware_init(void);
void soft_gpu_hardware_exit(void);
int soft_gpu_hardware_flush(const struct nullhz_mmu_batch_span *spans, u32 count);
void soft_gpu_hardware_attempt(void *attempt);
void soft_gpu_hardware_count(struct nullhz_soft_gpu_counters *counters);

#endif /* _NULLHZ_SOFT_GPU_C_H */
