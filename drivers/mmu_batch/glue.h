/* SPDX-License-Identifier: GPL-2.0 */
/* What the Rust part calls of the C part; see ffi.rs and trace.rs. */
#ifndef _NULLHZ_MMU_BATCH_GLUE_H
#define _NULLHZ_MMU_BATCH_GLUE_H

#include <linux/types.h>
#include <nullhz/mmu_batch.h>

/* What came of an event for an interval; enum Outcome in trace.rs. */
enum nullhz_mmu_batch_outcome {
	NULLHZ_MMU_BATCH_TICKET = 0,
	NULLHZ_MMU_BATCH_ELIDED = 1,
	NULLHZ_MMU_BATCH_JOINED = 2,
	NULLHZ_MMU_BATCH_WOULD_BLOCK = 3,
};

/* Why deferred unmaps are finished; enum Cause in gather.rs. */
enum nullhz_mmu_batch_drain_cause {
	NULLHZ_MMU_BATCH_DRAIN_SUBMIT = NULLHZ_MMU_BATCH_SUBMIT,
	NULLHZ_MMU_BATCH_DRAIN_REUSE = NULLHZ_MMU_BATCH_REUSE,
	NULLHZ_MMU_BATCH_DRAIN_SIZE = 2,
	NULLHZ_MMU_BATCH_DRAIN_TIME = 3,
	NULLHZ_MMU_BATCH_DRAIN_SHRINKER = 4,
	NULLHZ_MMU_BATCH_DRAIN_RELEASE = 5,
};

bool nullhz_mmu_batch_module_get(struct module *module);
void nullhz_mmu_batch_module_put(struct module *module);

void nullhz_mmu_batch_trace_event(const char *device,
				  const struct nullhz_mmu_batch_span *span,
				  u64 intervals, u32 kind, u32 outcome, u64 ticket);
void nullhz_mmu_batch_trace_flush_begin(const char *device,
					const struct nullhz_mmu_batch_span *spans,
					u32 count);
void nullhz_mmu_batch_trace_flush_end(const char *device, u64 generation, u64 tickets,
				      u32 spans, bool windowed, u32 resets);
void nullhz_mmu_batch_trace_wait(const char *device, u64 ticket, bool led);
void nullhz_mmu_batch_trace_defer(const char *device,
				  const struct nullhz_mmu_batch_span *span, u64 pages,
				  u64 ticket);
void nullhz_mmu_batch_trace_drain(const char *device, u32 cause, u64 unmaps, u64 pages);
void nullhz_mmu_batch_trace_reset(const char *device, int error);

#endif /* _NULLHZ_MMU_BATCH_GLUE_H */
