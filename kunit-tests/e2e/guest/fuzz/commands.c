// SPDX-License-Identifier: GPL-2.0
/* The devices' commands: arguments that make sense, and some that do not. */
#include "fuzz.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

const char *const device_path[DEVICES] = {
	[FAULT] = "/dev/nullhz-fault",
	[STALL] = "/dev/nullhz-stall",
	[GPU] = "/dev/nullhz-soft-gpu",
	[TWIN] = "/dev/nullhz-soft-gpu-c",
};

/* Room for the largest argument. */
union value {
	struct nullhz_fault_info fault;
	struct nullhz_fault_filter filter;
	struct nullhz_fault_seek seek;
	struct nullhz_fault_ack ack;
	struct nullhz_fault_incident incident;
	struct nullhz_stall_register registration;
	struct nullhz_stall_grace grace;
	struct nullhz_stall_checkpoint checkpoint;
	struct nullhz_stall_rank rank;
	struct nullhz_soft_gpu_mode mode;
	struct nullhz_soft_gpu_range range;
	struct nullhz_soft_gpu_pages pages;
	struct nullhz_soft_gpu_prefetch prefetch;
	struct nullhz_soft_gpu_oracle oracle;
	struct nullhz_soft_gpu_run run;
	struct nullhz_soft_gpu_stop stop;
	struct nullhz_soft_gpu_access access;
	struct nullhz_soft_gpu_violation violation;
	struct nullhz_soft_gpu_bind bind;
	struct nullhz_soft_gpu_cpu cpu;
	struct nullhz_soft_gpu_faults faults;
	uint8_t bytes[512];
};

#define MAX_ERRORS 10

struct command {
	const char *name;
	unsigned int number;
	void (*fill)(union value *value);
	/* What it may fail with, as its header says. */
	int errors[MAX_ERRORS];
};

/* Where buffers are bound: the device's first address of its own. */
static uint64_t aperture;

void aperture_init(void)
{
	struct nullhz_soft_gpu_info info = {};
	int fd = open(device_path[GPU], O_RDWR | O_CLOEXEC);

	if (ioctl(fd, NULLHZ_SOFT_GPU_IOC_INFO, &info))
		found("%s: %s", device_path[GPU], strerror(errno));
	aperture = info.aperture;
	close(fd);
}

/*
 * What was given and got before, by whatever thread: most of what comes later
 * has to fit it, to get anywhere.
 */
#define KEPT 4

static struct nullhz_soft_gpu_range ranges[KEPT];
static struct nullhz_soft_gpu_bind bindings[KEPT];
static uint32_t runs[KEPT];
static uint64_t last_incident;
static uint32_t last_request;

static void nothing(union value *value)
{
	(void)value;
}

/* --- The fault bus ----------------------------------------------------------- */

static void fill_filter(union value *value)
{
	static const uint64_t masks[] = { ~0ull, 1, 2, 4, 0, 1ull << 32, 1ull << 63 };

	value->filter = (struct nullhz_fault_filter){
		.min_level = below(one_in(8) ? 6 : 4),
		.source_mask = pick(masks),
	};
}

static void fill_seek(union value *value)
{
	value->seek.whence = below(one_in(8) ? 5 : 3);
	if (value->seek.whence == NULLHZ_FAULT_SEEK_SEQ)
		value->seek.seq = edge();
}

static void fill_ack(union value *value)
{
	value->ack = (struct nullhz_fault_ack){
		.incident = one_in(8) ? edge() : last_incident - below(3),
		.snapshot_id = edge(),
		.result = one_in(2) ? 0 : -(int)below(5000),
	};
}

static void fill_incident(union value *value)
{
	value->incident.incident = one_in(8) ? edge() : last_incident - below(70);
}

/* --- The stall watchdog -------------------------------------------------------- */

static uint32_t some_ms(void)
{
	return one_in(2) ? 0 : one_in(2) ? 50 + below(400) : edge();
}

static void fill_register(union value *value)
{
	struct nullhz_stall_register *registration = &value->registration;
	size_t i;

	/* Few enough to meet others. */
	registration->rank = one_in(8) ? edge() : below(24);
	strcpy(registration->name, "fuzz");
	for (i = 0; i < NULLHZ_STALL_PHASES; i++)
		registration->deadline_ms[i] = some_ms();
	registration->floor_ms = some_ms();
	registration->warmup = one_in(2) ? 0 : edge();
	registration->flags = one_in(2) ? NULLHZ_STALL_F_TELLS_WAITS : one_in(8) ? edge() : 0;
	if (one_in(8))
		for (i = 0; i < sizeof(registration->name); i++)
			registration->name[i] = any();
}

static void fill_grace(union value *value)
{
	value->grace.ms = one_in(2) ? below(500) : edge();
}

static void fill_answers(union value *value)
{
	value->checkpoint.request = one_in(8) ? edge() : last_request - one_in(8);
}

static void fill_rank(union value *value)
{
	value->rank.index = one_in(2) ? below(4) : edge();
}

/* --- The software GPU ------------------------------------------------------------ */

/* CPUs that are there, and some that are not. */
static uint32_t some_cpu(void)
{
	return one_in(16) ? edge() : below(5);
}

/* Pages that something is known about, or any. */
static void fill_pages(struct nullhz_soft_gpu_pages *pages)
{
	pages->start = one_in(8) ? aperture + below(64) * PAGE : arena();
	pages->stride = PAGE << (one_in(4) ? below(10) : 0);
	pages->count = 1 + below(64);
	if (one_in(12)) {
		pages->start = edge();
		pages->stride = edge();
		pages->count = edge();
	}
}

static void fill_mode(union value *value)
{
	value->mode.mode = below(one_in(8) ? 6 : 4);
}

static void fill_range(union value *value)
{
	value->range = (struct nullhz_soft_gpu_range){
		.start = arena(),
		.length = (1 + below(64)) * PAGE,
		.interval = one_in(2) ? 0 : (1 + below(8)) * PAGE,
	};
	if (one_in(4))
		/* All there is. */
		value->range = (struct nullhz_soft_gpu_range){
			.start = ARENA,
			.length = ARENA_SIZE,
			.interval = PAGE << (4 + below(11)),
		};
	if (one_in(12)) {
		value->range.start = edge();
		value->range.length = edge();
		value->range.interval = edge();
	}
}

static void fill_unregister(union value *value)
{
	value->range = pick(ranges);
	if (one_in(8))
		fill_range(value);
	value->range.interval = 0;
}

static void fill_prefetch(union value *value)
{
	fill_pages(&value->prefetch.pages);
	value->prefetch.flags = below(2);
}

static void fill_oracle(union value *value)
{
	fill_pages(&value->oracle.pages);
	if (!one_in(4))
		/* All of the arena. */
		value->oracle.pages = (struct nullhz_soft_gpu_pages){ ARENA, PAGE, ARENA_SIZE / PAGE };
	else if (one_in(2))
		value->oracle.pages.count = 0;
	value->oracle.table = arena();
	value->oracle.owner = below(2);
}

static void fill_run(union value *value)
{
	fill_pages(&value->run.pages);
	value->run.accesses = one_in(16) ? 0 : below(300);
	value->run.seed = any();
	value->run.flags = below(4);
	value->run.cpu = some_cpu();
}

static void fill_stop(union value *value)
{
	value->stop.run = one_in(16) ? edge() : pick(runs);
	value->stop.flags = one_in(4);
}

static void fill_access(union value *value)
{
	value->access.address = one_in(16) ? edge() :
				one_in(4) ? aperture + below(64) * PAGE : arena();
	value->access.flags = one_in(4);
	value->access.cpu = some_cpu();
}

static void fill_violation(union value *value)
{
	value->violation.index = one_in(4) ? edge() : below(2);
}

static void fill_bind(union value *value)
{
	value->bind = (struct nullhz_soft_gpu_bind){
		.user = arena(),
		.device = aperture + below(64) * PAGE,
		.pages = 1 + below(4),
		.count = 1 + below(4),
	};
	if (one_in(12)) {
		value->bind.device = edge();
		value->bind.pages = edge();
		value->bind.count = edge();
	}
}

static void fill_unbind(union value *value)
{
	value->bind = pick(bindings);
	if (one_in(8))
		fill_bind(value);
	value->bind.user = 0;
}

static void fill_cpu(union value *value)
{
	value->cpu.cpu = some_cpu();
}

/* Not the mutant, which reads what it must not. */
static void fill_faults(union value *value)
{
	value->faults = (struct nullhz_soft_gpu_faults){
		.unanswered = below(3),
		.failed_resets = below(3),
		.flush_delay_us = below(300),
		.walk_delay_us = below(100),
	};
	if (!one_in(4))
		value->faults = (struct nullhz_soft_gpu_faults){ .flush_delay_us = 0 };
	if (one_in(16)) {
		value->faults.flush_delay_us = 100001 + edge() % 1000;
		value->faults.mutant = 2 + below(100);
	}
}

#define GPU_COMMANDS \
	{ "INFO", NULLHZ_SOFT_GPU_IOC_INFO, nothing, { EFAULT } }, \
	{ "COUNTERS", NULLHZ_SOFT_GPU_IOC_COUNTERS, nothing, { EFAULT } }, \
	{ "REGISTER", NULLHZ_SOFT_GPU_IOC_REGISTER, fill_range, \
	  { EFAULT, EINVAL, EEXIST, ENOSPC, EOVERFLOW, EPERM, ESRCH, EINTR, ENOMEM } }, \
	{ "PREFETCH", NULLHZ_SOFT_GPU_IOC_PREFETCH, fill_prefetch, \
	  { EFAULT, EINVAL, EPERM, ESRCH, EINTR, ENOMEM } }, \
	{ "ORACLE", NULLHZ_SOFT_GPU_IOC_ORACLE, fill_oracle, \
	  { EFAULT, EINVAL, EBUSY, ENOSPC, EPERM, ESRCH, EINTR, ENOMEM } }, \
	{ "RUN", NULLHZ_SOFT_GPU_IOC_RUN, fill_run, \
	  { EFAULT, EINVAL, ENOSPC, EPERM, ESRCH, EINTR, ENOMEM } }, \
	{ "STOP", NULLHZ_SOFT_GPU_IOC_STOP, fill_stop, { EFAULT, EINVAL, ENOENT, EINTR } }, \
	{ "ACCESS", NULLHZ_SOFT_GPU_IOC_ACCESS, fill_access, \
	  { EFAULT, EINVAL, EPERM, ESRCH, EINTR, ENOMEM } }

static const struct command commands[DEVICES][COMMANDS] = {
	[FAULT] = {
		{ "INFO", NULLHZ_FAULT_IOC_INFO, nothing, { EFAULT } },
		{ "FILTER", NULLHZ_FAULT_IOC_FILTER, fill_filter, { EFAULT, EINVAL } },
		{ "SEEK", NULLHZ_FAULT_IOC_SEEK, fill_seek, { EFAULT, EINVAL } },
		{ "ACK", NULLHZ_FAULT_IOC_ACK, fill_ack,
		  { EFAULT, EINVAL, EPERM, ENOENT, EALREADY } },
		{ "INCIDENT", NULLHZ_FAULT_IOC_INCIDENT, fill_incident, { EFAULT, ENOENT } },
	},
	[STALL] = {
		{ "INFO", NULLHZ_STALL_IOC_INFO, nothing, { EFAULT } },
		{ "REGISTER", NULLHZ_STALL_IOC_REGISTER, fill_register,
		  { EFAULT, EINVAL, EBUSY, EEXIST, ENOSPC, ENOMEM } },
		{ "GRACE", NULLHZ_STALL_IOC_GRACE, fill_grace, { EFAULT, EINVAL } },
		{ "LEAVE", NULLHZ_STALL_IOC_LEAVE, nothing, { EINVAL } },
		{ "CHECKPOINT", NULLHZ_STALL_IOC_CHECKPOINT, nothing, { EFAULT, EPERM } },
		{ "ANSWERS", NULLHZ_STALL_IOC_ANSWERS, fill_answers, { EFAULT, ENOENT } },
		{ "RANK", NULLHZ_STALL_IOC_RANK, fill_rank, { EFAULT, ENOENT } },
	},
	[GPU] = {
		GPU_COMMANDS,
		{ "MODE", NULLHZ_SOFT_GPU_IOC_MODE, fill_mode,
		  { EFAULT, EINVAL, EBUSY, EPERM, ESRCH, EINTR, ENOMEM } },
		{ "UNREGISTER", NULLHZ_SOFT_GPU_IOC_UNREGISTER, fill_unregister,
		  { EFAULT, EINVAL, ENOENT, EBUSY, EPERM, ESRCH, EINTR, ENOMEM } },
		{ "VIOLATION", NULLHZ_SOFT_GPU_IOC_VIOLATION, fill_violation, { EFAULT, ENOENT } },
		{ "BIND", NULLHZ_SOFT_GPU_IOC_BIND, fill_bind,
		  { EFAULT, EINVAL, EBUSY, ENOSPC, EPERM, ESRCH, EINTR, ENOMEM } },
		{ "UNBIND", NULLHZ_SOFT_GPU_IOC_UNBIND, fill_unbind,
		  { EFAULT, EINVAL, ENOENT, EPERM, ESRCH, EINTR, ENOMEM } },
		{ "SUBMIT", NULLHZ_SOFT_GPU_IOC_SUBMIT, nothing, { EPERM, ESRCH, EINTR, ENOMEM } },
		{ "CPU", NULLHZ_SOFT_GPU_IOC_CPU, fill_cpu, { EFAULT, EINVAL } },
		{ "FAULTS", NULLHZ_SOFT_GPU_IOC_FAULTS, fill_faults,
		  { EFAULT, EINVAL, EPERM, ESRCH, EOPNOTSUPP } },
	},
	[TWIN] = { GPU_COMMANDS },
};

const char *command_name(enum device device, unsigned int index)
{
	return index < COMMANDS ? commands[device][index].name : NULL;
}

static unsigned int number_of(enum device device)
{
	unsigned int number = 0;

	while (number < COMMANDS && commands[device][number].name)
		number++;
	return number;
}

static bool may_fail_with(const struct command *command, int error)
{
	size_t i;

	for (i = 0; i < MAX_ERRORS; i++)
		if (command->errors[i] == error)
			return true;
	return false;
}

/* Another direction, size, number or type. */
static void call_another(int fd, const struct command *command, union value *value)
{
	unsigned int number = command->number;
	int result;

	switch (below(4)) {
	case 0:
		number ^= below(4) << _IOC_DIRSHIFT;
		break;
	case 1:
		number ^= (1 + below(64)) << _IOC_SIZESHIFT;
		break;
	case 2:
		number ^= below(32) << _IOC_NRSHIFT;
		break;
	default:
		number = any();
	}
	/* Thousands of resets that fail have everybody wait for hours, as it must be. */
	if (number == NULLHZ_SOFT_GPU_IOC_FAULTS)
		return;
	/* Those of any file, such as FIOASYNC, are not ours to judge. */
	result = ioctl(fd, number, value);
	if (alone && _IOC_TYPE(number) == _IOC_TYPE(command->number) && result > 0)
		found("ioctl %#x: %d", number, result);
}

/* Of a call that has succeeded. */
static void keep(unsigned int number, const void *at)
{
	union value value;

	memcpy(&value, at, _IOC_SIZE(number));
	switch (number) {
	case NULLHZ_FAULT_IOC_INFO:
		last_incident = value.fault.last_incident;
		break;
	case NULLHZ_STALL_IOC_CHECKPOINT:
		last_request = value.checkpoint.request;
		break;
	case NULLHZ_SOFT_GPU_IOC_REGISTER:
		ranges[below(KEPT)] = value.range;
		break;
	case NULLHZ_SOFT_GPU_IOC_BIND:
		bindings[below(KEPT)] = value.bind;
		break;
	case NULLHZ_SOFT_GPU_IOC_RUN:
		runs[below(KEPT)] = value.run.run;
		break;
	}
}

static void call(struct slot *slot, unsigned int index)
{
	const struct command *command = &commands[slot->device][index];
	union value value = {};
	size_t size = _IOC_SIZE(command->number);
	bool good, damaged = false;
	void *at;
	int result;

	command->fill(&value);
	if (one_in(24)) {
		call_another(slot->fd, command, &value);
		return;
	}
	while (size && one_in(12)) {
		value.bytes[below(size)] = edge();
		damaged = true;
	}
	if (command->fill == fill_faults && damaged)
		fill_faults(&value);
	/* What is in memory of others could be thousands of failed resets; see above. */
	do
		at = argument(&value, size, &good);
	while (!good && command->fill == fill_faults);
	count(&counts->tried[slot->device][index]);
	result = ioctl(slot->fd, command->number, at);
	if (!result)
		count(&counts->done[slot->device][index]);
	if (good)
		check_argument(at, size);
	if (good && !result)
		keep(command->number, at);
	if (!result && command->number == NULLHZ_STALL_IOC_REGISTER && !one_in(8))
		map_page(slot->fd, STALL);
	if (!alone)
		return;
	if (result > 0 || (result && !may_fail_with(command, errno)))
		found("%s %s: %d, %s", device_path[slot->device], command->name, result,
		      strerror(errno));
	if (result && good && (errno == EFAULT || index == 0) &&
	    /* What the argument points to may be bad as well. */
	    !(slot->device >= GPU && index && may_fail_with(command, ENOMEM)))
		found("%s %s with a good address: %s", device_path[slot->device], command->name,
		      strerror(errno));
}

/* What leads somewhere: each only works after the one before. */
static const unsigned int plans[][6] = {
	{ NULLHZ_FAULT_IOC_FILTER, NULLHZ_FAULT_IOC_SEEK, NULLHZ_FAULT_IOC_INFO,
	  NULLHZ_FAULT_IOC_INCIDENT, NULLHZ_FAULT_IOC_ACK, NULLHZ_FAULT_IOC_INCIDENT },
	{ NULLHZ_STALL_IOC_REGISTER, NULLHZ_STALL_IOC_GRACE, NULLHZ_STALL_IOC_CHECKPOINT,
	  NULLHZ_STALL_IOC_ANSWERS, NULLHZ_STALL_IOC_RANK, NULLHZ_STALL_IOC_INFO },
	{ NULLHZ_SOFT_GPU_IOC_REGISTER, NULLHZ_SOFT_GPU_IOC_ORACLE, NULLHZ_SOFT_GPU_IOC_PREFETCH,
	  NULLHZ_SOFT_GPU_IOC_RUN, NULLHZ_SOFT_GPU_IOC_ACCESS, NULLHZ_SOFT_GPU_IOC_STOP },
	{ NULLHZ_SOFT_GPU_IOC_MODE, NULLHZ_SOFT_GPU_IOC_BIND, NULLHZ_SOFT_GPU_IOC_RUN,
	  NULLHZ_SOFT_GPU_IOC_UNBIND, NULLHZ_SOFT_GPU_IOC_SUBMIT, NULLHZ_SOFT_GPU_IOC_STOP },
	{ NULLHZ_SOFT_GPU_IOC_MODE, NULLHZ_SOFT_GPU_IOC_REGISTER, NULLHZ_SOFT_GPU_IOC_ACCESS,
	  NULLHZ_SOFT_GPU_IOC_UNREGISTER, NULLHZ_SOFT_GPU_IOC_VIOLATION, NULLHZ_SOFT_GPU_IOC_COUNTERS },
};

static void follow_plan(struct slot *slot)
{
	const unsigned int *plan = pick(plans);
	unsigned int step, index;

	for (step = 0; step < ARRAY_SIZE(plans[0]); step++) {
		for (index = 0; index < number_of(slot->device); index++)
			if (commands[slot->device][index].number == plan[step])
				call(slot, index);	}
}

void call_command(struct slot *slot)
{
	if (one_in(16))
		follow_plan(slot);
	else
		call(slot, below(number_of(slot->device)));
}
