// SPDX-License-Identifier: GPL-2.0
/* What has no Rust counterpart. */

/* Makes pr_debug() a printk() of the lowest level. */
#define DEBUG

#include <linux/bottom_half.h>
#include <linux/printk.h>
#include <linux/types.h>

#include "helpers.h"

void nullhz_gen_bh_disable(void)
{
	local_bh_disable();
}

void nullhz_gen_bh_enable(void)
{
	local_bh_enable();
}

/* Below the console's log level: what is measured is the log, not a serial line. */
void nullhz_gen_printk(u32 source, u32 kind, u64 number)
{
	pr_debug("nullhz_fault_gen: fault source=%u kind=%u number=%llu\n",
		 source, kind, number);
}
