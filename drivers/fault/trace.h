/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM nullhz_fault

#if !defined(_NULLHZ_FAULT_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _NULLHZ_FAULT_TRACE_H

#include <linux/tracepoint.h>
#include <uapi/nullhz/fault.h>

#define nullhz_show_level(level)					\
	__print_symbolic(level,						\
			 { NULLHZ_FAULT_WATCH, "watch" },		\
			 { NULLHZ_FAULT_DEGRADING, "degrading" },	\
			 { NULLHZ_FAULT_IMMINENT, "imminent" },		\
			 { NULLHZ_FAULT_FATAL, "fatal" })

#define nullhz_show_state(state)					\
	__print_symbolic(state,						\
			 { NULLHZ_INCIDENT_OPEN, "open" },		\
			 { NULLHZ_INCIDENT_ACKED, "acked" },		\
			 { NULLHZ_INCIDENT_EXPIRED, "expired" })

/* A source has reported; seq is 0 when the event went into a storm's sum. */
TRACE_EVENT(nullhz_fault_event,
	TP_PROTO(const struct nullhz_fault_event *event),
	TP_ARGS(event),
	TP_STRUCT__entry(
		__field(u64, seq)
		__field(u64, mono_ns)
		__field(u64, incident)
		__field(u32, count)
		__field(s32, fault_cpu)
		__field(s32, node)
		__field(u16, source)
		__field(u16, kind)
		__field(u8, level)
		__field(u8, flags)
	),
	TP_fast_assign(
		__entry->seq = event->seq;
		__entry->mono_ns = event->mono_ns;
		__entry->incident = event->incident;
		__entry->count = event->count;
		__entry->fault_cpu = event->cpu;
		__entry->node = event->node;
		__entry->source = event->source;
		__entry->kind = event->kind;
		__entry->level = event->level;
		__entry->flags = event->flags;
	),
	TP_printk("seq=%llu source=%u kind=%u level=%s flags=0x%02x count=%u cpu=%d node=%d incident=%llu mono_ns=%llu",
		  __entry->seq, __entry->source, __entry->kind,
		  nullhz_show_level(__entry->level), __entry->flags,
		  __entry->count, __entry->fault_cpu, __entry->node,
		  __entry->incident, __entry->mono_ns)
);

/* An incident was opened, has expired or was acknowledged. */
TRACE_EVENT(nullhz_fault_incident,
	TP_PROTO(const struct nullhz_fault_incident *incident),
	TP_ARGS(incident),
	TP_STRUCT__entry(
		__field(u64, incident)
		__field(u64, opened_ns)
		__field(u64, acked_ns)
		__field(u64, snapshot_id)
		__field(u64, joined)
		__field(s32, result)
		__field(u32, state)
		__field(u32, source)
		__field(u32, late)
	),
	TP_fast_assign(
		__entry->incident = incident->incident;
		__entry->opened_ns = incident->opened_ns;
		__entry->acked_ns = incident->acked_ns;
		__entry->snapshot_id = incident->snapshot_id;
		__entry->joined = incident->joined;
		__entry->result = incident->result;
		__entry->state = incident->state;
		__entry->source = incident->source;
		__entry->late = incident->late;
	),
	TP_printk("incident=%llu source=%u state=%s joined=%llu opened_ns=%llu acked_ns=%llu snapshot_id=%llu result=%d late=%u",
		  __entry->incident, __entry->source,
		  nullhz_show_state(__entry->state), __entry->joined,
		  __entry->opened_ns, __entry->acked_ns,
		  __entry->snapshot_id, __entry->result, __entry->late)
);

#endif /* _NULLHZ_FAULT_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
