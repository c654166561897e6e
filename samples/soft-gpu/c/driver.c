// SPDX-License-Identifier: GPL-2.0
/*
 * What a driver does with nullhz_mmu_batch, and all that it does: the device is
 * in hardware.c, files and threads are in device.c. It has no notifier, no
 * lock and no flush of its own: it removes entries from its page table when it
 * is told to, faults pages in, and knows how its device is flushed.
 */

#include <linux/hmm.h>
#include <linux/jiffies.h>
#include <linux/math64.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "soft_gpu_c.h"

static struct nullhz_mmu_batch_device *soft_gpu_device;

/* --- The device: one TLB, or many that are flushed together --------------- */

static int soft_gpu_flush(void *driver, const struct nullhz_mmu_batch_span *spans, u32 count)
{
	return soft_gpu_hardware_flush(spans, count);
}

/* Only called if a flush fails, which this device never does. */
static int soft_gpu_reset(void *driver)
{
	return soft_gpu_hardware_flush(NULL, 0);
}

static const struct nullhz_mmu_batch_device_ops soft_gpu_device_ops = {
	.owner = THIS_MODULE,
	.flush = soft_gpu_flush,
	.reset = soft_gpu_reset,
};

int soft_gpu_driver_init(void)
{
	soft_gpu_device = nullhz_mmu_batch_device_register("soft-gpu-c", &soft_gpu_device_ops,
							   NULL, NULL);
	return PTR_ERR_OR_ZERO(soft_gpu_device);
}

void soft_gpu_driver_exit(void)
{
	nullhz_mmu_batch_device_unregister(soft_gpu_device);
}

/* --- Intervals: the memory management takes pages away -------------------- */

/* Returns how many entries there were. Allocates nothing. */
static u64 soft_gpu_clear(struct soft_gpu_context *context, u64 start, u64 end)
{
	unsigned long index;
	u64 zapped = 0;
	void *entry;

	xa_for_each_range(&context->table, index, entry, start >> PAGE_SHIFT,
			  (end - 1) >> PAGE_SHIFT) {
		xa_erase(&context->table, index);
		zapped++;
	}
	atomic64_add(zapped, &context->zapped);
	return zapped;
}

static bool soft_gpu_zap(void *driver, const struct nullhz_mmu_batch_event *event)
{
	struct soft_gpu_context *context = driver;
	bool live = soft_gpu_clear(context, event->start, event->end) != 0;

	atomic64_inc(&context->events);
	if (!live)
		atomic64_inc(&context->elided);
	return live;
}

static bool soft_gpu_live(void *driver, const struct nullhz_mmu_batch_event *event)
{
	struct soft_gpu_context *context = driver;
	unsigned long index = event->start >> PAGE_SHIFT;

	return xa_find(&context->table, &index, (event->end - 1) >> PAGE_SHIFT, XA_PRESENT);
}

static const struct nullhz_mmu_batch_interval_ops soft_gpu_interval_ops = {
	.zap = soft_gpu_zap,
	.live = soft_gpu_live,
};

static void soft_gpu_unregister(struct soft_gpu_range *range)
{
	u64 i;

	for (i = 0; i < range->count; i++)
		nullhz_mmu_batch_interval_remove(range->intervals[i]);
	kvfree(range);
}

/* Watches [start, start + length) in @count intervals: all of it, or nothing after an error. */
int soft_gpu_register(struct soft_gpu_context *context, u64 start, u64 length, u64 interval,
		      u64 count)
{
	struct soft_gpu_range *range;
	int ret = 0;
	u64 i;

	range = kvzalloc(struct_size(range, intervals, count), GFP_KERNEL_ACCOUNT);
	if (!range)
		return -ENOMEM;
	range->start = start;
	range->interval = interval;
	for (i = 0; i < count; i++) {
		struct nullhz_mmu_batch_interval *inserted;
		u64 size = min(interval, length - i * interval);

		inserted = nullhz_mmu_batch_interval_insert(context->space, start + i * interval,
							    size, &soft_gpu_interval_ops, context);
		ret = PTR_ERR_OR_ZERO(inserted);
		if (ret)
			break;
		range->count++;
		range->intervals[i] = inserted;
	}
	/* From here on threads find it: the last thing that can fail. */
	if (!ret)
		ret = mtree_insert_range(&context->ranges, start, start + length - 1, range,
					 GFP_KERNEL_ACCOUNT);
	if (ret)
		soft_gpu_unregister(range);
	else
		atomic64_add(count, &context->registered);
	return ret;
}

/* --- Faults: the device wants a page --------------------------------------- */

/* Process context. -EFAULT: not registered, or not mapped; -ESRCH: the process has gone. */
int soft_gpu_fault(struct soft_gpu_context *context, u64 address)
{
	struct soft_gpu_range *registered = mtree_load(&context->ranges, address);
	unsigned long index = address >> PAGE_SHIFT;
	unsigned long pfn = 0;
	struct hmm_range range = {
		.start = address,
		.end = address + PAGE_SIZE,
		.hmm_pfns = &pfn,
		.default_flags = HMM_PFN_REQ_FAULT,
	};
	bool retry;
	int ret;
	u64 n;

	if (!registered)
		return -EFAULT;
	if (!mmget_not_zero(context->mm))
		return -ESRCH;
	n = div64_u64(address - registered->start, registered->interval);
	range.notifier = nullhz_mmu_batch_interval_notifier(registered->intervals[n]);
	do {
		/* Nothing that reclaims may be allocated under the lock. */
		ret = xa_reserve(&context->table, index, GFP_KERNEL_ACCOUNT);
		if (!ret)
			ret = hmm_range_fault_unlocked_timeout(&range, HZ);
		if (ret)
			break;
		nullhz_mmu_batch_space_lock(context->space);
		retry = mmu_interval_read_retry(range.notifier, range.notifier_seq);
		if (!retry)
			ret = xa_err(xa_store(&context->table, index,
					      xa_mk_value(pfn & ~HMM_PFN_FLAGS),
					      GFP_NOWAIT));
		nullhz_mmu_batch_space_unlock(context->space);
		if (retry)
			atomic64_inc(&context->retries);
	} while (retry);
	if (ret)
		xa_release(&context->table, index);
	mmput(context->mm);
	return ret;
}

/* --- Contexts ---------------------------------------------------------------- */

static bool soft_gpu_zap_all(struct nullhz_mmu_batch_unmap *unmap)
{
	struct soft_gpu_context *context = container_of(unmap, struct soft_gpu_context, all);

	return soft_gpu_clear(context, unmap->start, unmap->end) != 0;
}

/* Nothing is pinned: it only is to be out of the TLBs. */
static void soft_gpu_release_all(struct nullhz_mmu_batch_unmap *unmap)
{
}

/* The caller uses @mm. */
int soft_gpu_context_init(struct soft_gpu_context *context, struct mm_struct *mm, u32 tag)
{
	context->mm = mm;
	context->tag = tag;
	context->space = nullhz_mmu_batch_space_create(soft_gpu_device, mm, tag);
	if (IS_ERR(context->space))
		return PTR_ERR(context->space);
	mmgrab(mm);
	xa_init(&context->table);
	mt_init_flags(&context->ranges, MT_FLAGS_USE_RCU);
	return 0;
}

/* No thread of the device uses it any more. */
void soft_gpu_context_destroy(struct soft_gpu_context *context)
{
	struct soft_gpu_range *range;
	unsigned long address = 0;

	context->all = (struct nullhz_mmu_batch_unmap) {
		.end = SOFT_GPU_END,
		.zap = soft_gpu_zap_all,
		.release = soft_gpu_release_all,
	};
	if (!nullhz_mmu_batch_defer(context->space, &context->all))
		nullhz_mmu_batch_drain(context->space, NULLHZ_MMU_BATCH_REUSE);
	mt_for_each(&context->ranges, range, address, ULONG_MAX)
		soft_gpu_unregister(range);
	nullhz_mmu_batch_space_destroy(context->space);
	mtree_destroy(&context->ranges);
	xa_destroy(&context->table);
	mmdrop(context->mm);
}
