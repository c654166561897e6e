// SPDX-License-Identifier: GPL-2.0
/*
 * rank NUMBER CONTROL [KEY=VALUE...] - a training process with one rank, which
 * does and suffers what it is told through the FIFO CONTROL, a command a line
 *
 * Keys: name; init, step, comm, checkpoint, eval: deadlines, ms; floor, warmup;
 * beat: ms between heartbeats (20); waits=0: does not promise to tell its waits
 * (it does, so that its phase is evidence). Commands:
 *
 * beat MS	a heartbeat (.step) every MS ms
 * work MS	the same with .progress
 * quiet	no more heartbeats, sleeping
 * spin MS	busy in user space for MS ms, without a heartbeat
 * write PATH	writes a file and has it on disk
 * hold PATH	writes a file, and removes it, but for its own open descriptor
 * kernel TEXT	writes TEXT to the stall generator's `run`
 * phase N, grace MS, leave
 * answer 0|1	whether checkpoint requests are answered (they are)
 * fork		a child sleeps for ever with all that it inherits
 * exit		without LEAVE
 *
 * Prints a line of JSON when it is a rank, and one when it has done a command.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <nullhz/stall.h>

#include "guest.h"

/* Between looks for a checkpoint request; a rank that is to be seen asleep is so nearly always. */
#define QUIET_MS 200
#define GENERATOR "/sys/kernel/debug/nullhz_stall_gen/run"

static volatile struct nullhz_stall_page *page;
static int device;
static uint64_t last_beat;
static long period = 20;
static bool beating = true, stepping = true, answering = true;

static void beat(void)
{
	if (answering)
		page->checkpoint_ack = page->checkpoint_request;
	if (!beating)
		return;
	last_beat = now_ns();
	if (stepping)
		page->step++;
	else
		page->progress++;
}

static void hold_file(const char *path)
{
	int fd = CHECK(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));

	CHECK(write(fd, path, strlen(path)));
	CHECK(unlink(path));
}

static void write_file(const char *path, int flags, const char *text)
{
	int fd = CHECK(open(path, O_WRONLY | flags, 0600));

	CHECK(write(fd, text, strlen(text)));
	if (flags)
		CHECK(fsync(fd));
	close(fd);
}

static void spin(long ms)
{
	uint64_t end = now_ns() + ms * 1000000ull;

	while (now_ns() < end)
		;
}

static void grace(long ms)
{
	struct nullhz_stall_grace grace = { .ms = ms };

	CHECK(ioctl(device, NULLHZ_STALL_IOC_GRACE, &grace));
}

static void start_child(void)
{
	if (CHECK(fork()) == 0)
		for (;;)
			pause();
}

static void obey(const char *command, const char *argument)
{
	long number = atol(argument);

	if (!strcmp(command, "beat") || !strcmp(command, "work")) {
		period = number;
		beating = true;
		stepping = command[0] == 'b';
	} else if (!strcmp(command, "quiet")) {
		beating = false;
	} else if (!strcmp(command, "spin")) {
		spin(number);
	} else if (!strcmp(command, "write")) {
		write_file(argument, O_CREAT | O_TRUNC, "x");
	} else if (!strcmp(command, "hold")) {
		hold_file(argument);
	} else if (!strcmp(command, "kernel")) {
		write_file(GENERATOR, 0, argument);
	} else if (!strcmp(command, "phase")) {
		page->phase = number;
	} else if (!strcmp(command, "grace")) {
		grace(number);
	} else if (!strcmp(command, "answer")) {
		answering = number;
	} else if (!strcmp(command, "leave")) {
		CHECK(ioctl(device, NULLHZ_STALL_IOC_LEAVE));
	} else if (!strcmp(command, "fork")) {
		start_child();
	} else if (!strcmp(command, "exit")) {
		exit(0);
	} else {
		fprintf(stderr, "unknown command %s\n", command);
		exit(1);
	}
	printf("{\"did\": \"%s\", \"now_ns\": %" PRIu64 ", \"beat_ns\": %" PRIu64 "}\n", command, now_ns(),
	       last_beat);
}

static void set(struct nullhz_stall_register *rank, char *option)
{
	static const char *const phases[] = { "init", "step", "comm", "checkpoint", "eval" };
	char *value = strchr(option, '=');

	if (!value)
		exit(1);
	*value++ = 0;
	for (int i = 0; i < NULLHZ_STALL_PHASES; i++)
		if (!strcmp(option, phases[i]))
			rank->deadline_ms[i] = atoi(value);
	if (!strcmp(option, "name"))
		snprintf(rank->name, sizeof(rank->name), "%s", value);
	else if (!strcmp(option, "floor"))
		rank->floor_ms = atoi(value);
	else if (!strcmp(option, "warmup"))
		rank->warmup = atoi(value);
	else if (!strcmp(option, "beat"))
		period = atoi(value);
	else if (!strcmp(option, "waits"))
		rank->flags = atoi(value) ? NULLHZ_STALL_F_TELLS_WAITS : 0;
}

int main(int argc, char **argv)
{
	struct nullhz_stall_register rank = { .name = "test", .flags = NULLHZ_STALL_F_TELLS_WAITS };
	struct pollfd control = { .events = POLLIN };
	char line[256];
	FILE *commands;

	if (argc < 3)
		return 1;
	setlinebuf(stdout);
	rank.rank = atoi(argv[1]);
	for (int i = 3; i < argc; i++)
		set(&rank, argv[i]);
	unlink(argv[2]);
	CHECK(mkfifo(argv[2], 0600));
	/* For writing too: no end of file between two writers. */
	control.fd = CHECK(open(argv[2], O_RDWR | O_CLOEXEC));
	commands = fdopen(control.fd, "r");
	setvbuf(commands, NULL, _IONBF, 0);
	device = CHECK(open("/dev/nullhz-stall", O_RDWR | O_CLOEXEC));
	CHECK(ioctl(device, NULLHZ_STALL_IOC_REGISTER, &rank));
	page = mmap(NULL, NULLHZ_STALL_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
	if (page == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	page->phase = NULLHZ_STALL_PHASE_STEP;
	beat();
	printf("{\"did\": \"register\", \"pid\": %d, \"beat_ns\": %" PRIu64 "}\n", getpid(), last_beat);
	for (;;) {
		if (!CHECK(poll(&control, 1, beating ? period : QUIET_MS))) {
			beat();
			continue;
		}
		if (!fgets(line, sizeof(line), commands))
			return 1;
		line[strcspn(line, "\n")] = 0;
		char *argument = strchr(line, ' ');
		if (argument)
			*argument++ = 0;
		obey(line, argument ?: "");
	}
}
