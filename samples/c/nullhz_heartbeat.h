/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Heartbeats for the nullhz stall watchdog. All of the client is in this file;
 * README.md shows how to use it. C99 (with POSIX.1-2008) and C++11 or later.
 *
 *	struct nullhz_heartbeat hb;
 *	struct nullhz_stall_register rank = nullhz_rank(0, "my-model");
 *
 *	if (nullhz_register(&hb, &rank))
 *		fprintf(stderr, "%s\n", hb.error);	// and train on without it
 *	nullhz_phase(&hb, NULLHZ_STALL_PHASE_STEP);
 *	for (step = 1; step <= steps; step++) {
 *		train_one_step();
 *		nullhz_beat(&hb, step);
 *	}
 *	nullhz_leave(&hb);
 *
 * Without a watchdog everything here works and does nothing, so that a program
 * needs no second code path for machines that have none.
 *
 * A rank belongs to the process that registered it. A child that fork() makes
 * has a heartbeat that goes nowhere, and does not keep the parent's open.
 * Not so children of vfork() or clone(): they may do nothing with it, as POSIX
 * says of nearly everything.
 */
#ifndef NULLHZ_HEARTBEAT_H
#define NULLHZ_HEARTBEAT_H

/* MADV_DONTFORK; has no effect when another header was included before. */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <nullhz/stall.h>

#if !defined(O_CLOEXEC) || !defined(MADV_DONTFORK)
#error "include this file before other headers, or compile with -D_DEFAULT_SOURCE"
#endif

#define NULLHZ_STALL_DEVICE "/dev/nullhz-stall"

/* One rank of this process. Neither move nor copy it while it is registered. */
struct nullhz_heartbeat {
	struct nullhz_stall_page *page;	/* never NULL once nullhz_register() was called */
	int fd;				/* -1: no watchdog, and .page is .nowhere */
	char error[200];		/* why the last call failed */
	struct nullhz_heartbeat *next;
	struct nullhz_stall_page nowhere;
};

/*
 * The heartbeat: one store. `step` is the number of the step that has just been
 * done; any change of it is progress. Any thread, signal handlers too.
 */
static inline void nullhz_beat(struct nullhz_heartbeat *hb, uint64_t step)
{
	__atomic_store_n(&hb->page->step, step, __ATOMIC_RELAXED);
}

/*
 * Progress within a step, for steps that last long: micro-batches, layers,
 * bytes written. Any change of `progress` counts. Optional.
 */
static inline void nullhz_progress(struct nullhz_heartbeat *hb, uint64_t progress)
{
	__atomic_store_n(&hb->page->progress, progress, __ATOMIC_RELAXED);
}

/*
 * What the rank does from now on, NULLHZ_STALL_PHASE_*: each phase has a
 * deadline of its own. It starts in NULLHZ_STALL_PHASE_INIT.
 */
static inline void nullhz_phase(struct nullhz_heartbeat *hb, uint32_t phase)
{
	__atomic_store_n(&hb->page->phase, phase, __ATOMIC_RELAXED);
}

/*
 * Is a checkpoint wanted now? Two loads, of which the second is of the caller's
 * own cache line. Returns the number of the request, for
 * nullhz_checkpoint_done(), or 0. Ask between steps.
 */
static inline uint32_t nullhz_checkpoint_wanted(const struct nullhz_heartbeat *hb)
{
	uint32_t request = __atomic_load_n(&hb->page->checkpoint_request, __ATOMIC_ACQUIRE);
	uint32_t answered = __atomic_load_n(&hb->page->checkpoint_ack, __ATOMIC_RELAXED);

	return request == answered ? 0 : request;
}

/*
 * The checkpoint that `request` asked for is on disk. Call it after fsync() of
 * the file and of its directory: the node may be reset right afterwards.
 */
static inline void nullhz_checkpoint_done(struct nullhz_heartbeat *hb, uint32_t request)
{
	__atomic_store_n(&hb->page->checkpoint_ack, request, __ATOMIC_RELEASE);
}

/* How the watchdog sees this rank: NULLHZ_STALL_OK.. */
static inline uint32_t nullhz_state(const struct nullhz_heartbeat *hb)
{
	return __atomic_load_n(&hb->page->state, __ATOMIC_RELAXED);
}

/* Does a watchdog see the heartbeats? */
static inline int nullhz_active(const struct nullhz_heartbeat *hb)
{
	return hb->fd >= 0;
}

/*
 * What nullhz_register() wants to know, all of it learned or the module's
 * default. Change .deadline_ms[], .floor_ms, .warmup where that does not fit.
 * .flags = NULLHZ_STALL_F_TELLS_WAITS promises that every wait for other ranks
 * is in NULLHZ_STALL_PHASE_COMM_WAIT; see <nullhz/stall.h> before you do.
 * `rank` is the global rank; `name` tells jobs apart that share a node, 1 to 31
 * characters of printable ASCII.
 */
static inline struct nullhz_stall_register nullhz_rank(uint32_t rank, const char *name)
{
	struct nullhz_stall_register options;
	size_t length = strlen(name);

	memset(&options, 0, sizeof(options));
	options.rank = rank;
	/* One that is too long fills the field, and nullhz_register() says so. */
	memcpy(options.name, name, length < sizeof(options.name) ? length : sizeof(options.name));
	return options;
}

/* --- Implementation ------------------------------------------------------ */

/* The registered ones, for fork(); of this translation unit. */
static struct nullhz_heartbeat *nullhz_heartbeats;
static pthread_mutex_t nullhz_heartbeats_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t nullhz_heartbeats_once = PTHREAD_ONCE_INIT;

static inline void nullhz_before_fork(void)
{
	pthread_mutex_lock(&nullhz_heartbeats_lock);
}

static inline void nullhz_after_fork(void)
{
	pthread_mutex_unlock(&nullhz_heartbeats_lock);
}

/*
 * The child has no mapping (MADV_DONTFORK). It has the open file, though, which
 * is not its to keep: a LEAVE there would be the parent's.
 */
static inline void nullhz_after_fork_in_child(void)
{
	struct nullhz_heartbeat *hb;

	for (hb = nullhz_heartbeats; hb; hb = hb->next) {
		hb->page = &hb->nowhere;
		close(hb->fd);
		hb->fd = -1;
	}
	nullhz_heartbeats = NULL;
	pthread_mutex_unlock(&nullhz_heartbeats_lock);
}

static inline void nullhz_watch_forks(void)
{
	pthread_atfork(nullhz_before_fork, nullhz_after_fork, nullhz_after_fork_in_child);
}

static inline void nullhz_list(struct nullhz_heartbeat *hb)
{
	pthread_once(&nullhz_heartbeats_once, nullhz_watch_forks);
	pthread_mutex_lock(&nullhz_heartbeats_lock);
	hb->next = nullhz_heartbeats;
	nullhz_heartbeats = hb;
	pthread_mutex_unlock(&nullhz_heartbeats_lock);
}

static inline void nullhz_unlist(struct nullhz_heartbeat *hb)
{
	struct nullhz_heartbeat **at;

	pthread_mutex_lock(&nullhz_heartbeats_lock);
	for (at = &nullhz_heartbeats; *at; at = &(*at)->next) {
		if (*at == hb) {
			*at = hb->next;
			break;
		}
	}
	pthread_mutex_unlock(&nullhz_heartbeats_lock);
}

/* Words for an errno, and what to do about it; returns -error. */
static inline int nullhz_failed(struct nullhz_heartbeat *hb, const char *what, const char *advice,
				int error)
{
	snprintf(hb->error, sizeof(hb->error), "%s: %s%s%s", what, strerror(error),
		 *advice ? ": " : "", advice);
	return -error;
}

static inline const char *nullhz_open_advice(int error)
{
	switch (error) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return "is the module nullhz_stall loaded?";
	case EACCES:
	case EPERM:
		return "is the user in the device's group (nullhz)?";
	default:
		return "";
	}
}

static inline const char *nullhz_register_advice(int error)
{
	switch (error) {
	case EEXIST:
		return "another process has this rank of the job: does it have a name of its own?";
	case ENOSPC:
		return "too many ranks on this node";
	case EINVAL:
		return "a name of 1 to 31 printable ASCII characters, flags that the module knows?";
	default:
		return "";
	}
}

/* The steps of nullhz_register(), on an open device. */
static inline int nullhz_register_fd(struct nullhz_heartbeat *hb, int fd,
				     const struct nullhz_stall_register *rank)
{
	struct nullhz_stall_info info;
	void *page;
	int error;

	if (ioctl(fd, NULLHZ_STALL_IOC_INFO, &info))
		return nullhz_failed(hb, "device", "not a stall watchdog's?", errno);
	if (info.abi_version != NULLHZ_STALL_ABI_VERSION ||
	    info.page_size != NULLHZ_STALL_PAGE_SIZE)
		return nullhz_failed(hb, "device", "module and program are of different versions",
				     EPROTO);
	if (!memchr(rank->name, 0, sizeof(rank->name)))
		return nullhz_failed(hb, "rank", "the name has more than 31 characters", EINVAL);
	if (ioctl(fd, NULLHZ_STALL_IOC_REGISTER, rank)) {
		error = errno;
		return nullhz_failed(hb, "rank", nullhz_register_advice(error), error);
	}
	page = mmap(NULL, NULLHZ_STALL_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED) {
		error = errno;
	} else if (madvise(page, NULLHZ_STALL_PAGE_SIZE, MADV_DONTFORK)) {
		error = errno;
		munmap(page, NULLHZ_STALL_PAGE_SIZE);
	} else {
		hb->page = (struct nullhz_stall_page *)page;
		return 0;
	}
	/* It never began: no crash. */
	ioctl(fd, NULLHZ_STALL_IOC_LEAVE);
	return nullhz_failed(hb, "heartbeat page", "", error);
}

/* nullhz_register() with another device than NULLHZ_STALL_DEVICE. */
static inline int nullhz_register_at(struct nullhz_heartbeat *hb, const char *device,
				     const struct nullhz_stall_register *rank)
{
	int fd, error;

	memset(hb, 0, sizeof(*hb));
	hb->page = &hb->nowhere;
	hb->fd = -1;
	fd = open(device, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		error = errno;
		return nullhz_failed(hb, device, nullhz_open_advice(error), error);
	}
	error = nullhz_register_fd(hb, fd, rank);
	if (error) {
		close(fd);
		return error;
	}
	hb->fd = fd;
	nullhz_list(hb);
	return 0;
}

/*
 * Makes this process a rank. Call it from the thread that trains: its state and
 * stack are what is looked at first when the rank stalls. What the rank does
 * until it sets another phase is NULLHZ_STALL_PHASE_INIT.
 *
 * Returns 0, or a negative errno with the reason in hb->error. Heartbeats are
 * allowed in either case.
 */
static inline int nullhz_register(struct nullhz_heartbeat *hb,
				  const struct nullhz_stall_register *rank)
{
	return nullhz_register_at(hb, NULLHZ_STALL_DEVICE, rank);
}

/*
 * No deadline for the next `ms` milliseconds, in whatever phase; 0 ends that.
 * For a pause that is known beforehand and in no phase's deadline. Returns 0
 * (also without a watchdog), or a negative errno: -EINVAL, more than the
 * module's bound.
 */
static inline int nullhz_grace(struct nullhz_heartbeat *hb, uint32_t ms)
{
	struct nullhz_stall_grace grace;
	int error;

	if (!nullhz_active(hb))
		return 0;
	memset(&grace, 0, sizeof(grace));
	grace.ms = ms;
	if (!ioctl(hb->fd, NULLHZ_STALL_IOC_GRACE, &grace))
		return 0;
	error = errno;
	return nullhz_failed(hb, "grace", error == EINVAL ? "longer than the module allows?" : "",
			     error);
}

/*
 * A clean end. A process that ends without it has crashed, as far as the
 * watchdog can tell. No other thread may use `hb` at the same time; afterwards
 * it is as without a watchdog. Returns 0 or a negative errno; the rank is gone
 * in either case.
 */
static inline int nullhz_leave(struct nullhz_heartbeat *hb)
{
	struct nullhz_stall_page *page = hb->page;
	int error = 0;

	if (!nullhz_active(hb))
		return 0;
	nullhz_unlist(hb);
	if (ioctl(hb->fd, NULLHZ_STALL_IOC_LEAVE))
		error = nullhz_failed(hb, "leave", "", errno);
	hb->page = &hb->nowhere;
	munmap(page, NULLHZ_STALL_PAGE_SIZE);
	close(hb->fd);
	hb->fd = -1;
	return error;
}

#endif /* NULLHZ_HEARTBEAT_H */
