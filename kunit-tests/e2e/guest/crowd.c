// SPDX-License-Identifier: GPL-2.0
/*
 * crowd RANKS SECONDS PID... - ranks that beat, and who looks at them
 *
 * Registers RANKS ranks, each of which beats every 10 ms. Prints as JSON, of
 * SECONDS: the CPU time of the processes PID (the kernel's sampler), and that
 * of a thread that looks at the same pages every 10 ms from user space; percent
 * of one CPU.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <nullhz/stall.h>

#include "guest.h"

#define PERIOD_NS 10000000

struct seat {
	volatile struct nullhz_stall_page *page;
	uint64_t seen;
	uint64_t changed_ns;
};

static struct seat *seats;
static int count;
static atomic_bool ended;

static uint64_t ns_of(clockid_t clock)
{
	struct timespec time;

	CHECK(clock_gettime(clock, &time));
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void take_seat(int number)
{
	struct nullhz_stall_register rank = { .rank = number, .name = "crowd" };
	int device = CHECK(open("/dev/nullhz-stall", O_RDWR | O_CLOEXEC));

	CHECK(ioctl(device, NULLHZ_STALL_IOC_REGISTER, &rank));
	seats[number].page =
		mmap(NULL, NULLHZ_STALL_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
	if (seats[number].page == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	seats[number].page->phase = NULLHZ_STALL_PHASE_STEP;
}

/* Calls act() for every seat, once in a period; the CPU time that it took. */
static uint64_t each_period(void (*act)(struct seat *, uint64_t now))
{
	uint64_t next = now_ns();
	struct timespec until;

	while (!atomic_load(&ended)) {
		next += PERIOD_NS;
		until.tv_sec = next / 1000000000;
		until.tv_nsec = next % 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		uint64_t now = now_ns();

		for (int i = 0; i < count; i++)
			act(&seats[i], now);
	}
	return ns_of(CLOCK_THREAD_CPUTIME_ID);
}

static void beat(struct seat *seat, uint64_t now)
{
	(void)now;
	seat->page->step++;
}

static void look(struct seat *seat, uint64_t now)
{
	uint64_t step = seat->page->step;

	if (step != seat->seen) {
		seat->seen = step;
		seat->changed_ns = now;
	}
}

static void *beats(void *argument)
{
	each_period(beat);
	return argument;
}

static void *looks(void *argument)
{
	*(uint64_t *)argument = each_period(look);
	return NULL;
}

static uint64_t kernel_ns(int argc, char **argv)
{
	uint64_t sum = 0;
	clockid_t clock;

	for (int i = 3; i < argc; i++) {
		if (clock_getcpuclockid(atoi(argv[i]), &clock)) {
			fprintf(stderr, "no process %s\n", argv[i]);
			exit(1);
		}
		sum += ns_of(clock);
	}
	return sum;
}

int main(int argc, char **argv)
{
	struct rlimit files;
	pthread_t beater, looker;
	uint64_t user;

	if (argc < 4)
		return 1;
	count = atoi(argv[1]);
	files.rlim_cur = files.rlim_max = count + 64;
	CHECK(setrlimit(RLIMIT_NOFILE, &files));
	seats = calloc(count, sizeof(*seats));
	for (int i = 0; i < count; i++)
		take_seat(i);
	if (pthread_create(&beater, NULL, beats, NULL) ||
	    pthread_create(&looker, NULL, looks, &user))
		return 1;
	/* The caches are as they will be. */
	sleep(1);
	uint64_t begun = now_ns(), kernel = kernel_ns(argc, argv);

	sleep(atoi(argv[2]));
	uint64_t taken = now_ns() - begun;

	kernel = kernel_ns(argc, argv) - kernel;
	atomic_store(&ended, true);
	pthread_join(looker, NULL);
	pthread_join(beater, NULL);
	/* The looker had that second more. */
	printf("{\"kernel_percent\": %.4f, \"user_percent\": %.4f}\n", 100.0 * kernel / taken,
	       100.0 * user / (taken + 1000000000));
	return 0;
}
