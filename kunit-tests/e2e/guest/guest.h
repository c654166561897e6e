/* SPDX-License-Identifier: GPL-2.0 */
/* What the programs of this directory share; they run in the node, static. */
#ifndef GUEST_H
#define GUEST_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <nullhz/fault.h>

#define DEVICE "/dev/nullhz-fault"

#define CHECK(call) \
	({ \
		__typeof__(call) __result = (call); \
		if (__result < 0) { \
			fprintf(stderr, "%s: %s\n", #call, strerror(errno)); \
			exit(1); \
		} \
		__result; \
	})

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* Opens the bus; only records of at least @min_level from now on. */
static inline int open_bus(uint32_t min_level)
{
	struct nullhz_fault_filter filter = { .min_level = min_level, .source_mask = ~0ull };
	struct nullhz_fault_seek seek = { .whence = NULLHZ_FAULT_SEEK_NEWEST };
	int fd = CHECK(open(DEVICE, O_RDONLY | O_NONBLOCK | O_CLOEXEC));

	CHECK(ioctl(fd, NULLHZ_FAULT_IOC_FILTER, &filter));
	CHECK(ioctl(fd, NULLHZ_FAULT_IOC_SEEK, &seek));
	return fd;
}

#endif
