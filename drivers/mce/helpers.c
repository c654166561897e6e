// SPDX-License-Identifier: GPL-2.0
/* What Rust has no abstraction for. */

#include <linux/timekeeping.h>
#include <asm/cpufeature.h>
#include <asm/mce.h>
#include <asm/msr.h>
#include <asm/processor.h>

#include "glue.h"

/*
 * The fast accessors are the only ones that an NMI may call. They can be off
 * by the last adjustment of the clock when they interrupt that.
 */
struct nullhz_mce_time nullhz_mce_now(void)
{
	return (struct nullhz_mce_time) {
		.mono_ns = ktime_get_mono_fast_ns(),
		.real_ns = ktime_get_real_fast_ns(),
	};
}

u8 nullhz_mce_machine_vendor(void)
{
	return boot_cpu_data.x86_vendor;
}

/* What mca_cfg.ser is, which is not exported. */
bool nullhz_mce_machine_ser(void)
{
	u64 cap;

	return boot_cpu_has(X86_FEATURE_MCA) &&
	       !rdmsrq_safe(MSR_IA32_MCG_CAP, &cap) && (cap & MCG_SER_P);
}
