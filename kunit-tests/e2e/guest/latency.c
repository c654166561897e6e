// SPDX-License-Identifier: GPL-2.0
/*
 * latency ROUNDS TRACE_PIPE [SPIN_MS] - from a machine-check record to a reader
 * that is awake: through the fault bus, and through the tracepoint
 *
 * Every round logs one corrected error with mce-inject (debugfs, "sw"), at an
 * address of its own. Two threads wait for it, one on the bus, one on TRACE_PIPE
 * (of an instance with mce:mce_record on and buffer_percent 0, so that every
 * record wakes its reader). Both are SCHED_FIFO 60, so that what is measured is
 * the path up to them.
 *
 * With SPIN_MS, a SCHED_FIFO 50 thread spins on each CPU that this program may
 * run on, from before the error until SPIN_MS after it.
 *
 * Prints a line for each round: nanoseconds from the injection until the bus
 * reader was awake, and until the tracepoint's was; 0: the record never came.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "guest.h"

#define INJECT "/sys/kernel/debug/mce-inject/"
/* Corrected, memory read on channel 0, address valid; far above any RAM. */
#define STATUS "0x8c00004000010090"
#define FIRST_ADDR 0x7e0000000000ull
#define MAX_ROUNDS 10000

static _Atomic uint64_t start[MAX_ROUNDS], bus[MAX_ROUNDS], trace[MAX_ROUNDS];
static unsigned int rounds;
static atomic_bool spinning;

static void realtime(int priority)
{
	struct sched_param param = { .sched_priority = priority };

	CHECK(sched_setscheduler(0, SCHED_FIFO, &param));
}

/* Notes the time at which the record of @addr was seen. */
static void seen(_Atomic uint64_t *when, uint64_t addr, uint64_t awake)
{
	uint64_t round = (addr - FIRST_ADDR) >> 12;
	uint64_t none = 0;

	if (addr >= FIRST_ADDR && round < rounds)
		atomic_compare_exchange_strong(&when[round], &none, awake);
}

static void *bus_reader(void *unused)
{
	struct pollfd waiting = { .fd = open_bus(NULLHZ_FAULT_WATCH), .events = POLLIN };
	static struct nullhz_fault_event events[64];

	(void)unused;
	realtime(60);
	for (;;) {
		ssize_t length;
		uint64_t awake;

		CHECK(poll(&waiting, 1, -1));
		awake = now_ns();
		length = read(waiting.fd, events, sizeof(events));
		for (size_t i = 0; length > 0 && i < length / sizeof(events[0]); i++) {
			struct nullhz_fault_mce mce;

			if (events[i].source != NULLHZ_FAULT_SRC_MCE)
				continue;
			memcpy(&mce, events[i].payload, sizeof(mce));
			seen(bus, mce.addr, awake);
		}
	}
}

static void *trace_reader(void *path)
{
	struct pollfd waiting = { .events = POLLIN };
	static char text[65536];

	waiting.fd = CHECK(open(path, O_RDONLY | O_NONBLOCK));
	realtime(60);
	for (;;) {
		ssize_t length;
		uint64_t awake;
		char *at;

		CHECK(poll(&waiting, 1, -1));
		awake = now_ns();
		length = read(waiting.fd, text, sizeof(text) - 1);
		text[length > 0 ? length : 0] = 0;
		for (at = text; (at = strstr(at, "ADDR: ")); at++)
			seen(trace, strtoull(at + 6, NULL, 16), awake);
	}
}

static void *spinner(void *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((uintptr_t)cpu, &set);
	CHECK(sched_setaffinity(0, sizeof(set), &set));
	realtime(50);
	for (;;) {
		while (atomic_load(&spinning))
			;
		usleep(1000);
	}
}

static void thread(void *(*run)(void *), void *argument)
{
	pthread_t id;

	if (pthread_create(&id, NULL, run, argument)) {
		fprintf(stderr, "pthread_create failed\n");
		exit(1);
	}
}

static int file(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), INJECT "%s", name);
	return CHECK(open(path, O_WRONLY));
}

static void set(int fd, const char *value)
{
	CHECK(write(fd, value, strlen(value)));
}

int main(int argc, char **argv)
{
	unsigned int spin_ms = argc > 3 ? atoi(argv[3]) : 0;
	cpu_set_t cpus;
	int status, misc, addr, bank;

	if (argc < 3 || (rounds = atoi(argv[1])) < 1 || rounds > MAX_ROUNDS)
		return 1;
	CHECK(mlockall(MCL_CURRENT | MCL_FUTURE));
	CHECK(sched_getaffinity(0, sizeof(cpus), &cpus));
	/* Its last character is taken for a newline. */
	set(file("flags"), "sw\n");
	status = file("status");
	misc = file("misc");
	addr = file("addr");
	bank = file("bank");
	thread(bus_reader, NULL);
	thread(trace_reader, argv[2]);
	for (uintptr_t cpu = 0; spin_ms && cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &cpus))
			thread(spinner, (void *)cpu);
	realtime(70);
	usleep(200000);
	for (unsigned int i = 0; i < rounds; i++) {
		char text[32];

		snprintf(text, sizeof(text), "0x%llx", FIRST_ADDR + ((unsigned long long)i << 12));
		/* mce-inject forgets all of them with every record. */
		set(status, STATUS);
		set(misc, "0x86");
		set(addr, text);
		if (spin_ms) {
			atomic_store(&spinning, true);
			usleep(20000);
		}
		atomic_store(&start[i], now_ns());
		set(bank, "7");
		usleep(spin_ms * 1000);
		atomic_store(&spinning, false);
		usleep(spin_ms ? 100000 : 20000);
	}
	usleep(500000);
	for (unsigned int i = 0; i < rounds; i++) {
		uint64_t begun = start[i];

		printf("%" PRIu64 " %" PRIu64 "\n", bus[i] ? bus[i] - begun : 0, trace[i] ? trace[i] - begun : 0);
	}
	return 0;
}
