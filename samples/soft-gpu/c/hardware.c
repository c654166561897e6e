// SPDX-License-Identifier: GPL-2.0
/*
 * The device: a TLB per CPU, which only that CPU uses, with interrupts off. So
 * a broadcast that has come back was handled on each CPU between two accesses,
 * and no access is in flight any more that began before it.
 */

#include <linux/percpu.h>
#include <linux/smp.h>
#include <linux/uaccess.h>

#include "soft_gpu_c.h"

struct soft_gpu_entry {
	u64 tag;	/* context, address of the page, 1; 0: invalid */
	unsigned long pfn;
};

struct soft_gpu_tlb {
	u64 flushes;	/* that it has seen */
	u64 handled;
	struct soft_gpu_entry entries[SOFT_GPU_TLB_ENTRIES];
};

struct soft_gpu_broadcast {
	const struct nullhz_mmu_batch_span *spans;
	u32 count;
	u64 number;
};

static struct soft_gpu_tlb __percpu *soft_gpu_tlbs;
/* One flush at a time. */
static DEFINE_MUTEX(soft_gpu_port);
static atomic64_t soft_gpu_flushes = ATOMIC64_INIT(0);
static u64 soft_gpu_full;
static u64 soft_gpu_spans;

static void soft_gpu_tlb_clear(struct soft_gpu_tlb *tlb)
{
	memset(tlb->entries, 0, sizeof(tlb->entries));
}

/* On each CPU, in hard interrupt context. */
static void soft_gpu_handle(void *info)
{
	const struct soft_gpu_broadcast *broadcast = info;
	struct soft_gpu_tlb *tlb = this_cpu_ptr(soft_gpu_tlbs);
	u32 i, n;

	tlb->handled++;
	if (!broadcast->count || tlb->flushes != broadcast->number - 1)
		soft_gpu_tlb_clear(tlb);
	tlb->flushes = broadcast->number;
	for (n = 0; n < broadcast->count; n++) {
		const struct nullhz_mmu_batch_span *span = &broadcast->spans[n];

		for (i = 0; i < SOFT_GPU_TLB_ENTRIES; i++) {
			struct soft_gpu_entry *entry = &tlb->entries[i];
			u64 page = entry->tag & (BIT_ULL(48) - 1) & PAGE_MASK;

			if (entry->tag >> 48 == span->tag && span->start < page + PAGE_SIZE &&
			    page < span->end)
				entry->tag = 0;
		}
	}
}

int soft_gpu_hardware_flush(const struct nullhz_mmu_batch_span *spans, u32 count)
{
	struct soft_gpu_broadcast broadcast = { .spans = spans, .count = count };

	mutex_lock(&soft_gpu_port);
	/* Before the broadcast: what a CPU that is offline misses, it sees by the number. */
	broadcast.number = atomic64_inc_return(&soft_gpu_flushes);
	if (count)
		soft_gpu_spans += count;
	else
		soft_gpu_full++;
	on_each_cpu(soft_gpu_handle, &broadcast, 1);
	mutex_unlock(&soft_gpu_port);
	return 0;
}

/* With interrupts off. @info: struct soft_gpu_attempt, by the TLB of this CPU. */
void soft_gpu_hardware_attempt(void *info)
{
	struct soft_gpu_attempt *attempt = info;
	u64 tag = (u64)attempt->context->tag << 48 | attempt->address | 1;
	struct soft_gpu_tlb *tlb = this_cpu_ptr(soft_gpu_tlbs);
	u64 page = attempt->address >> PAGE_SHIFT;
	u64 flushes = atomic64_read(&soft_gpu_flushes);
	struct soft_gpu_entry *entry;
	void *walked;

	if (tlb->flushes != flushes) {
		/* It was offline, or a broadcast is on its way here. */
		soft_gpu_tlb_clear(tlb);
		tlb->flushes = flushes;
	}
	entry = &tlb->entries[(page ^ page >> 9 ^ page >> 18) % SOFT_GPU_TLB_ENTRIES];
	attempt->hit = entry->tag == tag;
	if (!attempt->hit) {
		walked = xa_load(&attempt->context->table, page);
		attempt->mapped = walked;
		if (!walked)
			return;
		entry->tag = tag;
		entry->pfn = xa_to_value(walked);
	}
	/* From the lowest address up, in words: the magic before the rest. */
	attempt->mapped = !copy_from_kernel_nofault(&attempt->stamp, pfn_to_kaddr(entry->pfn),
						    sizeof(attempt->stamp));
}

void soft_gpu_hardware_count(struct nullhz_soft_gpu_counters *counters)
{
	int cpu;

	mutex_lock(&soft_gpu_port);
	counters->device_flushes = atomic64_read(&soft_gpu_flushes);
	counters->device_full = soft_gpu_full;
	counters->device_spans = soft_gpu_spans;
	for_each_possible_cpu(cpu)
		counters->device_handled += per_cpu_ptr(soft_gpu_tlbs, cpu)->handled;
	mutex_unlock(&soft_gpu_port);
}

int soft_gpu_hardware_init(void)
{
	soft_gpu_tlbs = alloc_percpu(struct soft_gpu_tlb);
	return soft_gpu_tlbs ? 0 : -ENOMEM;
}

void soft_gpu_hardware_exit(void)
{
	free_percpu(soft_gpu_tlbs);
}
