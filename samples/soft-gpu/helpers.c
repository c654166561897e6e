// SPDX-License-Identifier: GPL-2.0
/* How the software GPU reaches memory: through the kernel's direct map. */

#include <linux/compiler.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/stddef.h>
#include <linux/uaccess.h>

#include "glue.h"
#include "uapi/soft_gpu.h"

static_assert(sizeof(struct nullhz_soft_gpu_stamp) == 4 * sizeof(u64));
static_assert(sizeof(struct nullhz_soft_gpu_mark) == 4 * sizeof(u64));
static_assert(offsetof(struct nullhz_soft_gpu_stamp, magic) == 0);
static_assert(offsetof(struct nullhz_soft_gpu_mark, writes) == 3 * sizeof(u64));

bool nullhz_soft_gpu_read(unsigned long pfn, u64 stamp[4])
{
	/* From the lowest address up, in words: the magic before the rest. */
	return pfn_valid(pfn) &&
	       !copy_from_kernel_nofault(stamp, pfn_to_kaddr(pfn), 4 * sizeof(u64));
}

void nullhz_soft_gpu_write(unsigned long pfn, const u64 mark[4])
{
	u64 *words = pfn_to_kaddr(pfn) + NULLHZ_SOFT_GPU_MARK;

	WRITE_ONCE(words[0], mark[0]);
	WRITE_ONCE(words[1], mark[1]);
	WRITE_ONCE(words[2], mark[2]);
	/* User space that has read this has the rest. */
	smp_store_release(&words[3], mark[3]);
}

void nullhz_soft_gpu_mark_dirty(unsigned long pfn)
{
	folio_mark_dirty(page_folio(pfn_to_page(pfn)));
}

u64 nullhz_soft_gpu_monotonic_ns(void)
{
	return ktime_get_ns();
}
