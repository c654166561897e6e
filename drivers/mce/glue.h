/* SPDX-License-Identifier: GPL-2.0 */
/* What the C and the Rust part of the module call of each other; see ffi.rs. */
#ifndef _NULLHZ_MCE_GLUE_H
#define _NULLHZ_MCE_GLUE_H

#include <linux/types.h>
#include <uapi/nullhz/fault.h>

/* Of both clocks at once, for any context. */
struct nullhz_mce_time {
	u64 mono_ns;
	u64 real_ns;
};

struct nullhz_mce_time nullhz_mce_now(void);
u8 nullhz_mce_machine_vendor(void);
bool nullhz_mce_machine_ser(void);
void nullhz_mce_trace_record(const struct nullhz_fault_mce *mce, u64 mono_ns,
			     s32 cpu, u16 kind, u8 level, u8 flags,
			     u8 severity);

#endif /* _NULLHZ_MCE_GLUE_H */
