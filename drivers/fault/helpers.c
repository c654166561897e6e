// SPDX-License-Identifier: GPL-2.0
/* What the kernel offers to C only: macros, inline functions, and what has no Rust binding. */

#include <linux/cpumask.h>
#include <linux/fs.h>
#include <linux/timekeeping.h>
#include <linux/topology.h>
#include <linux/uuid.h>

#include "glue.h"

/* Any context: the fast clocks take no lock. */
struct nullhz_fault_now nullhz_fault_now(void)
{
	return (struct nullhz_fault_now) {
		.mono = ktime_get_mono_fast_ns(),
		.real = ktime_get_real_fast_ns(),
	};
}

/* Any context. NUMA_NO_NODE (-1) for a number that is no CPU's. */
int nullhz_fault_cpu_to_node(int cpu)
{
	if (cpu < 0 || cpu >= nr_cpu_ids || !cpu_possible(cpu))
		return NUMA_NO_NODE;
	return cpu_to_node(cpu);
}

void nullhz_fault_make_boot_id(u8 *id)
{
	generate_random_uuid(id);
}

bool nullhz_fault_nowait(const struct kiocb *iocb)
{
	return iocb->ki_flags & IOCB_NOWAIT || iocb->ki_filp->f_flags & O_NONBLOCK;
}
