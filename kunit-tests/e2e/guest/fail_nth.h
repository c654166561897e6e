/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For programs that do something over and over, each time with the next one of
 * its allocations and copies from or to user space failing, until there is none
 * left to fail: the kernel does that to whoever asks for it by
 * /proc/thread-self/fail-nth.
 */
#ifndef FAIL_NTH_H
#define FAIL_NTH_H

#include <stdbool.h>
#include <sys/mman.h>

#include "guest.h"

/* The most that is believed to be an end. */
#define MOST 20000

struct operation {
	const char *name;
	/* Each time anew: what act() works on, and the end of that. */
	void (*prepare)(void);
	/* The system call; its result. */
	long (*act)(void);
	void (*undo)(void);
	/*
	 * Instead of a second act() and undo() after a failure: for what cannot be
	 * asked for twice, or takes long. That it works all the same is seen in the
	 * next round.
	 */
	void (*give_up)(void);
};

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

/* Of all sweeps of the program. */
static int points, survived, counts[4096];

/*
 * The end is where the call succeeds with its failure still to come: nothing is
 * left then that did not fail in an earlier round.
 */
static void sweep(const struct operation *operation)
{
	for (int number = 1;; number++) {
		int error = 0;
		bool injected;

		if (number > MOST) {
			fprintf(stderr, "no end after %d points\n", MOST);
			exit(1);
		}
		operation->prepare();
		fail(number);
		if (operation->act() < 0)
			error = errno;
		injected = failed();
		if (!injected && error) {
			fprintf(stderr, "without a failure, after %d points: %s\n", number - 1,
				strerror(error));
			exit(1);
		}
		points += injected;
		if (error)
			counts[error]++;
		else
			survived += injected;
		if (error && operation->give_up) {
			operation->give_up();
			continue;
		}
		if (error && operation->act() < 0) {
			fprintf(stderr, "after %s at point %d: %s\n", strerrorname_np(error),
				number, strerror(errno));
			exit(1);
		}
		operation->undo();
		if (!injected)
			return;
	}
}

/* A line of JSON: how many points there were, how often each error came of one, how often none. */
static void tell(void)
{
	const char *between = "";

	printf("{\"points\": %d, \"survived\": %d, \"errors\": {", points, survived);
	for (int error = 0; error < 4096; error++) {
		if (!counts[error])
			continue;
		printf("%s\"%s\": %d", between, strerrorname_np(error), counts[error]);
		between = ", ";
	}
	printf("}}\n");
}

/* Whose allocations and copies fail: those of @tid, or our own. */
static void begin(const char *tid)
{
	char path[64] = "/proc/thread-self/fail-nth";

	if (tid)
		snprintf(path, sizeof(path), "/proc/%s/fail-nth", tid);
	failing = CHECK(open(path, O_RDWR | O_CLOEXEC));
	/* No page of ours is to be fetched meanwhile. */
	CHECK(mlockall(MCL_CURRENT | MCL_FUTURE));
}

static const struct operation *find_operation(const struct operation *operations, const char *name)
{
	for (; operations->name; operations++)
		if (!strcmp(operations->name, name))
			return operations;
	fprintf(stderr, "no such operation: %s\n", name);
	exit(1);
}

#endif
