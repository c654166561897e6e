// SPDX-License-Identifier: GPL-2.0
/*
 * hostile WHAT [ARGUMENT...] - everything that a broken or malicious trainer does
 *
 * bytes MS	random bytes all over the page, at full speed
 * steps MS	a step counter that jumps, wraps and goes backwards, every 5 ms
 * maps		tries to map what cannot be mapped
 * many COUNT	registers COUNT ranks, each with a page, and dies with all of them
 * churn MS	registers, maps, leaves or crashes, over and over
 * pass	ends after it has sent its rank's file to a process that lives on
 * exec	becomes another program, which inherits the file but not the page
 * thread	the thread that registered ends, the others go on without a heartbeat
 *
 * Prints a line of JSON with what happened.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <nullhz/stall.h>

#include "guest.h"

#define STALL "/dev/nullhz-stall"

static int join(uint32_t rank)
{
	/* A deadline of 400 ms in every phase: whatever is in the page. */
	struct nullhz_stall_register registration = {
		.rank = rank, .name = "hostile", .deadline_ms = { 400, 400, 400, 400, 400 },
	};
	int fd = open(STALL, O_RDWR);

	if (fd < 0)
		return -1;
	if (ioctl(fd, NULLHZ_STALL_IOC_REGISTER, &registration)) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static volatile struct nullhz_stall_page *map(int fd)
{
	void *page = mmap(NULL, NULLHZ_STALL_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (page == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return page;
}

static uint64_t noise(void)
{
	static uint64_t state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static void bytes(long ms)
{
	int fd = CHECK(join(0));
	volatile uint64_t *words = (volatile uint64_t *)map(fd);
	uint64_t end = now_ns() + ms * 1000000ull, rounds = 0;

	while (now_ns() < end) {
		for (size_t i = 0; i < NULLHZ_STALL_PAGE_SIZE / sizeof(*words); i++)
			words[i] = noise();
		rounds++;
	}
	CHECK(ioctl(fd, NULLHZ_STALL_IOC_LEAVE));
	printf("{\"rounds\": %" PRIu64 "}\n", rounds);
}

static void steps(long ms)
{
	static const uint64_t odd[] = { 0, 1, ~0ull, 0, 1ull << 63, (1ull << 63) - 1, 5, 4, 3, ~0ull - 1, 7 };
	int fd = CHECK(join(0));
	volatile struct nullhz_stall_page *page = map(fd);
	uint64_t end = now_ns() + ms * 1000000ull;

	for (size_t i = 0; now_ns() < end; i++) {
		page->step = odd[i % (sizeof(odd) / sizeof(odd[0]))];
		/* Most of these are no phases. */
		page->phase = i % 7 ? NULLHZ_STALL_PHASE_STEP : (uint32_t)noise();
		usleep(5000);
	}
	CHECK(ioctl(fd, NULLHZ_STALL_IOC_LEAVE));
	printf("{\"ended\": true}\n");
}

static void try(const char *name, size_t length, int protection, int flags, int fd, off_t offset)
{
	void *got = mmap(NULL, length, protection, flags, fd, offset);

	printf("%s\"%s\": \"%s\"", strcmp(name, "none") ? ", " : "{", name,
	       got == MAP_FAILED ? strerrorname_np(errno) : "ok");
	if (got != MAP_FAILED)
		munmap(got, length);
}

static void maps(void)
{
	enum { RW = PROT_READ | PROT_WRITE };
	int none = CHECK(open(STALL, O_RDWR)), fd = CHECK(join(0)), readable;
	volatile struct nullhz_stall_page *page;
	pid_t child;
	int status;

	try("none", 4096, RW, MAP_SHARED, none, 0);
	try("two pages", 8192, RW, MAP_SHARED, fd, 0);
	try("huge", 1ul << 40, RW, MAP_SHARED, fd, 0);
	try("offset", 4096, RW, MAP_SHARED, fd, 4096);
	try("far offset", 4096, RW, MAP_SHARED, fd, 1l << 40);
	try("private", 4096, RW, MAP_PRIVATE, fd, 0);
	try("read only", 4096, PROT_READ, MAP_SHARED, fd, 0);
	try("write only", 4096, PROT_WRITE, MAP_SHARED, fd, 0);
	try("executable", 4096, RW | PROT_EXEC, MAP_SHARED, fd, 0);
	readable = CHECK(open(STALL, O_RDONLY));
	try("file opened for reading", 4096, RW, MAP_SHARED, readable, 0);
	page = map(fd);
	try("again", 4096, RW, MAP_SHARED, fd, 0);
	printf(", \"mprotect exec\": \"%s\"",
	       mprotect((void *)page, 4096, RW | PROT_EXEC) ? strerrorname_np(errno) : "ok");
	printf(", \"mremap larger\": \"%s\"",
	       mremap((void *)page, 4096, 8192, MREMAP_MAYMOVE) == MAP_FAILED ? strerrorname_np(errno) : "ok");
	fflush(stdout);
	child = CHECK(fork());
	if (!child) {
		page->step = 1;
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0));
	printf(", \"child's store\": \"%s\"}\n", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "ok");
	CHECK(ioctl(fd, NULLHZ_STALL_IOC_LEAVE));
}

static void many(long count)
{
	struct rlimit files = { .rlim_cur = count + 100, .rlim_max = count + 100 };
	const char *error = "none";
	long registered = 0, refused = 0;

	CHECK(setrlimit(RLIMIT_NOFILE, &files));
	for (long rank = 0; rank < count; rank++) {
		int fd = join(rank);

		if (fd < 0) {
			error = strerrorname_np(errno);
			refused++;
			continue;
		}
		map(fd)->step = rank;
		registered++;
	}
	printf("{\"registered\": %ld, \"refused\": %ld, \"error\": \"%s\"}\n", registered, refused, error);
}

static void churn(long ms)
{
	uint64_t end = now_ns() + ms * 1000000ull, rounds = 0;

	for (; now_ns() < end; rounds++) {
		volatile struct nullhz_stall_page *page;
		int fd = join(rounds % 7);

		/* The module is being unloaded, or loaded. */
		if (fd < 0)
			continue;
		page = map(fd);
		for (int i = 0; i < 10; i++) {
			page->step++;
			usleep(1000);
		}
		if (rounds & 1)
			CHECK(ioctl(fd, NULLHZ_STALL_IOC_LEAVE));
		munmap((void *)page, NULLHZ_STALL_PAGE_SIZE);
		close(fd);
		/* For whoever unloads the module. */
		usleep(1000);
	}
	printf("{\"rounds\": %" PRIu64 "}\n", rounds);
}

/* A child that gets the file by SCM_RIGHTS and keeps it until it is killed. */
static void pass(void)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 }, byte = 0;
	struct iovec data = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int ends[2], fd;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	if (!CHECK(fork())) {
		CHECK(recvmsg(ends[1], &message, 0));
		CHECK(write(ends[1], "", 1));
		for (;;)
			pause();
	}
	fd = CHECK(join(0));
	map(fd)->step = 1;
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	CHECK(sendmsg(ends[0], &message, 0));
	CHECK(read(ends[0], &byte, 1));
	printf("{\"pid\": %d}\n", getpid());
}

static void *registering_thread(void *page)
{
	*(volatile struct nullhz_stall_page **)page = map(CHECK(join(0)));
	return NULL;
}

static void thread(void)
{
	volatile struct nullhz_stall_page *page;
	pthread_t id;

	if (pthread_create(&id, NULL, registering_thread, &page))
		exit(1);
	pthread_join(id, NULL);
	page->step++;
	printf("{\"pid\": %d}\n", getpid());
	fflush(stdout);
	pause();
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long argument = argc > 2 ? atol(argv[2]) : 0;

	if (!strcmp(what, "bytes")) {
		bytes(argument);
	} else if (!strcmp(what, "steps")) {
		steps(argument);
	} else if (!strcmp(what, "maps")) {
		maps();
	} else if (!strcmp(what, "many")) {
		many(argument);
	} else if (!strcmp(what, "churn")) {
		churn(argument);
	} else if (!strcmp(what, "pass")) {
		pass();
	} else if (!strcmp(what, "thread")) {
		thread();
	} else if (!strcmp(what, "exec")) {
		map(CHECK(join(0)))->step = 1;
		printf("{\"pid\": %d}\n", getpid());
		fflush(stdout);
		execlp("sleep", "sleep", "60", NULL);
		return 1;
	} else {
		return 1;
	}
	return 0;
}
