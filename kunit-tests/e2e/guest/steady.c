// SPDX-License-Identifier: GPL-2.0
/*
 * steady NUMBER SECONDS - a training rank that does nothing but heartbeats
 *
 * Stores its step as fast as it can, into the page of rank NUMBER or, if that is
 * negative or /dev/nullhz-stall is not there, into memory of its own. Prints as
 * JSON the longest time between two of them, ns, how many took longer than
 * 100 us and 1 ms, and how often it lost the CPU involuntarily.
 */
#include <sys/mman.h>
#include <sys/resource.h>

#include <nullhz/stall.h>

#include "guest.h"

static volatile struct nullhz_stall_page own;

static volatile struct nullhz_stall_page *register_rank(int number)
{
	struct nullhz_stall_register rank = { .rank = number, .name = "steady" };
	void *page;
	int device;

	if (number < 0)
		return &own;
	device = open("/dev/nullhz-stall", O_RDWR | O_CLOEXEC);
	if (device < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		return &own;
	CHECK(device);
	CHECK(ioctl(device, NULLHZ_STALL_IOC_REGISTER, &rank));
	page = mmap(NULL, NULLHZ_STALL_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
	if (page == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return page;
}

int main(int argc, char **argv)
{
	volatile struct nullhz_stall_page *page;
	uint64_t now, last, end, longest = 0, over_100us = 0, over_1ms = 0;
	struct rusage before, after;

	if (argc != 3)
		return 1;
	page = register_rank(atoi(argv[1]));
	page->phase = NULLHZ_STALL_PHASE_STEP;
	CHECK(getrusage(RUSAGE_SELF, &before));
	last = now_ns();
	end = last + atoi(argv[2]) * 1000000000ull;
	do {
		page->step++;
		now = now_ns();
		if (now - last > longest)
			longest = now - last;
		over_100us += now - last > 100000;
		over_1ms += now - last > 1000000;
		last = now;
	} while (now < end);
	CHECK(getrusage(RUSAGE_SELF, &after));
	printf("{\"watched\": %s, \"longest_ns\": %" PRIu64 ", \"over_100us\": %" PRIu64
	       ", \"over_1ms\": %" PRIu64 ", \"switches\": %ld}\n",
	       page == &own ? "false" : "true", longest, over_100us, over_1ms,
	       after.ru_nivcsw - before.ru_nivcsw);
	return 0;
}
