// SPDX-License-Identifier: GPL-2.0
/*
 * fail_nth OPERATION [ARGUMENT...] - does something over and over, each time with
 * the next one of its allocations and copies from or to user space failing, until
 * there is none left to fail
 *
 * load FILE NAME		a module; it is unloaded after each success
 * unload FILE NAME
 * read FILE, write FILE TEXT	an attribute
 * thread TID			what thread TID of the kernel does when an incident opens
 * or one of `operations` below.
 *
 * What failed is done once more, without a failure, and must succeed. Prints a
 * line of JSON: how many points there were, how often each error came of one, and
 * how often none.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <nullhz/stall.h>

#include "guest.h"

#define STALL "/dev/nullhz-stall"
#define INCIDENT "/sys/class/misc/nullhz-fault/last_incident"
#define GENERATOR "/sys/kernel/debug/nullhz_fault_gen/run"
/* The most that is believed to be an end. */
#define MOST 20000

struct operation {
	const char *name;
	/* Each time anew: what act() works on, and the end of that. */
	void (*prepare)(void);
	/* The system call; its result. */
	long (*act)(void);
	void (*undo)(void);
};

static char **arguments;
static int fd = -1;
static void *mapping;
static uint64_t incident;

/* --- What is done ------------------------------------------------------------- */

static void end(void)
{
	close(fd);
}

static void nothing(void)
{
}

static void find_file(void)
{
	fd = CHECK(open(arguments[0], O_RDONLY | O_CLOEXEC));
}

static void find_file_to_write(void)
{
	fd = CHECK(open(arguments[0], O_WRONLY | O_CLOEXEC));
}

static long load(void)
{
	return syscall(SYS_finit_module, fd, "", 0);
}

static long unload(void)
{
	long result;

	/* Somebody may have its device open for a moment. */
	do {
		result = syscall(SYS_delete_module, arguments[1], O_NONBLOCK);
	} while (result && errno == EWOULDBLOCK && !usleep(1000));
	return result;
}

static void find_and_load(void)
{
	find_file();
	CHECK(load());
}

static void unload_and_end(void)
{
	CHECK(unload());
	end();
}

static long read_file(void)
{
	static char buffer[65536];

	return pread(fd, buffer, sizeof(buffer), 0);
}

static long write_file(void)
{
	return pwrite(fd, arguments[1], strlen(arguments[1]), 0);
}

static long open_fault(void)
{
	return fd = open(DEVICE, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static void prepare_fault(void)
{
	CHECK(open_fault());
}

static long fault_info(void)
{
	struct nullhz_fault_info info;

	return ioctl(fd, NULLHZ_FAULT_IOC_INFO, &info);
}

static long fault_filter(void)
{
	struct nullhz_fault_filter filter = { .source_mask = 1 };

	return ioctl(fd, NULLHZ_FAULT_IOC_FILTER, &filter);
}

static long fault_seek(void)
{
	struct nullhz_fault_seek seek = { .whence = NULLHZ_FAULT_SEEK_OLDEST };

	return ioctl(fd, NULLHZ_FAULT_IOC_SEEK, &seek);
}

static void generate(const char *text)
{
	int run = CHECK(open(GENERATOR, O_WRONLY | O_CLOEXEC));

	CHECK(write(run, text, strlen(text)));
	close(run);
}

static void prepare_events(void)
{
	prepare_fault();
	generate("count=4 level=watch");
	/* The bus thread numbers them. */
	usleep(20000);
}

static long fault_read(void)
{
	static char events[8 * NULLHZ_FAULT_EVENT_SIZE];

	return read(fd, events, sizeof(events));
}

static long fault_poll(void)
{
	struct pollfd wanted = { .fd = fd, .events = POLLIN | POLLPRI };

	return poll(&wanted, 1, 0);
}

static int epoll;

static void prepare_epoll(void)
{
	prepare_fault();
	epoll = CHECK(epoll_create1(EPOLL_CLOEXEC));
}

static long fault_epoll(void)
{
	struct epoll_event wanted = { .events = EPOLLIN };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted);
}

static void end_epoll(void)
{
	close(epoll);
	end();
}

static long fault_signals(void)
{
	return fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC);
}

/* The one that nobody has acknowledged. */
static void find_incident(void)
{
	char text[32] = "";
	int last = CHECK(open(INCIDENT, O_RDONLY | O_CLOEXEC));

	CHECK(read(last, text, sizeof(text) - 1));
	close(last);
	incident = strtoull(text, NULL, 10);
}

static void prepare_incident(void)
{
	prepare_fault();
	generate("count=1 level=imminent");
	/* The bus thread opens it. */
	usleep(20000);
	find_incident();
}

static long fault_ack(void)
{
	struct nullhz_fault_ack ack = { .incident = incident, .snapshot_id = 1 };

	return ioctl(fd, NULLHZ_FAULT_IOC_ACK, &ack);
}

static void end_acknowledged(void)
{
	fault_ack();
	end();
}

static long fault_incident(void)
{
	struct nullhz_fault_incident asked = { .incident = incident };

	return ioctl(fd, NULLHZ_FAULT_IOC_INCIDENT, &asked);
}

static long open_stall(void)
{
	return fd = open(STALL, O_RDWR | O_CLOEXEC);
}

static void prepare_stall(void)
{
	CHECK(open_stall());
}

static long stall_info(void)
{
	struct nullhz_stall_info info;

	return ioctl(fd, NULLHZ_STALL_IOC_INFO, &info);
}

static long stall_register(void)
{
	struct nullhz_stall_register rank = { .rank = 7, .name = "sweep" };

	return ioctl(fd, NULLHZ_STALL_IOC_REGISTER, &rank);
}

static void prepare_rank(void)
{
	prepare_stall();
	CHECK(stall_register());
}

static long stall_grace(void)
{
	struct nullhz_stall_grace grace = { .ms = 1000 };

	return ioctl(fd, NULLHZ_STALL_IOC_GRACE, &grace);
}

static long stall_leave(void)
{
	return ioctl(fd, NULLHZ_STALL_IOC_LEAVE);
}

static void end_rank(void)
{
	CHECK(stall_leave());
	end();
}

static long stall_checkpoint(void)
{
	struct nullhz_stall_checkpoint checkpoint;

	return ioctl(fd, NULLHZ_STALL_IOC_CHECKPOINT, &checkpoint);
}

static uint32_t request;

static void prepare_request(void)
{
	struct nullhz_stall_checkpoint checkpoint;

	prepare_rank();
	CHECK(ioctl(fd, NULLHZ_STALL_IOC_CHECKPOINT, &checkpoint));
	request = checkpoint.request;
}

static long stall_answers(void)
{
	struct nullhz_stall_checkpoint asked = { .request = request };

	return ioctl(fd, NULLHZ_STALL_IOC_ANSWERS, &asked);
}

static long stall_rank(void)
{
	struct nullhz_stall_rank asked = { .index = 0 };

	return ioctl(fd, NULLHZ_STALL_IOC_RANK, &asked);
}

static long stall_map(void)
{
	mapping = mmap(NULL, NULLHZ_STALL_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return mapping == MAP_FAILED ? -1 : 0;
}

static void end_mapping(void)
{
	/* It is there, and it is the page that the kernel looks at. */
	volatile struct nullhz_stall_page *page = mapping;

	page->step = 1;
	CHECK(munmap(mapping, NULLHZ_STALL_PAGE_SIZE));
	end_rank();
}

/* What the bus thread does then fails, and nothing here. It helps those without readers. */
static long open_incident(void)
{
	generate("count=1 level=imminent");
	usleep(300000);
	return 0;
}

static void acknowledge(void)
{
	prepare_fault();
	find_incident();
	end_acknowledged();
}

static const struct operation operations[] = {
	{ "load", find_file, load, unload_and_end },
	{ "unload", find_and_load, unload, end },
	{ "read", find_file, read_file, end },
	{ "write", find_file_to_write, write_file, end },
	{ "thread", nothing, open_incident, acknowledge },
	{ "fault open", nothing, open_fault, end },
	{ "fault info", prepare_fault, fault_info, end },
	{ "fault filter", prepare_fault, fault_filter, end },
	{ "fault seek", prepare_fault, fault_seek, end },
	{ "fault read", prepare_events, fault_read, end },
	{ "fault poll", prepare_fault, fault_poll, end },
	{ "fault epoll", prepare_epoll, fault_epoll, end_epoll },
	{ "fault signals", prepare_fault, fault_signals, end },
	{ "fault ack", prepare_incident, fault_ack, end },
	{ "fault incident", prepare_incident, fault_incident, end_acknowledged },
	{ "stall open", nothing, open_stall, end },
	{ "stall info", prepare_stall, stall_info, end },
	{ "stall register", prepare_stall, stall_register, end_rank },
	{ "stall grace", prepare_rank, stall_grace, end_rank },
	{ "stall leave", prepare_rank, stall_leave, end },
	{ "stall checkpoint", prepare_rank, stall_checkpoint, end_rank },
	{ "stall answers", prepare_request, stall_answers, end_rank },
	{ "stall rank", prepare_rank, stall_rank, end_rank },
	{ "stall map", prepare_rank, stall_map, end_mapping },
};

/* --- The failures ------------------------------------------------------------- */

static int failing;

static void fail(unsigned int number)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%u", number);

	/* Reading this very number may be what fails. */
	while (write(failing, text, length) < 0)
		;
}

/* Ends the failures; whether there was one. */
static bool failed(void)
{
	char text[16] = "";
	/* Handing over the number is a point, too: then it was still to come. */
	bool done = pread(failing, text, sizeof(text) - 1, 0) > 0 && !strtoul(text, NULL, 10);

	fail(0);
	return done;
}

static int counts[4096];

static void sweep(const struct operation *operation)
{
	int points, survived = 0;

	for (points = 0;; points++) {
		int error = 0;
		bool injected;

		if (points == MOST) {
			fprintf(stderr, "no end after %d points\n", points);
			exit(1);
		}
		operation->prepare();
		fail(points + 1);
		if (operation->act() < 0)
			error = errno;
		injected = failed();
		if (!injected && error) {
			fprintf(stderr, "without a failure: %s\n", strerror(error));
			exit(1);
		}
		if (error && operation->act == load) {
			/* That takes long: the next round shows that it works all the same. */
			end();
			counts[error]++;
			continue;
		}
		if (error && operation->act() < 0) {
			fprintf(stderr, "after %s at point %d: %s\n", strerrorname_np(error), points + 1,
				strerror(errno));
			exit(1);
		}
		operation->undo();
		if (!injected)
			break;
		if (error)
			counts[error]++;
		else
			survived++;
	}
	printf("{\"points\": %d, \"survived\": %d, \"errors\": {", points, survived);
	for (int error = 0, comma = 0; error < 4096; error++)
		if (counts[error])
			printf("%s\"%s\": %d", comma++ ? ", " : "", strerrorname_np(error), counts[error]);
	printf("}}\n");
}

int main(int argc, char **argv)
{
	char path[64] = "/proc/thread-self/fail-nth";

	if (argc < 2)
		return 1;
	arguments = argv + 2;
	if (!strcmp(argv[1], "thread"))
		snprintf(path, sizeof(path), "/proc/%s/fail-nth", argc > 2 ? argv[2] : "");
	failing = CHECK(open(path, O_RDWR | O_CLOEXEC));
	/* No page of ours is to be fetched meanwhile. */
	CHECK(mlockall(MCL_CURRENT | MCL_FUTURE));
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
		if (!strcmp(operations[i].name, argv[1])) {
			sweep(&operations[i]);
			return 0;
		}
	}
	return 1;
}
