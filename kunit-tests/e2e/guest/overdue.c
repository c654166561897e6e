// SPDX-License-Identifier: GPL-2.0
/*
 * overdue rank DEADLINE_MS ROUNDS	of the stall watchdog's STALLED
 * overdue softdog DEVICE ROUNDS	of softdog, loaded with soft_noboot=1
 * overdue hung DIRECTORY ROUNDS	of hung_task; freezes the filesystem
 *
 * How long from the last sign of life until somebody is told: for each round a
 * line with the ns from the last heartbeat (store, keepalive; for "hung" the
 * call that hangs) until a reader is awake. For "rank" a second number is the
 * time until the event was made in the kernel.
 */
#include <linux/fs.h>
#include <linux/watchdog.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>

#include <nullhz/stall.h>

#include "guest.h"

/* How the program's own moment falls into the period of who watches is chance. */
static void wait_a_little(void)
{
	usleep(50000 + rand() % 20000);
}

static struct nullhz_fault_event wait_event(int bus, uint16_t kind, uint64_t *awake_ns)
{
	struct pollfd waiting = { .fd = bus, .events = POLLIN };
	struct nullhz_fault_event event;

	for (;;) {
		if (!CHECK(poll(&waiting, 1, 30000))) {
			fprintf(stderr, "no event of kind %u within 30 s\n", kind);
			exit(1);
		}
		*awake_ns = now_ns();
		while (read(bus, &event, sizeof(event)) == sizeof(event))
			if (event.source == NULLHZ_FAULT_SRC_STALL && event.kind == kind)
				return event;
	}
}

static void rank(unsigned int deadline_ms, int rounds)
{
	struct nullhz_stall_register rank = { .rank = 0, .name = "overdue" };
	volatile struct nullhz_stall_page *page;
	int device = CHECK(open("/dev/nullhz-stall", O_RDWR | O_CLOEXEC));
	int bus = open_bus(NULLHZ_FAULT_WATCH);
	uint64_t last, awake;

	rank.deadline_ms[NULLHZ_STALL_PHASE_STEP] = deadline_ms;
	CHECK(ioctl(device, NULLHZ_STALL_IOC_REGISTER, &rank));
	page = mmap(NULL, NULLHZ_STALL_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
	if (page == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	page->phase = NULLHZ_STALL_PHASE_STEP;
	while (rounds--) {
		wait_a_little();
		last = now_ns();
		page->step++;
		struct nullhz_fault_event event = wait_event(bus, NULLHZ_STALL_EV_STALLED, &awake);

		printf("%" PRIu64 " %" PRIu64 "\n", awake - last,
		       (uint64_t)event.mono_ns - last);
		page->step++;
		wait_event(bus, NULLHZ_STALL_EV_RECOVERED, &awake);
	}
	CHECK(ioctl(device, NULLHZ_STALL_IOC_LEAVE));
}

/* Waits for a line of the kernel's log; its reader is what a monitor would be. */
static uint64_t wait_log(int log, const char *text)
{
	struct pollfd waiting = { .fd = log, .events = POLLIN };
	char line[2048];

	for (;;) {
		if (!CHECK(poll(&waiting, 1, 30000))) {
			fprintf(stderr, "no \"%s\" in the kernel's log within 30 s\n", text);
			exit(1);
		}
		uint64_t awake = now_ns();
		ssize_t size = read(log, line, sizeof(line) - 1);

		if (size < 0 && errno == EPIPE)
			continue;
		CHECK(size);
		line[size] = 0;
		if (strstr(line, text))
			return awake;
	}
}

static int open_log(void)
{
	int log = CHECK(open("/dev/kmsg", O_RDONLY | O_CLOEXEC));

	CHECK(lseek(log, 0, SEEK_END));
	return log;
}

static void softdog(const char *path, int rounds)
{
	int log = open_log();
	int device = CHECK(open(path, O_WRONLY | O_CLOEXEC));
	int shortest = 1;

	CHECK(ioctl(device, WDIOC_SETTIMEOUT, &shortest));
	while (rounds--) {
		wait_a_little();
		uint64_t last = now_ns();

		CHECK(ioctl(device, WDIOC_KEEPALIVE, 0));
		printf("%" PRIu64 "\n", wait_log(log, "softdog: Triggered") - last);
	}
	CHECK(write(device, "V", 1));
}

struct writer {
	int fd;
	uint64_t begun;
};

static void *write_once(void *argument)
{
	struct writer *writer = argument;

	writer->begun = now_ns();
	CHECK(write(writer->fd, "x", 1));
	return NULL;
}

static void hung(const char *directory, int rounds)
{
	int log = open_log();
	int root = CHECK(open(directory, O_RDONLY | O_DIRECTORY));
	struct writer writer;

	writer.fd = CHECK(openat(root, "hung", O_WRONLY | O_CREAT, 0600));
	while (rounds--) {
		pthread_t thread;

		wait_a_little();
		CHECK(ioctl(root, FIFREEZE, 0));
		if (pthread_create(&thread, NULL, write_once, &writer))
			exit(1);
		uint64_t told = wait_log(log, "blocked for more than");

		CHECK(ioctl(root, FITHAW, 0));
		pthread_join(thread, NULL);
		printf("%" PRIu64 "\n", told - writer.begun);
	}
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 1;
	setlinebuf(stdout);
	srand(getpid());
	if (!strcmp(argv[1], "rank"))
		rank(atoi(argv[2]), atoi(argv[3]));
	else if (!strcmp(argv[1], "softdog"))
		softdog(argv[2], atoi(argv[3]));
	else if (!strcmp(argv[1], "hung"))
		hung(argv[2], atoi(argv[3]));
	else
		return 1;
	return 0;
}
