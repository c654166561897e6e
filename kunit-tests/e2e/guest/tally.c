// SPDX-License-Identifier: GPL-2.0
/*
 * tally SOURCE [BATCH [PAUSE_US]] - accounts for every record of a source
 *
 * Reads until SIGTERM, which is sent when all is reported, and then what is left.
 * A pause after every read makes it a slow reader. Prints "ready", then what it
 * read; "others": numbers between its first and last record's, and since it was
 * ready, that neither a record had nor one of those that it was told are lost: the
 * records of other sources.
 */
#include <poll.h>
#include <signal.h>

#include "guest.h"

#define MAX_BATCH 1024
/* How long a signal may go unnoticed, ms. */
#define LOOK_MS 50

static struct nullhz_fault_event events[MAX_BATCH];
static volatile sig_atomic_t complete;

static void on_term(int number)
{
	(void)number;
	complete = 1;
}

/* Whether there is something to read; waits for it unless all is complete. */
static int wait_for_more(int fd)
{
	struct pollfd waiting = { .fd = fd, .events = POLLIN };

	for (;;) {
		/* Looked at first: what was reported before the signal is there by now. */
		int last = complete;
		int found = poll(&waiting, 1, last ? 0 : LOOK_MS);

		if (found < 0 && errno != EINTR) {
			perror("poll");
			exit(1);
		}
		if (found > 0 || last)
			return found > 0;
	}
}

int main(int argc, char **argv)
{
	struct nullhz_fault_filter filter = { 0 };
	struct nullhz_fault_seek seek = { .whence = NULLHZ_FAULT_SEEK_NEWEST };
	struct nullhz_fault_info info;
	uint64_t records = 0, occurrences = 0, lost = 0, reads = 0, others = 0, backwards = 0, last;
	size_t batch = argc > 2 ? strtoul(argv[2], NULL, 0) : 64;
	unsigned int pause = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
	int fd;

	if (argc < 2 || !batch || batch > MAX_BATCH)
		return 1;
	signal(SIGTERM, on_term);
	filter.source_mask = 1ull << strtoul(argv[1], NULL, 0);
	fd = CHECK(open(DEVICE, O_RDONLY | O_NONBLOCK));
	CHECK(ioctl(fd, NULLHZ_FAULT_IOC_FILTER, &filter));
	CHECK(ioctl(fd, NULLHZ_FAULT_IOC_SEEK, &seek));
	CHECK(ioctl(fd, NULLHZ_FAULT_IOC_INFO, &info));
	last = info.head_seq;
	printf("ready\n");
	fflush(stdout);
	while (wait_for_more(fd)) {
		ssize_t length = read(fd, events, batch * sizeof(events[0]));

		if (length < 0) {
			if (errno == EAGAIN)
				continue;
			perror("read");
			return 1;
		}
		if (length == 0 || length % sizeof(events[0])) {
			fprintf(stderr, "read %zd bytes\n", length);
			return 1;
		}
		reads++;
		for (size_t i = 0; i < length / sizeof(events[0]); i++) {
			struct nullhz_fault_event *event = &events[i];

			records++;
			occurrences += event->count;
			lost += event->lost;
			if (event->seq <= last)
				backwards++;
			else
				others += event->seq - last - 1 - event->lost;
			last = event->seq;
		}
		if (pause)
			usleep(pause);
	}
	printf("{\"records\": %" PRIu64 ", \"occurrences\": %" PRIu64 ", \"lost\": %" PRIu64
	       ", \"reads\": %" PRIu64 ", \"others\": %" PRIu64 ", \"backwards\": %" PRIu64
	       ", \"first_seq\": %llu, \"last_seq\": %" PRIu64 "}\n",
	       records, occurrences, lost, reads, others, backwards, info.head_seq, last);
	return 0;
}
