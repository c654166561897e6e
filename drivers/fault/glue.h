/* SPDX-License-Identifier: GPL-2.0 */
/* C functions that ffi.rs declares again. */
#ifndef _NULLHZ_FAULT_GLUE_H
#define _NULLHZ_FAULT_GLUE_H

#include <linux/types.h>
#include <uapi/nullhz/fault.h>

struct kiocb;

struct nullhz_fault_now {
	u64 mono;
	u64 real;
};

struct nullhz_fault_now nullhz_fault_now(void);
int nullhz_fault_cpu_to_node(int cpu);
void nullhz_fault_make_boot_id(u8 *id);
bool nullhz_fault_nowait(const struct kiocb *iocb);

void nullhz_fault_trace_event(const struct nullhz_fault_event *event);
void nullhz_fault_trace_incident(const struct nullhz_fault_incident *incident);

#endif /* _NULLHZ_FAULT_GLUE_H */
