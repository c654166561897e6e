// SPDX-License-Identifier: GPL-2.0
/*
 * fail_nth OPERATION [ARGUMENT...] - does something over and over, each time with
 * the next one of its allocations and copies from or to user space failing, until
 * there is none left to fail
 *
 * load FILE NAME		a module; it is unloaded after each success
 * unload FILE NAME
 * read FILE..., write FILE...	attributes, one after the other; what is written is
 *				what can be read there
 * thread TID			what thread TID of the kernel does when an incident opens
 * or one of `operations` below.
 *
 * What failed is done once more, without a failure, and must succeed; of a module
 * that could not be loaded nothing is left. Prints a line of JSON: how many points
 * there were, how often each error came of one, and how often none.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include <nullhz/stall.h>

#include "fail_nth.h"

#define STALL "/dev/nullhz-stall"
#define INCIDENT "/sys/class/misc/nullhz-fault/last_incident"
#define GENERATOR "/sys/kernel/debug/nullhz_fault_gen/run"

static char **arguments;
static int fd = -1;
static void *mapping;
static uint64_t incident;

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

/* Where our modules register something, and how that is called. */
static const char *const places[][2] = {
	{ "/dev", "nullhz" },
	{ "/dev", "watchdog" },
	{ "/sys/class/misc", "nullhz" },
	{ "/sys/class/watchdog", "watchdog" },
	{ "/sys/devices/faux", "nullhz" },
	{ "/sys/kernel/debug", "nullhz" },
	{ "/sys/kernel/debug/shrinker", "nullhz" },
	{ "/sys/kernel/tracing/events", "nullhz" },
	{ "/sys/module", "nullhz" },
	/* Threads, by what they are called. */
	{ "/proc", "nullhz" },
	{ NULL, NULL },
};

static void read_comm(const char *pid, char name[256])
{
	char path[300];
	int comm;
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	comm = open(path, O_RDONLY | O_CLOEXEC);
	length = comm < 0 ? 0 : read(comm, name, 255);
	name[length > 0 ? length - 1 : 0] = 0;
	close(comm);
}

/* What is registered, always in the same order. */
static void list_registered(char *text, size_t size)
{
	size_t length = 0;

	text[0] = 0;
	for (size_t i = 0; places[i][0]; i++) {
		DIR *directory = opendir(places[i][0]);
		struct dirent *entry;

		while (directory && (entry = readdir(directory))) {
			char name[256];

			strcpy(name, entry->d_name);
			if (!strcmp(places[i][0], "/proc"))
				read_comm(entry->d_name, name);
			if (!strstr(name, places[i][1]))
				continue;
			length += snprintf(text + length, size - length, "%s/%s\n",
					   places[i][0], name);
			if (length >= size) {
				fprintf(stderr, "too much is registered\n");
				exit(1);
			}
		}
		if (directory)
			closedir(directory);
	}
}

static char registered[16384];

static void find_file_and_list(void)
{
	find_file();
	if (!registered[0])
		list_registered(registered, sizeof(registered));
}

/* Nothing is half there of what could not be loaded. */
static void end_unloaded(void)
{
	static char now[sizeof(registered)];

	/* A thread that has ended is seen for a moment longer. */
	for (int tries = 0;; tries++) {
		list_registered(now, sizeof(now));
		if (!strcmp(now, registered))
			break;
		if (tries == 100) {
			fprintf(stderr, "before:\n%safter a failure:\n%s", registered, now);
			exit(1);
		}
		usleep(20000);
	}
	end();
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

static char contents[4096];
static ssize_t contents_length;

static long write_file(void)
{
	return pwrite(fd, contents, contents_length, 0);
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
	{ "load", find_file_and_list, load, unload_and_end, end_unloaded },
	{ "unload", find_and_load, unload, end, NULL },
	{ "read", find_file, read_file, end, NULL },
	{ "write", find_file_to_write, write_file, end, NULL },
	{ "thread", nothing, open_incident, acknowledge, NULL },
	{ "fault open", nothing, open_fault, end, NULL },
	{ "fault info", prepare_fault, fault_info, end, NULL },
	{ "fault filter", prepare_fault, fault_filter, end, NULL },
	{ "fault seek", prepare_fault, fault_seek, end, NULL },
	{ "fault read", prepare_events, fault_read, end, NULL },
	{ "fault poll", prepare_fault, fault_poll, end, NULL },
	{ "fault epoll", prepare_epoll, fault_epoll, end_epoll, NULL },
	{ "fault signals", prepare_fault, fault_signals, end, NULL },
	{ "fault ack", prepare_incident, fault_ack, end, NULL },
	{ "fault incident", prepare_incident, fault_incident, end_acknowledged, NULL },
	{ "stall open", nothing, open_stall, end, NULL },
	{ "stall info", prepare_stall, stall_info, end, NULL },
	{ "stall register", prepare_stall, stall_register, end_rank, NULL },
	{ "stall grace", prepare_rank, stall_grace, end_rank, NULL },
	{ "stall leave", prepare_rank, stall_leave, end, NULL },
	{ "stall checkpoint", prepare_rank, stall_checkpoint, end_rank, NULL },
	{ "stall answers", prepare_request, stall_answers, end_rank, NULL },
	{ "stall rank", prepare_rank, stall_rank, end_rank, NULL },
	{ "stall map", prepare_rank, stall_map, end_mapping, NULL },
	{ 0 },
};

/* For each one of the files; that of an empty attribute is not written to. */
static void sweep_files(const struct operation *operation, bool writing)
{
	for (; arguments[0]; arguments++) {
		if (writing) {
			find_file();
			contents_length = CHECK(read(fd, contents, sizeof(contents)));
			end();
			if (!contents_length)
				continue;
		}
		sweep(operation);
	}
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	const struct operation *operation = find_operation(operations, name);

	arguments = argv + 2;
	begin(strcmp(name, "thread") ? NULL : arguments[0]);
	if (!strcmp(name, "read") || !strcmp(name, "write"))
		sweep_files(operation, !strcmp(name, "write"));
	else
		sweep(operation);
	tell();
	return 0;
}
