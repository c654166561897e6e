// SPDX-License-Identifier: GPL-2.0
/* The tracepoints, and functions to fire them from Rust. */

#include "glue.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

void nullhz_fault_trace_event(const struct nullhz_fault_event *event)
{
	trace_nullhz_fault_event(event);
}

void nullhz_fault_trace_incident(const struct nullhz_fault_incident *incident)
{
	trace_nullhz_fault_incident(incident);
}
