/* SPDX-License-Identifier: GPL-2.0 */
/* What the C and the Rust part of the module call of each other; see ffi.rs. */
#ifndef _NULLHZ_STALL_GLUE_H
#define _NULLHZ_STALL_GLUE_H

#include <linux/types.h>
#include <uapi/nullhz/stall.h>

struct task_struct;

u64 nullhz_stall_monotonic_ns(void);
u64 nullhz_stall_real_ns(void);
bool nullhz_stall_online(unsigned int cpu);
int nullhz_stall_bind(unsigned int cpu);
int nullhz_stall_unbind(void);
u64 nullhz_stall_switches(const struct task_struct *task);
void nullhz_stall_trace_event(const struct nullhz_fault_stall *stall, u16 kind,
			      u8 level, s32 cpu);
void nullhz_stall_trace_pass(u64 pass_ns, u32 ranks, u32 stalled, bool permitted);

#endif /* _NULLHZ_STALL_GLUE_H */
