// SPDX-License-Identifier: GPL-2.0
/* In the end: the devices do their work, and nothing is left of what the fuzzer did. */
#include "fuzz.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

static void check_bus(int fd)
{
	struct nullhz_fault_info info;

	if (ioctl(fd, NULLHZ_FAULT_IOC_INFO, &info))
		found("bus: %s", strerror(errno));
	else if (info.abi_version != 1 || info.event_size != sizeof(struct nullhz_fault_event))
		found("bus: version %u, records of %u bytes", info.abi_version, info.event_size);
}

static void check_watchdog(int fd)
{
	struct nullhz_stall_register registration = {
		.rank = 77, .name = "after", .deadline_ms = { 60000, 60000, 60000, 60000, 60000 },
	};
	struct nullhz_stall_info info = {};
	struct nullhz_stall_page *page;
	uint64_t sampled;
	int tries;

	/* What was killed takes a moment to be gone. */
	for (tries = 0; tries < 100; tries++) {
		if (ioctl(fd, NULLHZ_STALL_IOC_INFO, &info) || !info.ranks)
			break;
		usleep(100000);
	}
	if (info.abi_version != 1 || info.ranks)
		found("watchdog: version %u, %u ranks left", info.abi_version, info.ranks);
	if (ioctl(fd, NULLHZ_STALL_IOC_REGISTER, &registration))
		return found("watchdog: REGISTER: %s", strerror(errno));
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return found("watchdog: mmap: %s", strerror(errno));
	sampled = __atomic_load_n(&page->sampled_ns, __ATOMIC_RELAXED);
	for (tries = 0; tries < 100; tries++) {
		if (__atomic_load_n(&page->sampled_ns, __ATOMIC_RELAXED) != sampled)
			break;
		usleep(50000);
	}
	if (tries == 100)
		found("watchdog: nobody looks at the page");
	if (ioctl(fd, NULLHZ_STALL_IOC_LEAVE))
		found("watchdog: LEAVE: %s", strerror(errno));
	munmap(page, PAGE);
}

static void check_gpu(int fd, enum device device)
{
	struct nullhz_soft_gpu_faults faults = {};
	uint64_t *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0);
	struct nullhz_soft_gpu_range range = { .start = (uintptr_t)memory, .length = PAGE };
	struct nullhz_soft_gpu_access access = { .address = (uintptr_t)memory };
	const char *path = device_path[device];

	/* For the device, not the file: the fuzzer may have left some. */
	if (device == GPU && ioctl(fd, NULLHZ_SOFT_GPU_IOC_FAULTS, &faults))
		found("%s: FAULTS: %s", path, strerror(errno));
	memory[0] = NULLHZ_SOFT_GPU_MAGIC;
	memory[1] = 42;
	if (ioctl(fd, NULLHZ_SOFT_GPU_IOC_REGISTER, &range))
		found("%s: REGISTER: %s", path, strerror(errno));
	if (ioctl(fd, NULLHZ_SOFT_GPU_IOC_ACCESS, &access))
		found("%s: ACCESS: %s", path, strerror(errno));
	else if (access.outcome == NULLHZ_SOFT_GPU_REFUSED || access.stamp.owner != 42)
		found("%s: outcome %u, owner %llu", path, access.outcome,
		      (unsigned long long)access.stamp.owner);
	munmap(memory, PAGE);
	/* The memory is gone, and so it is for the device. */
	memset(&access, 0, sizeof(access));
	access.address = range.start;
	if (!ioctl(fd, NULLHZ_SOFT_GPU_IOC_ACCESS, &access) &&
	    access.outcome != NULLHZ_SOFT_GPU_REFUSED)
		found("%s: sees what was unmapped", path);
}

void check_devices(void)
{
	enum device device;

	for (device = 0; device < DEVICES; device++) {
		int fd = open(device_path[device], O_RDWR | O_NONBLOCK | O_CLOEXEC);

		if (fd < 0)
			fd = open(device_path[device], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0) {
			found("%s: %s", device_path[device], strerror(errno));
			continue;
		}
		if (device == FAULT)
			check_bus(fd);
		else if (device == STALL)
			check_watchdog(fd);
		else
			check_gpu(fd, device);
		close(fd);
	}
}
