// SPDX-License-Identifier: GPL-2.0
/*
 * nullhz-heartbeat-bench [--device PATH] [--rank N] [--watchdog PATH]
 *
 * What a heartbeat costs, beside the ways in which others send one, as JSON: ns
 * per call, the best and the median of some rounds. Without the device the
 * stores go to ordinary memory ("device": null), which costs the same.
 *
 * --watchdog names the watchdog device for the ioctl that feeds it,
 * WDIOC_KEEPALIVE; that device is started by it and stopped at the end (magic
 * close). Without it another cheap ioctl takes its place, and "ioctl" says so.
 */
#include "nullhz_heartbeat.h"

#include <getopt.h>
#include <linux/watchdog.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#define ROUNDS	21

/* What one measured call works on. */
struct subject {
	struct nullhz_heartbeat hb;
	int fd;
	bool watchdog;
	/* What a pickled heartbeat of a Python monitor weighs. */
	char message[128];
};

static void die(const char *what)
{
	fprintf(stderr, "nullhz-heartbeat-bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

/* Nothing is kept in registers, or left out, from one call to the next. */
static inline void barrier(void)
{
	__asm__ volatile("" : : : "memory");
}

static void beats(struct subject *subject, long calls)
{
	for (long i = 0; i < calls; i++) {
		nullhz_beat(&subject->hb, i);
		barrier();
	}
}

static void wanted(struct subject *subject, long calls)
{
	uint32_t any = 0;

	for (long i = 0; i < calls; i++) {
		any |= nullhz_checkpoint_wanted(&subject->hb);
		barrier();
	}
	/* Used, so that the loads are not left out. */
	subject->message[0] = (char)any;
}

static void ioctls(struct subject *subject, long calls)
{
	int bytes;

	for (long i = 0; i < calls; i++) {
		if (subject->watchdog ? ioctl(subject->fd, WDIOC_KEEPALIVE, 0) :
					ioctl(subject->fd, FIONREAD, &bytes))
			die("ioctl");
	}
}

static void eventfds(struct subject *subject, long calls)
{
	uint64_t one = 1;

	for (long i = 0; i < calls; i++)
		if (write(subject->fd, &one, sizeof(one)) != sizeof(one))
			die("eventfd");
}

static void round_trips(struct subject *subject, long calls)
{
	for (long i = 0; i < calls; i++)
		if (write(subject->fd, subject->message, sizeof(subject->message)) < 0 ||
		    read(subject->fd, subject->message, sizeof(subject->message)) <= 0)
			die("socket");
}

static int compare(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

/* Prints one row of the result. */
static void measure(const char *name, void (*run)(struct subject *, long), struct subject *subject,
		    long calls)
{
	double ns[ROUNDS];

	run(subject, calls / 10);
	for (int i = 0; i < ROUNDS; i++) {
		double begun = now_ns();

		run(subject, calls);
		ns[i] = (now_ns() - begun) / calls;
	}
	qsort(ns, ROUNDS, sizeof(ns[0]), compare);
	printf(",\n \"%s\": {\"best\": %.2f, \"median\": %.2f}", name, ns[0], ns[ROUNDS / 2]);
}

/* A monitor process: answers each message, as one that acknowledges heartbeats. */
static pid_t start_monitor(struct subject *subject)
{
	int ends[2];
	ssize_t size;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		die("socketpair");
	/* What is buffered is the parent's to print. */
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		close(ends[0]);
		while ((size = read(ends[1], subject->message, sizeof(subject->message))) > 0)
			if (write(ends[1], subject->message, size) < 0)
				break;
		_exit(0);
	}
	close(ends[1]);
	subject->fd = ends[0];
	return pid;
}

static void bad_usage(void)
{
	fputs("usage: nullhz-heartbeat-bench [--device PATH] [--rank N] [--watchdog PATH]\n",
	      stderr);
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "device", required_argument, NULL, 'd' },
		{ "rank", required_argument, NULL, 'r' },
		{ "watchdog", required_argument, NULL, 'w' },
		{ NULL, 0, NULL, 0 },
	};
	const char *device = NULLHZ_STALL_DEVICE, *watchdog = NULL;
	struct nullhz_stall_register rank;
	struct subject subject = { .fd = -1 };
	unsigned long number = 0;
	int option, pipes[2];
	pid_t monitor;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'd':
			device = optarg;
			break;
		case 'r':
			number = strtoul(optarg, NULL, 10);
			break;
		case 'w':
			watchdog = optarg;
			break;
		default:
			bad_usage();
		}
	}
	if (optind != argc)
		bad_usage();

	rank = nullhz_rank(number, "heartbeat-bench");
	if (nullhz_register_at(&subject.hb, device, &rank)) {
		fprintf(stderr, "nullhz-heartbeat-bench: %s\n", subject.hb.error);
		device = NULL;
	}
	printf("{\"language\": \"c\", \"unit\": \"ns\", \"device\": %s%s%s",
	       device ? "\"" : "", device ? device : "null", device ? "\"" : "");
	nullhz_phase(&subject.hb, NULLHZ_STALL_PHASE_STEP);
	measure("heartbeat", beats, &subject, 20 * 1000 * 1000);
	measure("checkpoint_wanted", wanted, &subject, 20 * 1000 * 1000);
	nullhz_leave(&subject.hb);

	if (watchdog) {
		subject.fd = open(watchdog, O_WRONLY | O_CLOEXEC);
		if (subject.fd < 0)
			die(watchdog);
		subject.watchdog = true;
		printf(",\n \"ioctl\": \"WDIOC_KEEPALIVE\"");
	} else {
		if (pipe(pipes))
			die("pipe");
		subject.fd = pipes[0];
		printf(",\n \"ioctl\": \"FIONREAD of a pipe\"");
	}
	measure("ioctl_call", ioctls, &subject, 100 * 1000);
	if (watchdog && write(subject.fd, "V", 1) != 1)
		die("magic close");
	close(subject.fd);

	subject.fd = eventfd(0, EFD_CLOEXEC);
	if (subject.fd < 0)
		die("eventfd");
	measure("eventfd_write", eventfds, &subject, 100 * 1000);
	close(subject.fd);

	monitor = start_monitor(&subject);
	measure("unix_socket_round_trip", round_trips, &subject, 5 * 1000);
	close(subject.fd);
	waitpid(monitor, NULL, 0);
	puts("}");
	return 0;
}
