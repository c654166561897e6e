/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM nullhz_mce

#if !defined(_NULLHZ_MCE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _NULLHZ_MCE_TRACE_H

#include <linux/tracepoint.h>
#include <uapi/nullhz/fault.h>

#define nullhz_mce_show_kind(kind)						\
	__print_symbolic(kind,							\
			 { NULLHZ_MCE_INVALID, "invalid" },			\
			 { NULLHZ_MCE_CORRECTED, "corrected" },			\
			 { NULLHZ_MCE_DEFERRED, "deferred" },			\
			 { NULLHZ_MCE_ACTION_OPTIONAL, "action_optional" },	\
			 { NULLHZ_MCE_ACTION_REQUIRED, "action_required" },	\
			 { NULLHZ_MCE_FATAL, "fatal" },				\
			 { NULLHZ_MCE_HIDDEN_UC, "hidden_uncorrected" })

#define nullhz_mce_show_level(level)					\
	__print_symbolic(level,						\
			 { NULLHZ_FAULT_WATCH, "watch" },		\
			 { NULLHZ_FAULT_DEGRADING, "degrading" },	\
			 { NULLHZ_FAULT_IMMINENT, "imminent" },		\
			 { NULLHZ_FAULT_FATAL, "fatal" })

/* A record was graded and judged; severity is what our rules say. */
TRACE_EVENT(nullhz_mce_record,
	TP_PROTO(const struct nullhz_fault_mce *mce, u64 mono_ns, s32 cpu,
		 u16 kind, u8 level, u8 flags, u8 severity),
	TP_ARGS(mce, mono_ns, cpu, kind, level, flags, severity),
	TP_STRUCT__entry(
		__field(u64, status)
		__field(u64, addr)
		__field(u64, misc)
		__field(u64, mcgstatus)
		__field(u64, mono_ns)
		__field(u32, reason)
		__field(s32, fault_cpu)
		__field(u32, socket)
		__field(u16, kind)
		__field(u8, bank)
		__field(u8, level)
		__field(u8, flags)
		__field(u8, severity)
		__field(u8, kernel_severity)
	),
	TP_fast_assign(
		__entry->status = mce->status;
		__entry->addr = mce->addr;
		__entry->misc = mce->misc;
		__entry->mcgstatus = mce->mcgstatus;
		__entry->mono_ns = mono_ns;
		__entry->reason = mce->reason;
		__entry->fault_cpu = cpu;
		__entry->socket = mce->socketid;
		__entry->kind = kind;
		__entry->bank = mce->bank;
		__entry->level = level;
		__entry->flags = flags;
		__entry->severity = severity;
		__entry->kernel_severity = mce->kernel_severity;
	),
	TP_printk("cpu=%d socket=%u bank=%u status=%016llx addr=%llx misc=%llx mcgstatus=%llx kind=%s level=%s reason=%#x flags=%#x severity=%u kernel_severity=%u mono_ns=%llu",
		  __entry->fault_cpu, __entry->socket, __entry->bank,
		  __entry->status, __entry->addr, __entry->misc,
		  __entry->mcgstatus, nullhz_mce_show_kind(__entry->kind),
		  nullhz_mce_show_level(__entry->level), __entry->reason,
		  __entry->flags, __entry->severity, __entry->kernel_severity,
		  __entry->mono_ns)
);

#endif /* _NULLHZ_MCE_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
