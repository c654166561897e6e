// SPDX-License-Identifier: GPL-2.0
/*
 * inject COUNT STATUS ADDR STEP MISC [GAP_US] - logs machine-check records as
 * fast as it can, through mce-inject (debugfs, "sw"); COUNT 0: until killed
 *
 * Each record's address is STEP above the one before. Prints how many it
 * logged, also when SIGTERM ends it.
 */
#include <signal.h>
#include <stdbool.h>

#include "guest.h"

#define INJECT "/sys/kernel/debug/mce-inject/"

static volatile sig_atomic_t over;

static void end(int number)
{
	(void)number;
	over = true;
}

static int file(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), INJECT "%s", name);
	return CHECK(open(path, O_WRONLY));
}

static void set(int fd, const char *value)
{
	CHECK(write(fd, value, strlen(value)));
}

int main(int argc, char **argv)
{
	unsigned long long count, addr, step, done;
	unsigned int gap = argc > 6 ? atoi(argv[6]) : 0;
	struct sigaction action = { .sa_handler = end };
	int status, misc, addr_file, bank;

	if (argc < 6)
		return 1;
	count = strtoull(argv[1], NULL, 0);
	addr = strtoull(argv[3], NULL, 0);
	step = strtoull(argv[4], NULL, 0);
	sigaction(SIGTERM, &action, NULL);
	/* The last character is taken for a newline. */
	set(file("flags"), "sw\n");
	status = file("status");
	misc = file("misc");
	addr_file = file("addr");
	bank = file("bank");
	for (done = 0; !over && (!count || done < count); done++) {
		char text[32];

		snprintf(text, sizeof(text), "0x%llx", addr + done * step);
		/* mce-inject forgets all of them with every record. */
		set(status, argv[2]);
		set(misc, argv[5]);
		set(addr_file, text);
		set(bank, "7");
		if (gap)
			usleep(gap);
	}
	printf("%llu\n", done);
	return 0;
}
