// SPDX-License-Identifier: GPL-2.0
/* What Rust has no abstraction for, and the layouts that abi.rs repeats. */

#include <linux/build_bug.h>
#include <linux/cpumask.h>
#include <linux/gfp.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/isolation.h>
#include <linux/stddef.h>
#include <linux/timekeeping.h>
#include <uapi/nullhz/fault.h>

#include "glue.h"

static_assert(sizeof(struct nullhz_stall_page) == 128);
static_assert(offsetof(struct nullhz_stall_page, checkpoint_request) == 64);
static_assert(sizeof(struct nullhz_stall_info) == 32);
static_assert(sizeof(struct nullhz_stall_register) == 72);
static_assert(sizeof(struct nullhz_stall_grace) == 8);
static_assert(sizeof(struct nullhz_stall_checkpoint) == 16);
static_assert(sizeof(struct nullhz_stall_rank) == 112);
static_assert(sizeof(struct nullhz_fault_stall) == 136);
static_assert(sizeof(struct nullhz_fault_stall) <= NULLHZ_FAULT_PAYLOAD_SIZE);

/* The clock that the heartbeat page's times are in. Any context but NMI. */
u64 nullhz_stall_monotonic_ns(void)
{
	return ktime_get_ns();
}

/* What outlasts a reset. Any context, NMI included. */
u64 nullhz_stall_real_ns(void)
{
	return ktime_get_real_fast_ns();
}

bool nullhz_stall_online(unsigned int cpu)
{
	return cpu < nr_cpu_ids && cpu_online(cpu);
}

/* Confines the calling thread to @cpu. Process context, may sleep. */
int nullhz_stall_bind(unsigned int cpu)
{
	if (cpu >= nr_cpu_ids)
		return -EINVAL;
	return set_cpus_allowed_ptr(current, cpumask_of(cpu));
}

/*
 * Lets the calling thread run on all housekeeping CPUs, as a new one may. Process
 * context, may sleep.
 */
int nullhz_stall_unbind(void)
{
	cpumask_var_t mask;
	int err;

	/* Who looks at ranks does not wait for memory, but asks once more. */
	if (!alloc_cpumask_var(&mask, GFP_NOWAIT))
		return -ENOMEM;

	/* Cpusets exchange the mask of domains; the other one is that of the boot. */
	scoped_guard(rcu) {
		const struct cpumask *domain = housekeeping_cpumask(HK_TYPE_DOMAIN);

		if (!cpumask_and(mask, domain, housekeeping_cpumask(HK_TYPE_KERNEL_NOISE)))
			cpumask_copy(mask, domain);
	}
	err = set_cpus_allowed_ptr(current, mask);
	free_cpumask_var(mask);

	return err;
}

/* As kernel/hung_task.c counts them. Any context. */
u64 nullhz_stall_switches(const struct task_struct *task)
{
	return (u64)READ_ONCE(task->nvcsw) + READ_ONCE(task->nivcsw);
}
