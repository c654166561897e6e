// SPDX-License-Identifier: GPL-2.0
/*
 * fail_nth_gpu OPERATION DEVICE - as fail_nth, for the software GPU and with it for
 * nullhz_mmu_batch: one of `operations` below
 */
#define _GNU_SOURCE
#include "fail_nth.h"
#include "soft_gpu.h"

enum {
	PAGE = NULLHZ_SOFT_GPU_PAGE,
	/* Intervals of two pages, and the pages of a buffer. */
	INTERVALS = 4,
	BUFFER = 2,
	SIZE = INTERVALS * 2 * PAGE,
};

static const char *device;
static int fd = -1;
static char *memory;
static uint64_t aperture;
static uint64_t table[INTERVALS * 2] __attribute__((aligned(PAGE)));
static uint32_t run_number;

static long open_gpu(void)
{
	return fd = open(device, O_RDWR | O_CLOEXEC);
}

static void end(void)
{
	close(fd);
}

static void nothing(void)
{
}

static long info(void)
{
	struct nullhz_soft_gpu_info info;
	long result = ioctl(fd, NULLHZ_SOFT_GPU_IOC_INFO, &info);

	if (!result)
		aperture = info.aperture;
	return result;
}

static void prepare(void)
{
	CHECK(open_gpu());
	CHECK(info());
}

/* Not the one that a file has at first: its ranges get other notifiers. */
static long mode(void)
{
	struct nullhz_soft_gpu_mode mode = { .mode = NULLHZ_SOFT_GPU_B0 };

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_MODE, &mode);
}

/* Memory for the device to mirror, or to pin. */
static void prepare_memory(void)
{
	prepare();
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	memset(memory, 0, SIZE);
}

static void end_memory(void)
{
	munmap(memory, SIZE);
	end();
}

static long mirror(void)
{
	struct nullhz_soft_gpu_range range = {
		.start = (uintptr_t)memory, .length = SIZE, .interval = SIZE / INTERVALS,
	};

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_REGISTER, &range);
}

static long unmirror(void)
{
	struct nullhz_soft_gpu_range range = { .start = (uintptr_t)memory, .length = SIZE };

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_UNREGISTER, &range);
}

static void prepare_mirror(void)
{
	prepare_memory();
	CHECK(mirror());
}

static struct nullhz_soft_gpu_pages all_pages(void)
{
	return (struct nullhz_soft_gpu_pages) {
		.start = (uintptr_t)memory, .stride = PAGE, .count = SIZE / PAGE,
	};
}

/* Pages that get no memory are refused, which is an answer. */
static long prefetch(void)
{
	struct nullhz_soft_gpu_prefetch prefetch = { .pages = all_pages() };

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_PREFETCH, &prefetch);
}

static void prepare_filled(void)
{
	prepare_mirror();
	CHECK(prefetch());
}

static long take_away(void)
{
	return munmap(memory, SIZE);
}

static long judge(void)
{
	struct nullhz_soft_gpu_oracle oracle = {
		.pages = all_pages(), .table = (uintptr_t)table, .owner = 1,
	};

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_ORACLE, &oracle);
}

static long run(void)
{
	struct nullhz_soft_gpu_run run = { .pages = all_pages(), .accesses = 64 };
	long result = ioctl(fd, NULLHZ_SOFT_GPU_IOC_RUN, &run);

	run_number = run.run;
	return result;
}

static long stop(void)
{
	struct nullhz_soft_gpu_stop stop = { .run = run_number, .flags = NULLHZ_SOFT_GPU_WAIT };

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_STOP, &stop);
}

/* A run whose number did not arrive is ended with the file. */
static void end_run(void)
{
	CHECK(stop());
	end_memory();
}

static void prepare_run(void)
{
	prepare_filled();
	CHECK(run());
}

static long touch(void)
{
	struct nullhz_soft_gpu_access access = { .address = (uintptr_t)memory };

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_ACCESS, &access);
}

static struct nullhz_soft_gpu_bind buffers(void)
{
	return (struct nullhz_soft_gpu_bind) {
		.device = aperture, .pages = BUFFER, .count = SIZE / PAGE / BUFFER,
	};
}

static long bind(void)
{
	struct nullhz_soft_gpu_bind bind = buffers();

	bind.user = (uintptr_t)memory;
	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_BIND, &bind);
}

static long unbind(void)
{
	struct nullhz_soft_gpu_bind bind = buffers();

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_UNBIND, &bind);
}

static void prepare_bound(void)
{
	prepare_memory();
	CHECK(bind());
}

static void end_bound(void)
{
	CHECK(unbind());
	end_memory();
}

static void prepare_unbound(void)
{
	prepare_bound();
	CHECK(unbind());
}

/* What the device sees in the first page is another owner's. */
static void prepare_violation(void)
{
	struct nullhz_soft_gpu_stamp *stamp;

	prepare_mirror();
	stamp = (void *)memory;
	stamp->owner = 2;
	stamp->magic = NULLHZ_SOFT_GPU_MAGIC;
	CHECK(judge());
	CHECK(touch());
}

static long violation(void)
{
	struct nullhz_soft_gpu_violation violation = { .index = 0 };

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_VIOLATION, &violation);
}

static long misbehave(void)
{
	struct nullhz_soft_gpu_faults faults = { 0 };

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_FAULTS, &faults);
}

static long close_gpu(void)
{
	return close(fd);
}

static void end_unmirrored(void)
{
	munmap(memory, SIZE);
}

static long submit(void)
{
	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_SUBMIT);
}

static long counters(void)
{
	struct nullhz_soft_gpu_counters counters;

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_COUNTERS, &counters);
}

static long cpu(void)
{
	struct nullhz_soft_gpu_cpu cpu = { .cpu = 0 };

	return ioctl(fd, NULLHZ_SOFT_GPU_IOC_CPU, &cpu);
}

static const struct operation operations[] = {
	{ "open", nothing, open_gpu, end, NULL },
	{ "info", prepare, info, end, NULL },
	{ "mode", prepare_filled, mode, end_memory, NULL },
	{ "register", prepare_memory, mirror, end_memory, NULL },
	{ "unregister", prepare_filled, unmirror, end_memory, NULL },
	{ "prefetch", prepare_mirror, prefetch, end_memory, NULL },
	{ "munmap", prepare_filled, take_away, end, NULL },
	{ "oracle", prepare_mirror, judge, end_memory, NULL },
	{ "run", prepare_filled, run, end_run, NULL },
	/* If it cannot tell what the run did, the run has ended. */
	{ "stop", prepare_run, stop, end_memory, end_memory },
	{ "access", prepare_mirror, touch, end_memory, NULL },
	{ "bind", prepare_memory, bind, end_bound, NULL },
	{ "unbind", prepare_bound, unbind, end_memory, NULL },
	{ "submit", prepare_unbound, submit, end_memory, NULL },
	{ "counters", prepare, counters, end, NULL },
	{ "cpu", prepare, cpu, end, NULL },
	{ "violation", prepare_violation, violation, end_memory, NULL },
	{ "faults", prepare, misbehave, end, NULL },
	{ "close", prepare_filled, close_gpu, end_unmirrored, NULL },
	{ 0 },
};

int main(int argc, char **argv)
{
	if (argc < 3)
		return 1;
	device = argv[2];
	begin(NULL);
	sweep(find_operation(operations, argv[1]));
	tell();
	return 0;
}
