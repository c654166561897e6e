// SPDX-License-Identifier: GPL-2.0
/*
 * tally SOURCE IDLE_MS [BATCH [PAUSE_US]] - accounts for every record of a source
 *
 * Reads until nothing comes for IDLE_MS after the first record. A pause after
 * every read makes it a slow reader. Whatever is missing between two sequence
 * numbers must be what the later record calls lost: the bus's own records are
 * filtered out, so this only holds while no other source reports, and "gap"
 * sums up what is not explained.
 */
#include <poll.h>

#include "guest.h"

#define MAX_BATCH 1024

static struct nullhz_fault_event events[MAX_BATCH];

int main(int argc, char **argv)
{
	struct nullhz_fault_filter filter = { 0 };
	struct nullhz_fault_seek seek = { .whence = NULLHZ_FAULT_SEEK_NEWEST };
	struct nullhz_fault_info info;
	uint64_t records = 0, occurrences = 0, lost = 0, reads = 0, gap = 0, backwards = 0, last;
	size_t batch = argc > 3 ? strtoul(argv[3], NULL, 0) : 64;
	unsigned int pause = argc > 4 ? strtoul(argv[4], NULL, 0) : 0;
	struct pollfd waiting = { .events = POLLIN };
	int idle;

	if (argc < 3 || !batch || batch > MAX_BATCH)
		return 1;
	filter.source_mask = 1ull << strtoul(argv[1], NULL, 0);
	idle = atoi(argv[2]);
	waiting.fd = CHECK(open(DEVICE, O_RDONLY | O_NONBLOCK));
	CHECK(ioctl(waiting.fd, NULLHZ_FAULT_IOC_FILTER, &filter));
	CHECK(ioctl(waiting.fd, NULLHZ_FAULT_IOC_SEEK, &seek));
	CHECK(ioctl(waiting.fd, NULLHZ_FAULT_IOC_INFO, &info));
	last = info.head_seq;
	printf("ready\n");
	fflush(stdout);
	while (CHECK(poll(&waiting, 1, records || lost ? idle : 60000))) {
		ssize_t length = read(waiting.fd, events, batch * sizeof(events[0]));

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
				gap += event->seq - last - 1 - event->lost;
			last = event->seq;
		}
		if (pause)
			usleep(pause);
	}
	CHECK(ioctl(waiting.fd, NULLHZ_FAULT_IOC_INFO, &info));
	printf("{\"records\": %" PRIu64 ", \"occurrences\": %" PRIu64 ", \"lost\": %" PRIu64
	       ", \"reads\": %" PRIu64 ", \"gap\": %" PRIu64 ", \"backwards\": %" PRIu64
	       ", \"last_seq\": %" PRIu64 ", \"head_seq\": %llu}\n",
	       records, occurrences, lost, reads, gap, backwards, last, info.head_seq);
	return 0;
}
