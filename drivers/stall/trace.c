// SPDX-License-Identifier: GPL-2.0
/* The tracepoints, and functions to fire them from Rust. */

#include "glue.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

void nullhz_stall_trace_event(const struct nullhz_fault_stall *stall, u16 kind,
			      u8 level, s32 cpu)
{
	trace_nullhz_stall_event(stall, kind, level, cpu);
}

void nullhz_stall_trace_pass(u64 pass_ns, u32 ranks, u32 stalled, bool permitted)
{
	trace_nullhz_stall_pass(pass_ns, ranks, stalled, permitted);
}
