// SPDX-License-Identifier: GPL-2.0
/*
 * waiter sigio|epoll|uring [SECONDS] - waits for an IMMINENT event in one of the
 * ways that user space has, and says what woke it
 *
 * Prints "ready", then one line of JSON: the signal's or poll's urgency bits,
 * the event's sequence number and level, and how long after the event the
 * program was awake. Exit status 2: nothing came.
 */
#define _GNU_SOURCE
#include <linux/io_uring.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "guest.h"

static struct timespec patience = { .tv_sec = 60 };

static void nothing(void)
{
	fprintf(stderr, "nothing came\n");
	exit(2);
}

static void ready(void)
{
	printf("ready\n");
	fflush(stdout);
}

/* F_SETSIG: a real-time signal that carries the file and why. */
static unsigned int wait_sigio(int fd)
{
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL));
	CHECK(fcntl(fd, F_SETSIG, SIGRTMIN));
	CHECK(fcntl(fd, F_SETOWN, getpid()));
	CHECK(fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC));
	ready();
	/* Others may have something to say that can wait: that is a signal as well. */
	do {
		if (sigtimedwait(&set, &info, &patience) != SIGRTMIN)
			nothing();
		if (info.si_fd != fd) {
			fprintf(stderr, "a signal of file %d, not %d\n", info.si_fd, fd);
			exit(1);
		}
	} while (!(info.si_band & POLLPRI));
	return info.si_band;
}

/* EPOLLPRI alone: what is not urgent does not wake. */
static unsigned int wait_epoll(int fd)
{
	struct epoll_event event = { .events = EPOLLPRI | EPOLLET };
	int set = CHECK(epoll_create1(EPOLL_CLOEXEC));

	CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
	ready();
	if (!CHECK(epoll_wait(set, &event, 1, patience.tv_sec * 1000)))
		nothing();
	return event.events;
}

static unsigned int wait_uring(int fd)
{
	struct io_uring_params params = { 0 };
	struct __kernel_timespec timeout = { .tv_sec = patience.tv_sec };
	struct io_uring_getevents_arg arg = { .ts = (uintptr_t)&timeout };
	int ring = CHECK((int)syscall(__NR_io_uring_setup, 4, &params));
	size_t size = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
	size_t cq_size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	char *rings;
	int result;

	if (!(params.features & IORING_FEAT_SINGLE_MMAP) || !(params.features & IORING_FEAT_EXT_ARG)) {
		fprintf(stderr, "io_uring of before Linux 5.11\n");
		exit(1);
	}
	if (size < cq_size)
		size = cq_size;
	rings = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	sqe = mmap(NULL, params.sq_entries * sizeof(*sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		   IORING_OFF_SQES);
	if (rings == MAP_FAILED || sqe == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	*sqe = (struct io_uring_sqe){
		.opcode = IORING_OP_POLL_ADD,
		.fd = fd,
		/* io_uring is not woken by a wake-up with a mask for POLLPRI alone. */
		.poll32_events = POLLIN | POLLPRI,
		.user_data = 1,
	};
	*(uint32_t *)(rings + params.sq_off.array) = 0;
	cqe = (struct io_uring_cqe *)(rings + params.cq_off.cqes);
	/* It may complete with the mask of a wake-up that was for other readers: then once more. */
	for (unsigned int turn = 0;; turn++) {
		atomic_store((_Atomic uint32_t *)(rings + params.sq_off.tail), turn + 1);
		CHECK(syscall(__NR_io_uring_enter, ring, 1, 0, 0, NULL, 0));
		if (!turn)
			ready();
		if (syscall(__NR_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
			    &arg, sizeof(arg)) < 0) {
			if (errno == ETIME)
				nothing();
			perror("io_uring_enter");
			exit(1);
		}
		result = cqe[turn % params.cq_entries].res;
		if (result < 0) {
			fprintf(stderr, "completion: %s\n", strerror(-result));
			exit(1);
		}
		if (result & POLLPRI)
			return result;
		atomic_store((_Atomic uint32_t *)(rings + params.cq_off.head), turn + 1);
	}
}

int main(int argc, char **argv)
{
	struct nullhz_fault_event event;
	unsigned int band;
	uint64_t awake;
	int fd;

	if (argc < 2)
		return 1;
	if (argc > 2)
		patience.tv_sec = atoi(argv[2]);
	/* As io_uring waits for all that can be read, that must be what is urgent. */
	fd = open_bus(strcmp(argv[1], "uring") ? NULLHZ_FAULT_WATCH : NULLHZ_FAULT_IMMINENT);
	if (!strcmp(argv[1], "sigio"))
		band = wait_sigio(fd);
	else if (!strcmp(argv[1], "epoll"))
		band = wait_epoll(fd);
	else if (!strcmp(argv[1], "uring"))
		band = wait_uring(fd);
	else
		return 1;
	awake = now_ns();
	do {
		if (CHECK(read(fd, &event, sizeof(event))) != sizeof(event))
			return 1;
	} while (event.level < NULLHZ_FAULT_IMMINENT);
	printf("{\"urgent\": %s, \"seq\": %llu, \"level\": %u, \"wake_ns\": %llu}\n",
	       band & POLLPRI ? "true" : "false", event.seq, event.level,
	       (unsigned long long)awake - event.mono_ns);
	return 0;
}
