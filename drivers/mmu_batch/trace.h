/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM nullhz_mmu_batch

#if !defined(_NULLHZ_MMU_BATCH_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _NULLHZ_MMU_BATCH_TRACE_H

#include <linux/mmu_notifier.h>
#include <linux/tracepoint.h>
#include "glue.h"

#define nullhz_mmu_batch_show_kind(kind)				\
	__print_symbolic(kind,						\
			 { MMU_NOTIFY_UNMAP, "unmap" },			\
			 { MMU_NOTIFY_CLEAR, "clear" },			\
			 { MMU_NOTIFY_PROTECTION_VMA, "protection_vma" },	\
			 { MMU_NOTIFY_PROTECTION_PAGE, "protection_page" },	\
			 { MMU_NOTIFY_SOFT_DIRTY, "soft_dirty" },	\
			 { MMU_NOTIFY_RELEASE, "release" },		\
			 { MMU_NOTIFY_MIGRATE, "migrate" },		\
			 { MMU_NOTIFY_EXCLUSIVE, "exclusive" })

#define nullhz_mmu_batch_show_outcome(outcome)				\
	__print_symbolic(outcome,					\
			 { NULLHZ_MMU_BATCH_TICKET, "ticket" },		\
			 { NULLHZ_MMU_BATCH_ELIDED, "elided" },		\
			 { NULLHZ_MMU_BATCH_JOINED, "joined" },		\
			 { NULLHZ_MMU_BATCH_WOULD_BLOCK, "would_block" })

#define nullhz_mmu_batch_show_cause(cause)				\
	__print_symbolic(cause,						\
			 { NULLHZ_MMU_BATCH_DRAIN_SUBMIT, "submit" },	\
			 { NULLHZ_MMU_BATCH_DRAIN_REUSE, "reuse" },	\
			 { NULLHZ_MMU_BATCH_DRAIN_SIZE, "size" },	\
			 { NULLHZ_MMU_BATCH_DRAIN_TIME, "time" },	\
			 { NULLHZ_MMU_BATCH_DRAIN_SHRINKER, "shrinker" },	\
			 { NULLHZ_MMU_BATCH_DRAIN_RELEASE, "release" })

/* An event has hit a notifier, with so many intervals, and this is what came of it. */
TRACE_EVENT(nullhz_mmu_batch_event,
	TP_PROTO(const char *device, u64 start, u64 end, u64 tag, u64 intervals,
		 u32 kind, u32 outcome, u64 ticket),
	TP_ARGS(device, start, end, tag, intervals, kind, outcome, ticket),
	TP_STRUCT__entry(
		__string(device, device)
		__field(u64, start)
		__field(u64, end)
		__field(u64, tag)
		__field(u64, intervals)
		__field(u64, ticket)
		__field(u32, kind)
		__field(u32, outcome)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->start = start;
		__entry->end = end;
		__entry->tag = tag;
		__entry->intervals = intervals;
		__entry->ticket = ticket;
		__entry->kind = kind;
		__entry->outcome = outcome;
	),
	TP_printk("device=%s tag=%llu start=%#llx end=%#llx intervals=%llu kind=%s outcome=%s ticket=%llu",
		  __get_str(device), __entry->tag, __entry->start,
		  __entry->end, __entry->intervals,
		  nullhz_mmu_batch_show_kind(__entry->kind),
		  nullhz_mmu_batch_show_outcome(__entry->outcome),
		  __entry->ticket)
);

/* One of the spans of the flush that begins next. */
TRACE_EVENT(nullhz_mmu_batch_span,
	TP_PROTO(const char *device, u64 start, u64 end, u64 tag),
	TP_ARGS(device, start, end, tag),
	TP_STRUCT__entry(
		__string(device, device)
		__field(u64, start)
		__field(u64, end)
		__field(u64, tag)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->start = start;
		__entry->end = end;
		__entry->tag = tag;
	),
	TP_printk("device=%s tag=%llu start=%#llx end=%#llx", __get_str(device),
		  __entry->tag, __entry->start, __entry->end)
);

/* A flush begins. No spans: of everything. */
TRACE_EVENT(nullhz_mmu_batch_flush_begin,
	TP_PROTO(const char *device, u32 spans),
	TP_ARGS(device, spans),
	TP_STRUCT__entry(
		__string(device, device)
		__field(u32, spans)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->spans = spans;
	),
	TP_printk("device=%s spans=%u", __get_str(device), __entry->spans)
);

/* The device has answered, or was reset; the tickets are finished. */
TRACE_EVENT(nullhz_mmu_batch_flush_end,
	TP_PROTO(const char *device, u64 generation, u64 tickets, u32 spans,
		 bool windowed, u32 resets),
	TP_ARGS(device, generation, tickets, spans, windowed, resets),
	TP_STRUCT__entry(
		__string(device, device)
		__field(u64, generation)
		__field(u64, tickets)
		__field(u32, spans)
		__field(u32, resets)
		__field(bool, windowed)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->generation = generation;
		__entry->tickets = tickets;
		__entry->spans = spans;
		__entry->resets = resets;
		__entry->windowed = windowed;
	),
	TP_printk("device=%s generation=%llu tickets=%llu spans=%u windowed=%d resets=%u",
		  __get_str(device), __entry->generation, __entry->tickets,
		  __entry->spans, __entry->windowed, __entry->resets)
);

/* Somebody waited for a ticket, and led a flush or was served by another one. */
TRACE_EVENT(nullhz_mmu_batch_wait,
	TP_PROTO(const char *device, u64 ticket, bool led),
	TP_ARGS(device, ticket, led),
	TP_STRUCT__entry(
		__string(device, device)
		__field(u64, ticket)
		__field(bool, led)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->ticket = ticket;
		__entry->led = led;
	),
	TP_printk("device=%s ticket=%llu led=%d", __get_str(device),
		  __entry->ticket, __entry->led)
);

/* The driver has unmapped something, and waits for it to be released. */
TRACE_EVENT(nullhz_mmu_batch_defer,
	TP_PROTO(const char *device, u64 start, u64 end, u64 tag, u64 pages, u64 ticket),
	TP_ARGS(device, start, end, tag, pages, ticket),
	TP_STRUCT__entry(
		__string(device, device)
		__field(u64, start)
		__field(u64, end)
		__field(u64, tag)
		__field(u64, pages)
		__field(u64, ticket)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->start = start;
		__entry->end = end;
		__entry->tag = tag;
		__entry->pages = pages;
		__entry->ticket = ticket;
	),
	TP_printk("device=%s tag=%llu start=%#llx end=%#llx pages=%llu ticket=%llu",
		  __get_str(device), __entry->tag, __entry->start,
		  __entry->end, __entry->pages, __entry->ticket)
);

/* Deferred unmaps are being finished. */
TRACE_EVENT(nullhz_mmu_batch_drain,
	TP_PROTO(const char *device, u32 cause, u64 unmaps, u64 pages),
	TP_ARGS(device, cause, unmaps, pages),
	TP_STRUCT__entry(
		__string(device, device)
		__field(u64, unmaps)
		__field(u64, pages)
		__field(u32, cause)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->unmaps = unmaps;
		__entry->pages = pages;
		__entry->cause = cause;
	),
	TP_printk("device=%s cause=%s unmaps=%llu pages=%llu",
		  __get_str(device), nullhz_mmu_batch_show_cause(__entry->cause),
		  __entry->unmaps, __entry->pages)
);

/* The device has not acknowledged a flush, and was to be reset. */
TRACE_EVENT(nullhz_mmu_batch_reset,
	TP_PROTO(const char *device, int error),
	TP_ARGS(device, error),
	TP_STRUCT__entry(
		__string(device, device)
		__field(int, error)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->error = error;
	),
	TP_printk("device=%s error=%d", __get_str(device), __entry->error)
);

#endif /* _NULLHZ_MMU_BATCH_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
