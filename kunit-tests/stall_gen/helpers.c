// SPDX-License-Identifier: GPL-2.0
/* What has no Rust counterpart. */

#include <linux/preempt.h>

#include "helpers.h"

void nullhz_stall_gen_preempt_disable(void)
{
	preempt_disable();
}

void nullhz_stall_gen_preempt_enable(void)
{
	preempt_enable();
}
