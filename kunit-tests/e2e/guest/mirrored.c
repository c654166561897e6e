// SPDX-License-Identifier: GPL-2.0
/*
 * LD_PRELOAD=mirrored.so PROGRAM: the software GPU mirrors the program's whole memory
 *
 * A registration belongs to the memory of one process, so neither a program that
 * execs another nor one that forks can make it on behalf of that other one. This
 * library is loaded into the program itself: it registers all addresses before
 * main(), again in each process that is forked, and again after each exec, which
 * loads it anew. A thread then has the device read what the program has in memory,
 * as it comes and goes, and judges pages of its own, which it gives back all the
 * time. It leaves pages alone that the program has mapped but not touched: a read
 * would make them be there, which is what some programs look at.
 *
 * NULLHZ_MIRROR_DEVICE	the device
 * NULLHZ_MIRROR_LOG	gets a line when a process cannot be mirrored, or the device
 *			saw what it should not have seen
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <soft_gpu.h>

#define PAGE NULLHZ_SOFT_GPU_PAGE
/* All that an x86 process has without asking for more. */
#define END ((1ULL << 47) - 2 * PAGE)
#define OWN 16
/* Pages of the program that the device gets to see at a time. */
#define NEAR 64

static int gpu = -1;
static struct nullhz_soft_gpu_stamp *own;
static volatile uint64_t *generations;

static void say(const char *format, ...)
{
	const char *path = getenv("NULLHZ_MIRROR_LOG");
	char line[160];
	va_list arguments;
	int file, length;

	va_start(arguments, format);
	length = snprintf(line, sizeof(line), "%d ", getpid());
	length += vsnprintf(line + length, sizeof(line) - length, format, arguments);
	va_end(arguments);
	file = open(path ? path : "/dev/stderr", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (file < 0 || write(file, line, length) != length)
		abort();
	close(file);
}

/* The page at a position of the list of mappings; 0: there is none. */
static uint64_t page_at(unsigned int position)
{
	static char text[1 << 16];
	int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	uint64_t found = 0;
	ssize_t length;

	if (file < 0)
		return 0;
	length = read(file, text, sizeof(text) - 1);
	close(file);
	if (length <= 0)
		return 0;
	text[length] = 0;
	for (char *line = text; line; line = strchr(line, '\n')) {
		unsigned long long start, end;
		char readable;

		line += *line == '\n';
		if (sscanf(line, "%llx-%llx %c", &start, &end, &readable) != 3)
			break;
		if (readable != 'r' || end > END || strstr(line, "[v"))
			continue;
		/* Any of them, and the last one if there are not so many. */
		found = start + position % ((end - start) / PAGE) * PAGE;
		if (!(position-- % 8))
			break;
	}
	return found;
}

static void access_page(uint64_t address, unsigned int cpu)
{
	struct nullhz_soft_gpu_access access = { .address = address, .cpu = cpu };

	if (ioctl(gpu, NULLHZ_SOFT_GPU_IOC_ACCESS, &access))
		return;
	if (access.outcome == NULLHZ_SOFT_GPU_VIOLATION)
		say("violation %u at %#llx: owner %llu address %#llx generation %llu\n", access.kind,
		    (unsigned long long)address, (unsigned long long)access.stamp.owner,
		    (unsigned long long)access.stamp.address,
		    (unsigned long long)access.stamp.generation);
}

/* Has the device read what is in memory of the pages from `start` on. */
static void read_near(uint64_t start, unsigned int cpus, unsigned int *seed)
{
	int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entries[NEAR];
	ssize_t length;

	if (file < 0)
		return;
	length = pread(file, entries, sizeof(entries), start / PAGE * sizeof(entries[0]));
	close(file);
	for (int index = 0; index < length / (ssize_t)sizeof(entries[0]); index++) {
		struct nullhz_soft_gpu_prefetch one = { .pages = { start + index * PAGE, PAGE, 1 } };

		/* Present. */
		if (!(entries[index] >> 63))
			continue;
		if (ioctl(gpu, NULLHZ_SOFT_GPU_IOC_PREFETCH, &one) || !one.filled)
			continue;
		if (!(rand_r(seed) % 16))
			access_page(one.pages.start, rand_r(seed) % cpus);
	}
}

static void *mirror(void *unused)
{
	struct nullhz_soft_gpu_oracle oracle = {
		.pages = { (uintptr_t)own, PAGE, OWN }, .table = (uintptr_t)generations, .owner = getpid(),
	};
	unsigned int cpus = get_nprocs(), seed = getpid();
	int judged = !ioctl(gpu, NULLHZ_SOFT_GPU_IOC_ORACLE, &oracle);

	for (uint64_t generation = 1;; generation++) {
		uint64_t near = page_at(rand_r(&seed));

		for (int index = 0; judged && index < OWN; index++) {
			struct nullhz_soft_gpu_stamp *stamp = (void *)((char *)own + index * PAGE);

			stamp->owner = oracle.owner;
			stamp->address = (uintptr_t)stamp;
			stamp->generation = generation;
			__atomic_store_n(&stamp->magic, NULLHZ_SOFT_GPU_MAGIC, __ATOMIC_RELEASE);
			access_page((uintptr_t)stamp, rand_r(&seed) % cpus);
		}
		if (near)
			read_near(near, cpus, &seed);
		/* A program that locks its memory cannot give it back. */
		if (judged && !madvise(own, OWN * PAGE, MADV_DONTNEED)) {
			for (int index = 0; index < OWN; index++)
				generations[index] = generation + 1;
			for (int index = 0; index < OWN; index++)
				access_page((uintptr_t)own + index * PAGE, rand_r(&seed) % cpus);
		}
		usleep(2000);
	}
	return unused;
}

/*
 * Memory of our own; the same addresses in a copy of the process. The program's own
 * mappings, which come below it, must not become one with it: hence the first page.
 */
static void *memory(size_t size, int flags)
{
	char *start = mmap(NULL, PAGE + size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);

	if (start == MAP_FAILED || mprotect(start, PAGE, PROT_NONE))
		return NULL;
	return start + PAGE;
}

static void begin(void)
{
	struct nullhz_soft_gpu_range all = { PAGE, END - PAGE, 0 };
	const char *path = getenv("NULLHZ_MIRROR_DEVICE");
	int fd = open(path ? path : "/dev/nullhz-soft-gpu", O_RDWR | O_CLOEXEC);
	sigset_t every, before;
	pthread_t thread;

	if (fd < 0) {
		/* A test that limits files, or has others' rights, is none of ours. */
		if (errno != EMFILE && errno != EACCES)
			say("open: %s\n", strerror(errno));
		return;
	}
	/* Out of the way of programs that count on the next number. */
	gpu = fcntl(fd, F_DUPFD_CLOEXEC, 500);
	if (gpu < 0)
		gpu = fd;
	else
		close(fd);
	generations = memory(PAGE, MAP_SHARED);
	own = memory(OWN * PAGE, MAP_PRIVATE);
	if (!generations || !own || ioctl(gpu, NULLHZ_SOFT_GPU_IOC_REGISTER, &all)) {
		say("register: %s\n", strerror(errno));
		return;
	}
	/* Signals are the program's. */
	sigfillset(&every);
	pthread_sigmask(SIG_SETMASK, &every, &before);
	if (pthread_create(&thread, NULL, mirror, NULL))
		say("thread: %s\n", strerror(errno));
	else
		pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* The parent's file does not mirror its copy. */
static void again(void)
{
	if (gpu >= 0)
		close(gpu);
	gpu = -1;
	begin();
}

static void __attribute__((constructor)) load(void)
{
	pthread_atfork(NULL, NULL, again);
	begin();
}
