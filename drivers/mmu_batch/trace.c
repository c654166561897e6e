// SPDX-License-Identifier: GPL-2.0
/* The tracepoints, and functions to fire them from Rust. */

#include "glue.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

void nullhz_mmu_batch_trace_event(const char *device,
				  const struct nullhz_mmu_batch_span *span,
				  u64 intervals, u32 kind, u32 outcome, u64 ticket)
{
	trace_nullhz_mmu_batch_event(device, span->start, span->end, span->tag,
				     intervals, kind, outcome, ticket);
}

void nullhz_mmu_batch_trace_flush_begin(const char *device,
					const struct nullhz_mmu_batch_span *spans,
					u32 count)
{
	u32 i;

	if (trace_nullhz_mmu_batch_span_enabled())
		for (i = 0; i < count; i++)
			trace_nullhz_mmu_batch_span(device, spans[i].start,
						    spans[i].end, spans[i].tag);
	trace_nullhz_mmu_batch_flush_begin(device, count);
}

void nullhz_mmu_batch_trace_flush_end(const char *device, u64 generation, u64 tickets,
				      u32 spans, bool windowed, u32 resets)
{
	trace_nullhz_mmu_batch_flush_end(device, generation, tickets, spans,
					 windowed, resets);
}

void nullhz_mmu_batch_trace_wait(const char *device, u64 ticket, bool led)
{
	trace_nullhz_mmu_batch_wait(device, ticket, led);
}

void nullhz_mmu_batch_trace_defer(const char *device,
				  const struct nullhz_mmu_batch_span *span, u64 pages,
				  u64 ticket)
{
	trace_nullhz_mmu_batch_defer(device, span->start, span->end, span->tag,
				     pages, ticket);
}

void nullhz_mmu_batch_trace_drain(const char *device, u32 cause, u64 unmaps, u64 pages)
{
	trace_nullhz_mmu_batch_drain(device, cause, unmaps, pages);
}

void nullhz_mmu_batch_trace_reset(const char *device, int error)
{
	trace_nullhz_mmu_batch_reset(device, error);
}
