// SPDX-License-Identifier: GPL-2.0
/*
 * compat - a 32-bit program, without a C library: asks the stall watchdog and
 * the fault bus, registers a rank and maps its page
 *
 * Exit status 0: all that came back has the layout of the headers; else the
 * number of the check that failed.
 */
#include <nullhz/fault.h>
#include <nullhz/stall.h>

enum { READ = 3, OPEN = 5, EXIT = 1, IOCTL = 54, MMAP2 = 192 };

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	/* The sixth argument goes where a compiler needs its frame pointer. */
	long arguments[] = { number, f };
	long result;

	asm volatile("pushl %%ebp\n\t"
		     "movl 4(%%eax), %%ebp\n\t"
		     "movl (%%eax), %%eax\n\t"
		     "int $0x80\n\t"
		     "popl %%ebp"
		     : "=a"(result)
		     : "a"(arguments), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
		     : "memory");
	return result;
}

static void check(int number, int good)
{
	if (!good)
		call(EXIT, number, 0, 0, 0, 0, 0);
}

static long ask(long fd, unsigned long command, void *argument)
{
	return call(IOCTL, fd, command, (long)argument, 0, 0, 0);
}

static long open_device(const char *path, long flags)
{
	long fd = call(OPEN, (long)path, flags, 0, 0, 0, 0);

	check(1, fd >= 0);
	return fd;
}

static void fault_bus(void)
{
	static struct nullhz_fault_event event;
	struct nullhz_fault_info info;
	long fd = open_device("/dev/nullhz-fault", 04000);

	check(2, ask(fd, NULLHZ_FAULT_IOC_INFO, &info) == 0);
	check(3, info.abi_version == NULLHZ_FAULT_ABI_VERSION && info.event_size == sizeof(event));
	check(4, call(READ, fd, (long)&event, sizeof(event), 0, 0, 0) == sizeof(event));
	check(5, event.size == sizeof(event) && event.seq && event.mono_ns);
}

static void stall_watchdog(void)
{
	struct nullhz_stall_register registration = { .rank = 32, .name = "compat" };
	struct nullhz_stall_rank rank = { .index = 0 };
	struct nullhz_stall_info info;
	volatile struct nullhz_stall_page *page;
	long fd = open_device("/dev/nullhz-stall", 2), address;

	check(6, ask(fd, NULLHZ_STALL_IOC_INFO, &info) == 0);
	check(7, info.abi_version == NULLHZ_STALL_ABI_VERSION && info.page_size == NULLHZ_STALL_PAGE_SIZE);
	check(8, ask(fd, NULLHZ_STALL_IOC_REGISTER, &registration) == 0);
	address = call(MMAP2, 0, NULLHZ_STALL_PAGE_SIZE, 3, 1, fd, 0);
	check(9, (unsigned long)address < -4095ul);
	page = (void *)address;
	page->step = 0x123456789abcdefull;
	/* Until the sampler has seen it. */
	for (long tries = 0; tries < 100000000 && !page->sampled_ns; tries++)
		;
	check(10, page->sampled_ns != 0);
	for (long tries = 0; tries < 1000000 && rank.step != page->step; tries++)
		check(11, ask(fd, NULLHZ_STALL_IOC_RANK, &rank) == 0);
	check(12, rank.step == 0x123456789abcdefull && rank.rank == 32 && rank.name[0] == 'c');
	check(13, ask(fd, NULLHZ_STALL_IOC_LEAVE, 0) == 0);
}

void _start(void)
{
	/* Puts events on the bus. */
	stall_watchdog();
	fault_bus();
	call(EXIT, 0, 0, 0, 0, 0, 0);
}
