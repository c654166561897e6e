// SPDX-License-Identifier: GPL-2.0
/* The tracepoint, and a function to fire it from Rust. */

#include "glue.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

void nullhz_mce_trace_record(const struct nullhz_fault_mce *mce, u64 mono_ns,
			     s32 cpu, u16 kind, u8 level, u8 flags, u8 severity)
{
	trace_nullhz_mce_record(mce, mono_ns, cpu, kind, level, flags, severity);
}
