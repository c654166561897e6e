// SPDX-License-Identifier: GPL-2.0
/* What has no Rust counterpart. */

#include <linux/timekeeping.h>

#include "helpers.h"

u64 nullhz_mce_gen_mono_ns(void)
{
	return ktime_get_ns();
}

u64 nullhz_mce_gen_real_s(void)
{
	return ktime_get_real_seconds();
}
