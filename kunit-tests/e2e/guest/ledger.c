// SPDX-License-Identifier: GPL-2.0
/*
 * ledger ADDRESS FIRST [FORGET] - the books of a soak: accounts for every record of
 * the bus since it was loaded
 *
 * Two kinds are counted only, as there are many: machine checks at a page of
 * their own each, numbered from ADDRESS (number 0), of which FIRST is the next;
 * and reports of nullhz_fault_gen, which carry a number. Every other record is
 * printed, as a line of JSON. SIGUSR1 makes it read on until nothing is left, and
 * print the account. FORGET: it overlooks the machine check that is so many pages
 * after FIRST, to see that somebody notices.
 */
#include <poll.h>
#include <signal.h>
#include <stdbool.h>

#include <nullhz/stall.h>

#include "guest.h"

#define BATCH 256
#define PAGE_SHIFT 12
/* Numbers that one node's life has room for. */
#define NUMBERS (1u << 22)
#define GENERATORS 4
/* How many of the missing numbers are named. */
#define NAMED 16
#define LOOK_MS 100

static struct nullhz_fault_event events[BATCH];
static unsigned char seen[NUMBERS / 8];
static volatile sig_atomic_t asked;

static struct {
	uint64_t records, lost, gaps, backwards, replayed, dirty, head;
	uint64_t checks, twice, highest;
	struct {
		uint64_t seen, gaps, backwards, next;
	} generators[GENERATORS];
} book;

static void on_usr1(int number)
{
	(void)number;
	asked = 1;
}

/* Whether all that no field covers is 0: nothing of the kernel's memory is in a record. */
static bool is_clean(const struct nullhz_fault_event *event)
{
	for (size_t at = event->payload_len; at < sizeof(event->payload); at++)
		if (event->payload[at])
			return false;
	return !event->pad && event->payload_len <= sizeof(event->payload);
}

static void print_head(const struct nullhz_fault_event *event)
{
	printf("{\"seq\": %llu, \"source\": %u, \"kind\": %u, \"level\": %u, \"flags\": %u, \"count\": %u, "
	       "\"incident\": %llu, \"mono_ns\": %llu",
	       event->seq, event->source, event->kind, event->level, event->flags, event->count,
	       event->incident, event->mono_ns);
}

static void print_bus(const struct nullhz_fault_bus *bus)
{
	printf(", \"bus\": {\"incident\": %llu, \"snapshot_id\": %llu, \"result\": %d, \"source\": %u, "
	       "\"age_ns\": %llu}",
	       bus->incident, bus->snapshot_id, bus->result, bus->source, bus->age_ns);
}

static void print_stall(const struct nullhz_fault_stall *stall)
{
	/* The name is printable ASCII; a quotation mark is not in those of a soak. */
	printf(", \"stall\": {\"rank\": %u, \"pid\": %d, \"state\": %u, \"phase\": %u, \"culprit\": %u, "
	       "\"held\": %u, \"age_ns\": %llu, \"name\": \"%.32s\"}",
	       stall->rank, stall->pid, stall->state, stall->phase, stall->culprit, stall->held,
	       stall->age_ns, stall->name);
}

static void print(const struct nullhz_fault_event *event)
{
	const void *payload = event->payload;
	const struct nullhz_fault_mce *mce = payload;

	print_head(event);
	if (event->source == NULLHZ_FAULT_SRC_BUS)
		print_bus(payload);
	else if (event->source == NULLHZ_FAULT_SRC_STALL)
		print_stall(payload);
	else if (event->source == NULLHZ_FAULT_SRC_MCE)
		printf(", \"mce\": {\"status\": %llu, \"addr\": %llu, \"bank\": %u}", mce->status, mce->addr,
		       mce->bank);
	printf("}\n");
}

/* A machine check with a number; false: it has none. */
static bool count_check(const struct nullhz_fault_event *event, uint64_t address, long forget)
{
	const struct nullhz_fault_mce *mce = (const void *)event->payload;
	uint64_t number = (mce->addr - address) >> PAGE_SHIFT;

	if (event->source != NULLHZ_FAULT_SRC_MCE || mce->addr < address || number >= NUMBERS)
		return false;
	if ((long)number == forget)
		return true;
	if (seen[number / 8] & 1 << number % 8)
		book.twice++;
	seen[number / 8] |= 1 << number % 8;
	book.checks++;
	if (number > book.highest)
		book.highest = number;
	return true;
}

static bool count_report(const struct nullhz_fault_event *event)
{
	unsigned int index = event->source - NULLHZ_FAULT_SRC_PRIVATE;
	uint64_t number;

	if (event->source < NULLHZ_FAULT_SRC_PRIVATE || index >= GENERATORS)
		return false;
	memcpy(&number, event->payload, sizeof(number));
	book.generators[index].seen++;
	if (number < book.generators[index].next)
		book.generators[index].backwards++;
	else
		book.generators[index].gaps += number - book.generators[index].next;
	book.generators[index].next = number + 1;
	/* What opens an incident is of interest in itself. */
	return !(event->flags & NULLHZ_FAULT_F_OPENED);
}

static void count(const struct nullhz_fault_event *event, uint64_t address, long forget)
{
	if (!is_clean(event))
		book.dirty++;
	if (event->flags & NULLHZ_FAULT_F_REPLAYED) {
		book.replayed++;
		return;
	}
	book.lost += event->lost;
	if (!book.records)
		book.head = event->seq - 1 - event->lost;
	if (event->seq <= book.head)
		book.backwards++;
	else
		book.gaps += event->seq - book.head - 1 - event->lost;
	book.head = event->seq;
	book.records++;
	if (count_check(event, address, forget)) {
		if (!(event->flags & NULLHZ_FAULT_F_OPENED))
			return;
	} else if (count_report(event)) {
		return;
	}
	print(event);
}

static void print_account(int fd, uint64_t first)
{
	struct nullhz_fault_info info;
	const char *comma = "";
	int named = 0;

	CHECK(ioctl(fd, NULLHZ_FAULT_IOC_INFO, &info));
	printf("{\"account\": {\"records\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"gaps\": %" PRIu64
	       ", \"backwards\": %" PRIu64 ", \"replayed\": %" PRIu64 ", \"dirty\": %" PRIu64
	       ", \"read_to\": %" PRIu64 ", \"head_seq\": %llu, \"last_incident\": %llu, \"checks\": %" PRIu64
	       ", \"twice\": %" PRIu64 ", \"generators\": [",
	       book.records, book.lost, book.gaps, book.backwards, book.replayed, book.dirty, book.head,
	       info.head_seq, info.last_incident, book.checks, book.twice);
	for (int i = 0; i < GENERATORS; i++)
		printf("%s{\"seen\": %" PRIu64 ", \"gaps\": %" PRIu64 ", \"backwards\": %" PRIu64 "}",
		       i ? ", " : "", book.generators[i].seen, book.generators[i].gaps,
		       book.generators[i].backwards);
	printf("], \"missing\": [");
	for (uint64_t number = first; number < book.highest && named < NAMED; number++) {
		if (!(seen[number / 8] & 1 << number % 8)) {
			printf("%s%" PRIu64, comma, number);
			comma = ", ";
			named++;
		}
	}
	printf("]}}\n");
}

int main(int argc, char **argv)
{
	struct pollfd waiting = { .events = POLLIN };
	uint64_t address, first;
	long forget;

	if (argc < 3)
		return 1;
	address = strtoull(argv[1], NULL, 0);
	first = strtoull(argv[2], NULL, 0);
	forget = argc > 3 ? (long)first + atol(argv[3]) : -1;
	setlinebuf(stdout);
	signal(SIGUSR1, on_usr1);
	waiting.fd = CHECK(open(DEVICE, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
	printf("{\"ready\": true}\n");
	for (;;) {
		/* Looked at first: what was reported before the signal is there by now. */
		int wanted = asked;
		ssize_t length = read(waiting.fd, events, sizeof(events));

		if (length > 0) {
			for (size_t i = 0; i < length / sizeof(events[0]); i++)
				count(&events[i], address, forget);
		} else if (length < 0 && errno != EAGAIN) {
			perror("read");
			return 1;
		} else if (wanted) {
			asked = 0;
			print_account(waiting.fd, first);
		} else {
			poll(&waiting, 1, LOOK_MS);
		}
	}
}
