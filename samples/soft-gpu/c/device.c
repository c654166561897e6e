// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/nullhz-soft-gpu-c: files, threads of the device, and the oracle. A part
 * of what uapi/soft_gpu.h describes: mode BATCHED, reads, no pinned buffers.
 */

#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/math64.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/prandom.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/uaccess.h>

#include "soft_gpu_c.h"

#define SOFT_GPU_ATTEMPTS	100
#define SOFT_GPU_POISON		0xaaaaaaaaaaaaaaaaULL

static_assert(sizeof(struct nullhz_soft_gpu_info) == 48);
static_assert(sizeof(struct nullhz_soft_gpu_stop) == 128);
static_assert(sizeof(struct nullhz_soft_gpu_access) == 64);
static_assert(sizeof(struct nullhz_soft_gpu_counters) == 208);

/* The table of generations: pinned memory of the process. */
struct soft_gpu_oracle {
	struct nullhz_soft_gpu_pages pages;
	u64 owner;
	unsigned long count;
	struct page **table;
};

/* An open file. */
struct soft_gpu_file {
	struct soft_gpu_context context;
	struct mutex lock;	/* one ioctl() at a time */
	struct soft_gpu_oracle oracle;
	struct list_head runs;
	u32 run_count;
	u32 last_run;
};

struct soft_gpu_run {
	struct list_head link;
	struct soft_gpu_file *file;
	struct nullhz_soft_gpu_run args;
	struct nullhz_soft_gpu_stop report;
	struct task_struct *thread;
	struct completion done;
};

static DEFINE_IDA(soft_gpu_tags);

static bool soft_gpu_pages_valid(const struct nullhz_soft_gpu_pages *pages)
{
	u64 length, last;

	return pages->count && pages->stride &&
	       IS_ALIGNED(pages->start | pages->stride, PAGE_SIZE) &&
	       !check_mul_overflow(pages->stride, pages->count - 1, &length) &&
	       !check_add_overflow(pages->start, length, &last) && last < BIT_ULL(48);
}

/* Where the page's lowest generation is; NULL: the page is not judged. */
static const u64 *soft_gpu_generation(const struct soft_gpu_oracle *oracle, u64 address)
{
	const unsigned int per_page = PAGE_SIZE / sizeof(u64);
	u64 offset = address - oracle->pages.start;
	u64 index;

	if (!oracle->count || address < oracle->pages.start || offset % oracle->pages.stride)
		return NULL;
	index = offset / oracle->pages.stride;
	if (index >= oracle->pages.count)
		return NULL;
	return (u64 *)page_address(oracle->table[index / per_page]) + index % per_page;
}

static u32 soft_gpu_judge(const struct soft_gpu_oracle *oracle, u64 address, u64 minimum,
			  const struct nullhz_soft_gpu_stamp *stamp, u32 *kind)
{
	if (!stamp->magic)
		return NULLHZ_SOFT_GPU_BLANK;
	if (stamp->magic == SOFT_GPU_POISON)
		*kind = NULLHZ_SOFT_GPU_POISON;
	else if (stamp->magic != NULLHZ_SOFT_GPU_MAGIC)
		*kind = NULLHZ_SOFT_GPU_FOREIGN;
	else if (stamp->owner != oracle->owner)
		*kind = NULLHZ_SOFT_GPU_OWNER;
	else if (stamp->address != address)
		*kind = NULLHZ_SOFT_GPU_ADDRESS;
	else if (stamp->generation < minimum)
		*kind = NULLHZ_SOFT_GPU_OLD;
	else
		return NULLHZ_SOFT_GPU_STAMPED;
	return NULLHZ_SOFT_GPU_VIOLATION;
}

/* One access, by the TLB of access->cpu. -EINVAL: that is offline. */
static int soft_gpu_access(struct soft_gpu_file *file, struct nullhz_soft_gpu_access *access)
{
	struct soft_gpu_context *context = &file->context;
	struct soft_gpu_attempt attempt = { .context = context, .address = access->address };
	const u64 *generation = soft_gpu_generation(&file->oracle, access->address);
	u64 minimum = 0;
	int i, ret;

	access->outcome = NULLHZ_SOFT_GPU_REFUSED;
	access->faults = 0;
	for (i = 0; i < SOFT_GPU_ATTEMPTS; i++) {
		if (generation)
			minimum = smp_load_acquire(generation);	/* before the access */
		ret = smp_call_function_single(access->cpu, soft_gpu_hardware_attempt, &attempt, 1);
		if (ret)
			return -EINVAL;
		if (attempt.mapped)
			break;
		if (soft_gpu_fault(context, access->address)) {
			atomic64_inc(&context->refused);
			return 0;
		}
		atomic64_inc(&context->faults);
		access->faults++;
	}
	if (!attempt.mapped)
		return 0;
	access->hit = attempt.hit;
	access->stamp = attempt.stamp;
	access->outcome = generation ? soft_gpu_judge(&file->oracle, access->address, minimum,
						      &attempt.stamp, &access->kind) :
				       NULLHZ_SOFT_GPU_UNJUDGED;
	if (access->outcome == NULLHZ_SOFT_GPU_VIOLATION)
		atomic64_inc(&context->violations);
	return 0;
}

/* --- Runs ------------------------------------------------------------------ */

static void soft_gpu_tally(struct nullhz_soft_gpu_stop *report,
			   const struct nullhz_soft_gpu_access *access)
{
	report->accesses++;
	if (access->hit)
		report->hits++;
	else
		report->walks++;
	report->faults += access->faults;
	switch (access->outcome) {
	case NULLHZ_SOFT_GPU_STAMPED:
		report->stamped++;
		break;
	case NULLHZ_SOFT_GPU_BLANK:
		report->blank++;
		break;
	case NULLHZ_SOFT_GPU_UNJUDGED:
		report->unjudged++;
		break;
	case NULLHZ_SOFT_GPU_REFUSED:
		report->refused++;
		break;
	default:
		report->violations[access->kind]++;
	}
}

static int soft_gpu_thread(void *data)
{
	struct soft_gpu_run *run = data;
	const struct nullhz_soft_gpu_run *args = &run->args;
	u64 start = ktime_get_ns();
	u64 next = args->seed % args->pages.count;
	struct rnd_state random;

	prandom_seed_state(&random, args->seed);
	while (!kthread_should_stop() &&
	       (!args->accesses || run->report.accesses < args->accesses)) {
		struct nullhz_soft_gpu_access access = { .cpu = args->cpu };
		u64 page = next;

		next = next + 1 < args->pages.count ? next + 1 : 0;
		if (args->flags & NULLHZ_SOFT_GPU_RANDOM)
			page = mul_u64_u32_shr(args->pages.count, prandom_u32_state(&random), 32);
		access.address = args->pages.start + page * args->pages.stride;
		if (soft_gpu_access(run->file, &access))
			break;
		soft_gpu_tally(&run->report, &access);
		cond_resched();
	}
	run->report.run_ns = ktime_get_ns() - start;
	complete_all(&run->done);
	set_current_state(TASK_IDLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_IDLE);
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

static int soft_gpu_start(struct soft_gpu_file *file, struct nullhz_soft_gpu_run *args)
{
	struct soft_gpu_run *run;

	if ((args->flags & ~NULLHZ_SOFT_GPU_RANDOM) || args->pad || args->cpu >= nr_cpu_ids ||
	    !cpu_online(args->cpu) || !soft_gpu_pages_valid(&args->pages))
		return -EINVAL;
	if (file->run_count == NULLHZ_SOFT_GPU_MAX_RUNS)
		return -ENOSPC;
	run = kzalloc_obj(*run, GFP_KERNEL_ACCOUNT);
	if (!run)
		return -ENOMEM;
	args->run = file->last_run % (U32_MAX / 2) + 1;
	run->file = file;
	run->args = *args;
	init_completion(&run->done);
	run->thread = kthread_create_on_cpu(soft_gpu_thread, run, args->cpu, "soft_gpu_c/%u");
	if (IS_ERR(run->thread)) {
		int ret = PTR_ERR(run->thread);

		kfree(run);
		return ret;
	}
	file->last_run = args->run;
	file->run_count++;
	list_add_tail(&run->link, &file->runs);
	wake_up_process(run->thread);
	return 0;
}

static struct soft_gpu_run *soft_gpu_find_run(struct soft_gpu_file *file, u32 id)
{
	struct soft_gpu_run *run;

	list_for_each_entry(run, &file->runs, link)
		if (run->args.run == id)
			return run;
	return NULL;
}

/* With the file's lock held. */
static void soft_gpu_end(struct soft_gpu_run *run)
{
	kthread_stop(run->thread);
	atomic64_add(run->report.accesses, &run->file->context.accesses);
	run->file->run_count--;
	list_del(&run->link);
}

static int soft_gpu_stop(struct soft_gpu_file *file, struct nullhz_soft_gpu_stop *stop)
{
	struct nullhz_soft_gpu_stop args = *stop;
	struct soft_gpu_run *run;

	if (args.flags & ~NULLHZ_SOFT_GPU_WAIT)
		return -EINVAL;
	run = soft_gpu_find_run(file, args.run);
	if (!run)
		return -ENOENT;
	/* Others wait, too: one thread uses a file at a time. */
	if ((args.flags & NULLHZ_SOFT_GPU_WAIT) && wait_for_completion_interruptible(&run->done))
		return -ERESTARTSYS;
	soft_gpu_end(run);
	*stop = run->report;
	stop->run = args.run;
	stop->flags = args.flags;
	kfree(run);
	return 0;
}

/* --- Files ------------------------------------------------------------------- */

static void soft_gpu_forget(struct soft_gpu_oracle *oracle)
{
	unpin_user_pages(oracle->table, oracle->count);
	kvfree(oracle->table);
	*oracle = (struct soft_gpu_oracle) {};
}

static int soft_gpu_consult(struct soft_gpu_file *file, const struct nullhz_soft_gpu_oracle *args)
{
	struct soft_gpu_oracle oracle = { .pages = args->pages, .owner = args->owner };
	u64 size = DIV_ROUND_UP_ULL(args->pages.count, PAGE_SIZE / sizeof(u64));
	int pinned = 0;

	if (!list_empty(&file->runs))
		return -EBUSY;
	soft_gpu_forget(&file->oracle);
	if (!args->pages.count)
		return 0;
	if (!soft_gpu_pages_valid(&args->pages) || !IS_ALIGNED(args->table, PAGE_SIZE))
		return -EINVAL;
	if (size > NULLHZ_SOFT_GPU_MAX_PINNED)
		return -ENOSPC;
	oracle.table = kvcalloc(size, sizeof(*oracle.table), GFP_KERNEL_ACCOUNT);
	if (!oracle.table)
		return -ENOMEM;
	while (oracle.count < size) {
		pinned = pin_user_pages_fast(args->table + oracle.count * PAGE_SIZE,
					     size - oracle.count, FOLL_WRITE | FOLL_LONGTERM,
					     oracle.table + oracle.count);
		if (pinned <= 0) {
			soft_gpu_forget(&oracle);
			return pinned ?: -EFAULT;
		}
		oracle.count += pinned;
	}
	file->oracle = oracle;
	return 0;
}

static int soft_gpu_mirror(struct soft_gpu_file *file, const struct nullhz_soft_gpu_range *args)
{
	u64 interval = min(args->interval ?: args->length, args->length);
	u64 end, count;

	if (!args->length ||
	    !IS_ALIGNED(args->start | args->length | args->interval, PAGE_SIZE))
		return -EINVAL;
	if (check_add_overflow(args->start, args->length, &end) || end > SOFT_GPU_END)
		return -EOVERFLOW;
	if (mt_find(&file->context.ranges, &(unsigned long){ args->start }, end - 1))
		return -EEXIST;
	count = DIV64_U64_ROUND_UP(args->length, interval);
	if (atomic64_read(&file->context.registered) + count > NULLHZ_SOFT_GPU_MAX_INTERVALS)
		return -ENOSPC;
	return soft_gpu_register(&file->context, args->start, args->length, interval, count);
}

static int soft_gpu_prefetch(struct soft_gpu_file *file, struct nullhz_soft_gpu_prefetch *args)
{
	u64 i;

	if (args->flags || args->pad || !soft_gpu_pages_valid(&args->pages))
		return -EINVAL;
	args->filled = 0;
	args->refused = 0;
	for (i = 0; i < args->pages.count; i++) {
		if (signal_pending(current))
			return -EINTR;
		if (soft_gpu_fault(&file->context, args->pages.start + i * args->pages.stride))
			args->refused++;
		else
			args->filled++;
	}
	atomic64_add(args->filled, &file->context.faults);
	atomic64_add(args->refused, &file->context.refused);
	return 0;
}

static void soft_gpu_count(struct soft_gpu_context *context,
			   struct nullhz_soft_gpu_counters *counters)
{
	*counters = (struct nullhz_soft_gpu_counters) {
		.events = atomic64_read(&context->events),
		.elided = atomic64_read(&context->elided),
		.zapped = atomic64_read(&context->zapped),
		.faults = atomic64_read(&context->faults),
		.refused = atomic64_read(&context->refused),
		.retries = atomic64_read(&context->retries),
		.intervals = atomic64_read(&context->registered),
		.notifiers = atomic64_read(&context->registered),
		.accesses = atomic64_read(&context->accesses),
		.violations = atomic64_read(&context->violations),
	};
	soft_gpu_hardware_count(counters);
}

union soft_gpu_args {
	struct nullhz_soft_gpu_info info;
	struct nullhz_soft_gpu_range range;
	struct nullhz_soft_gpu_prefetch prefetch;
	struct nullhz_soft_gpu_oracle oracle;
	struct nullhz_soft_gpu_run run;
	struct nullhz_soft_gpu_stop stop;
	struct nullhz_soft_gpu_access access;
	struct nullhz_soft_gpu_counters counters;
};

static int soft_gpu_dispatch(struct soft_gpu_file *file, unsigned int cmd,
			     union soft_gpu_args *args)
{
	struct nullhz_soft_gpu_access *access = &args->access;
	int ret;

	switch (cmd) {
	case NULLHZ_SOFT_GPU_IOC_INFO:
		args->info = (struct nullhz_soft_gpu_info) {
			.abi_version = NULLHZ_SOFT_GPU_ABI_VERSION,
			.modes = BIT(NULLHZ_SOFT_GPU_BATCHED),
			.mode = NULLHZ_SOFT_GPU_BATCHED,
			.cpus = nr_cpu_ids,
			.tlb_entries = SOFT_GPU_TLB_ENTRIES,
			.context = file->context.tag,
		};
		return 0;
	case NULLHZ_SOFT_GPU_IOC_STOP:
		return soft_gpu_stop(file, &args->stop);
	case NULLHZ_SOFT_GPU_IOC_COUNTERS:
		soft_gpu_count(&file->context, &args->counters);
		return 0;
	}
	if (current->mm != file->context.mm)
		return -EPERM;
	switch (cmd) {
	case NULLHZ_SOFT_GPU_IOC_REGISTER:
		return soft_gpu_mirror(file, &args->range);
	case NULLHZ_SOFT_GPU_IOC_PREFETCH:
		return soft_gpu_prefetch(file, &args->prefetch);
	case NULLHZ_SOFT_GPU_IOC_ORACLE:
		return soft_gpu_consult(file, &args->oracle);
	case NULLHZ_SOFT_GPU_IOC_RUN:
		return soft_gpu_start(file, &args->run);
	case NULLHZ_SOFT_GPU_IOC_ACCESS:
		if (access->flags || access->cpu >= nr_cpu_ids || access->address >= BIT_ULL(48) ||
		    !IS_ALIGNED(access->address, PAGE_SIZE))
			return -EINVAL;
		ret = soft_gpu_access(file, access);
		if (!ret)
			atomic64_inc(&file->context.accesses);
		return ret;
	}
	return -ENOTTY;
}

static long soft_gpu_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct soft_gpu_file *file = filp->private_data;
	void __user *user = (void __user *)arg;
	union soft_gpu_args args = {};
	size_t size = _IOC_SIZE(cmd);
	long ret;

	if (size > sizeof(args))
		return -ENOTTY;
	if ((_IOC_DIR(cmd) & _IOC_WRITE) && copy_from_user(&args, user, size))
		return -EFAULT;
	ret = mutex_lock_killable(&file->lock);
	if (ret)
		return ret;
	ret = soft_gpu_dispatch(file, cmd, &args);
	mutex_unlock(&file->lock);
	/* A run that nobody was told of ends with the file. */
	if (!ret && (_IOC_DIR(cmd) & _IOC_READ) && copy_to_user(user, &args, size))
		return -EFAULT;
	return ret;
}

static int soft_gpu_open(struct inode *inode, struct file *filp)
{
	struct soft_gpu_file *file = kzalloc_obj(*file, GFP_KERNEL_ACCOUNT);
	int tag, ret;

	if (!file)
		return -ENOMEM;
	tag = ida_alloc_range(&soft_gpu_tags, 1, U16_MAX, GFP_KERNEL);
	ret = tag < 0 ? tag : soft_gpu_context_init(&file->context, current->mm, tag);
	if (ret) {
		if (tag > 0)
			ida_free(&soft_gpu_tags, tag);
		kfree(file);
		return ret;
	}
	mutex_init(&file->lock);
	INIT_LIST_HEAD(&file->runs);
	filp->private_data = file;
	return 0;
}

static int soft_gpu_release(struct inode *inode, struct file *filp)
{
	struct soft_gpu_file *file = filp->private_data;
	struct soft_gpu_run *run, *next;

	list_for_each_entry_safe(run, next, &file->runs, link) {
		soft_gpu_end(run);
		kfree(run);
	}
	soft_gpu_context_destroy(&file->context);
	soft_gpu_forget(&file->oracle);
	ida_free(&soft_gpu_tags, file->context.tag);
	kfree(file);
	return 0;
}

static const struct file_operations soft_gpu_fops = {
	.owner = THIS_MODULE,
	.open = soft_gpu_open,
	.release = soft_gpu_release,
	.unlocked_ioctl = soft_gpu_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice soft_gpu_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "nullhz-soft-gpu-c",
	.fops = &soft_gpu_fops,
	.mode = 0660,
};

static int __init soft_gpu_init(void)
{
	int ret = soft_gpu_hardware_init();

	if (ret)
		return ret;
	ret = soft_gpu_driver_init();
	if (ret)
		goto out_hardware;
	ret = misc_register(&soft_gpu_misc);
	if (ret)
		goto out_driver;
	return 0;

out_driver:
	soft_gpu_driver_exit();
out_hardware:
	soft_gpu_hardware_exit();
	return ret;
}

static void __exit soft_gpu_exit(void)
{
	misc_deregister(&soft_gpu_misc);
	soft_gpu_driver_exit();
	soft_gpu_hardware_exit();
}

module_init(soft_gpu_init);
module_exit(soft_gpu_exit);
MODULE_AUTHOR("nullhz");
MODULE_DESCRIPTION("Software GPU in C, a sample of nullhz_mmu_batch");
MODULE_LICENSE("GPL");
