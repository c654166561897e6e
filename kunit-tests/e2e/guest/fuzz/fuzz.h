/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of the fuzzer share; see fuzz.c. */
#ifndef FUZZ_H
#define FUZZ_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nullhz/fault.h>
#include <nullhz/stall.h>
#include <soft_gpu.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define PAGE 4096ul

enum device { FAULT, STALL, GPU, TWIN, DEVICES };

/* Command and length of its argument; the first is the one that always succeeds. */
#define COMMANDS 16
#define SLOTS 16

/* What all processes count. */
struct counts {
	uint64_t calls;
	uint64_t forks;
	uint64_t killed;
	uint64_t written;	/* to attributes */
	uint64_t records;	/* read from the bus */
	uint64_t tried[DEVICES][COMMANDS];
	uint64_t done[DEVICES][COMMANDS];
	uint64_t mapped;
	char finding[400];
};

extern struct counts *counts;
/* Of this process: one thread, so that what a call may return is known. */
extern bool alone;
extern uint64_t round_seed;

/* --- Random numbers -------------------------------------------------------- */

extern __thread uint64_t random_state;

/* SplitMix64. */
static inline uint64_t any(void)
{
	uint64_t x = random_state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static inline uint64_t below(uint64_t count)
{
	return any() % count;
}

static inline bool one_in(uint64_t count)
{
	return below(count) == 0;
}

/* Small, next to a power of two, next to the largest, or anything. */
uint64_t edge(void);

#define pick(array) ((array)[below(ARRAY_SIZE(array))])

static inline void count(uint64_t *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

/* The first one is told; what follows from it is not. */
void found(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- Memory (memory.c) -----------------------------------------------------
 *
 * Two zones at addresses of their own: pages that are mapped, unmapped and
 * changed all the time, and places for the devices' pages. The fuzzer's own
 * memory is elsewhere.
 */
#define ARENA 0x100000000000ul
#define ARENA_SIZE (64ul << 20)
#define ZONE 0x110000000000ul
#define ZONE_PLACE (16 * PAGE)

void memory_init(void);
/* Some address of the arena, on a page. */
uint64_t arena(void);
/* An argument's place: *good tells whether the kernel can use all of it. */
void *argument(const void *from, size_t size, bool *good);
/* After the call: nothing behind the argument was written. */
void check_argument(const void *at, size_t size);
void churn_memory(void);
/* Maps a file's page somewhere into the zone; tells whether it is mapped. */
bool map_page(int fd, enum device device);
/* Bytes all over the pages that are mapped. */
void write_pages(void);
void handle_fault(int number);

/* --- Files (files.c) --------------------------------------------------------- */

struct slot {
	int fd;			/* -1: none */
	enum device device;
};

extern struct slot slots[SLOTS];
/* The device that most of a round's files are of. */
extern enum device theme;

struct slot *any_slot(void);
void attributes_init(void);
void files_init(void);
bool open_device(struct slot *slot);
void call_file(void);
void call_attribute(void);

/* --- Commands (commands.c) --------------------------------------------------- */

extern const char *const device_path[DEVICES];

void aperture_init(void);
void call_command(struct slot *slot);
const char *command_name(enum device device, unsigned int index);

/* --- In the end (check.c) ---------------------------------------------------- */

void check_devices(void);

#endif
