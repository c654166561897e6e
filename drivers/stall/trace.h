/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM nullhz_stall

#if !defined(_NULLHZ_STALL_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _NULLHZ_STALL_TRACE_H

#include <linux/tracepoint.h>
#include <uapi/nullhz/fault.h>
#include <uapi/nullhz/stall.h>

#define nullhz_stall_show_kind(kind)					\
	__print_symbolic(kind,						\
			 { NULLHZ_STALL_EV_SUSPECT, "suspect" },	\
			 { NULLHZ_STALL_EV_STALLED, "stalled" },	\
			 { NULLHZ_STALL_EV_NO_ACK, "no_ack" },		\
			 { NULLHZ_STALL_EV_PREBITE, "prebite" },	\
			 { NULLHZ_STALL_EV_RECOVERED, "recovered" },	\
			 { NULLHZ_STALL_EV_REGISTERED, "registered" },	\
			 { NULLHZ_STALL_EV_LEFT, "left" },		\
			 { NULLHZ_STALL_EV_CRASHED, "crashed" },	\
			 { NULLHZ_STALL_EV_HELD, "held" },		\
			 { NULLHZ_STALL_EV_RESET, "reset" },		\
			 { NULLHZ_STALL_EV_BAD_PAGE, "bad_page" },	\
			 { NULLHZ_STALL_EV_LATE_SAMPLER, "late_sampler" })

#define nullhz_stall_show_level(level)					\
	__print_symbolic(level,						\
			 { NULLHZ_FAULT_WATCH, "watch" },		\
			 { NULLHZ_FAULT_DEGRADING, "degrading" },	\
			 { NULLHZ_FAULT_IMMINENT, "imminent" },		\
			 { NULLHZ_FAULT_FATAL, "fatal" })

#define nullhz_stall_show_culprit(culprit)				\
	__print_symbolic(culprit,					\
			 { NULLHZ_STALL_C_UNKNOWN, "unknown" },		\
			 { NULLHZ_STALL_C_SPINNING, "spinning" },	\
			 { NULLHZ_STALL_C_SLEEPING, "sleeping" },	\
			 { NULLHZ_STALL_C_DISK, "disk" },		\
			 { NULLHZ_STALL_C_STOPPED, "stopped" },		\
			 { NULLHZ_STALL_C_FROZEN, "frozen" },		\
			 { NULLHZ_STALL_C_EXITED, "exited" })

/* An event was reported to the fault bus. */
TRACE_EVENT(nullhz_stall_event,
	TP_PROTO(const struct nullhz_fault_stall *stall, u16 kind, u8 level, s32 cpu),
	TP_ARGS(stall, kind, level, cpu),
	TP_STRUCT__entry(
		__field(u64, step)
		__field(u64, age_ns)
		__field(u64, deadline_ns)
		__field(u64, incident)
		__field(u32, rank)
		__field(u32, phase)
		__field(u32, state)
		__field(u32, culprit)
		__field(u32, evidence)
		__field(u32, held)
		__field(s32, pid)
		__field(s32, tid)
		__field(s32, fault_cpu)
		__field(u16, kind)
		__field(u8, level)
	),
	TP_fast_assign(
		__entry->step = stall->step;
		__entry->age_ns = stall->age_ns;
		__entry->deadline_ns = stall->deadline_ns;
		__entry->incident = stall->incident;
		__entry->rank = stall->rank;
		__entry->phase = stall->phase;
		__entry->state = stall->state;
		__entry->culprit = stall->culprit;
		__entry->evidence = stall->evidence;
		__entry->held = stall->held;
		__entry->pid = stall->pid;
		__entry->tid = stall->tid;
		__entry->fault_cpu = cpu;
		__entry->kind = kind;
		__entry->level = level;
	),
	TP_printk("kind=%s level=%s rank=%u pid=%d tid=%d cpu=%d step=%llu phase=%u state=%u age_ns=%llu deadline_ns=%llu culprit=%s evidence=%#x held=%u incident=%llu",
		  nullhz_stall_show_kind(__entry->kind),
		  nullhz_stall_show_level(__entry->level), __entry->rank,
		  __entry->pid, __entry->tid, __entry->fault_cpu, __entry->step,
		  __entry->phase, __entry->state, __entry->age_ns,
		  __entry->deadline_ns,
		  nullhz_stall_show_culprit(__entry->culprit),
		  __entry->evidence, __entry->held, __entry->incident)
);

/* The sampler has looked at all ranks. */
TRACE_EVENT(nullhz_stall_pass,
	TP_PROTO(u64 pass_ns, u32 ranks, u32 stalled, bool permitted),
	TP_ARGS(pass_ns, ranks, stalled, permitted),
	TP_STRUCT__entry(
		__field(u64, pass_ns)
		__field(u32, ranks)
		__field(u32, stalled)
		__field(bool, permitted)
	),
	TP_fast_assign(
		__entry->pass_ns = pass_ns;
		__entry->ranks = ranks;
		__entry->stalled = stalled;
		__entry->permitted = permitted;
	),
	TP_printk("pass_ns=%llu ranks=%u stalled=%u permitted=%d",
		  __entry->pass_ns, __entry->ranks, __entry->stalled,
		  __entry->permitted)
);

#endif /* _NULLHZ_STALL_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
