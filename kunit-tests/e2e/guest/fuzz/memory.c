// SPDX-License-Identifier: GPL-2.0
/* The fuzzer's memory: what devices mirror, and where arguments are. */
#include "fuzz.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define CANARY 0x5a
#define MARGIN 64

/* A page, and none behind it; one that cannot be written. */
static __thread uint8_t *last_page;
static uint8_t *read_only;
static __thread uint8_t own[4 * PAGE] __attribute__((aligned(PAGE)));

void memory_init(void)
{
	read_only = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

uint64_t arena(void)
{
	/* Mostly the same few pages. */
	return ARENA + (one_in(4) ? below(ARENA_SIZE / PAGE) : below(64)) * PAGE;
}

uint64_t edge(void)
{
	switch (below(6)) {
	case 0:
		return below(4);
	case 1:
		return (1ull << below(64)) + below(3) - 1;
	case 2:
		return -below(4);
	case 3:
		return PAGE * below(32);
	case 4:
		return below(1000);
	default:
		return any() >> below(64);
	}
}

static void *bad_address(size_t size)
{
	switch (below(8)) {
	case 0:
		return NULL;
	case 1:
		return (void *)0xffff888000000000ul;
	case 2:
		return (void *)0x8000000000000000ul;
	case 3:
		return (void *)(0x7ffffffff000ul - below(size + 1));
	case 4:
		return (void *)(-1ul - below(size + 1));
	case 5:
		return read_only + below(PAGE - size % PAGE);
	default:
		/* Not all of it is there. */
		return last_page + PAGE - below(size + 1);
	}
}

void *argument(const void *from, size_t size, bool *good)
{
	uint8_t *at = own;

	if (!last_page) {
		last_page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		munmap(last_page + PAGE, PAGE);
	}
	*good = true;
	if (one_in(10)) {
		*good = false;
		at = bad_address(size);
		if (at >= last_page && at < last_page + PAGE)
			memcpy(at, from, (size_t)(last_page + PAGE - at) < size ?
			       (size_t)(last_page + PAGE - at) : size);
		return at;
	}
	if (one_in(16)) {
		/* Memory that others take away meanwhile. */
		struct iovec local = { (void *)from, size };
		struct iovec remote = { (void *)(one_in(2) ? arena() : ZONE + below(SLOTS) * ZONE_PLACE),
					size };

		*good = false;
		process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
		return remote.iov_base;
	}
	/* Aligned or not, across pages or not. */
	at += one_in(2) ? 0 : PAGE - below(size + 2);
	memcpy(at, from, size);
	memset(at + size, CANARY, MARGIN);
	return at;
}

void check_argument(const void *at, size_t size)
{
	const uint8_t *behind = (const uint8_t *)at + size;
	int i;

	for (i = 0; i < MARGIN; i++)
		if (behind[i] != CANARY)
			found("byte %d behind the argument was written", i);
}

/* Stores that do not kill whoever makes them, of what the device looks for. */
static void stamp_pages(void)
{
	uint64_t at = arena();
	int pages = 1 + below(16);

	for (; pages--; at += PAGE) {
		struct nullhz_soft_gpu_stamp stamp = {
			NULLHZ_SOFT_GPU_MAGIC, one_in(8), one_in(8) ? arena() : at, below(3),
		};
		struct iovec local = { &stamp, sizeof(stamp) };
		struct iovec remote = { (void *)at, sizeof(stamp) };

		if (one_in(16))
			stamp.magic = edge();
		process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
	}
}

void churn_memory(void)
{
	static const int advices[] = {
		MADV_DONTNEED, MADV_FREE, MADV_WILLNEED, MADV_DONTFORK, MADV_DOFORK, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
		MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_MERGEABLE, MADV_UNMERGEABLE,
	};
	static const int protections[] = {
		PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
	};
	void *at = (void *)arena();
	size_t size = (1 + below(one_in(8) ? 1024 : 16)) * PAGE;
	int flags = MAP_ANONYMOUS | MAP_FIXED | (one_in(4) ? MAP_SHARED : MAP_PRIVATE);

	switch (below(8)) {
	case 0:
		munmap(at, size);
		break;
	case 1:
	case 2:
		mmap(at, size, pick(protections), flags | (one_in(2) ? MAP_POPULATE : 0), -1, 0);
		break;
	case 3:
		mprotect(at, size, pick(protections));
		break;
	case 4:
		madvise(at, size, pick(advices));
		break;
	case 5:
		mremap(at, size, (1 + below(16)) * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		       (void *)arena());
		break;
	case 6:
		if (one_in(2))
			mlock(at, size);
		else
			munlock(at, size);
		break;
	default:
		stamp_pages();
	}
}

bool map_page(int fd, enum device device)
{
	static const int protections[] = {
		PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC, PROT_READ | PROT_EXEC,
		PROT_READ | PROT_WRITE | PROT_EXEC,
	};
	static const int kinds[] = { MAP_PRIVATE, MAP_SHARED, MAP_SHARED_VALIDATE | MAP_SYNC };
	uint8_t *at = (uint8_t *)ZONE + below(SLOTS) * ZONE_PLACE;
	bool right = !one_in(4);
	size_t size = right ? PAGE : edge();
	int protection = right ? PROT_READ | PROT_WRITE : pick(protections);
	int kind = right ? MAP_SHARED : pick(kinds);
	off_t offset = right || one_in(2) ? 0 : edge() & ~(PAGE - 1);
	uint8_t *mapped;
	size_t i;

	if (!size || size > ZONE_PLACE)
		/* Not over the other places. */
		mapped = mmap(NULL, size, protection, kind, fd, offset);
	else
		mapped = mmap(at, size, protection, kind | MAP_FIXED, fd, offset);
	if (mapped == MAP_FAILED)
		return false;
	count(&counts->mapped);
	if (device != STALL)
		found("device %d was mapped", device);
	if (size > PAGE || offset || protection != (PROT_READ | PROT_WRITE) || kind == MAP_PRIVATE)
		found("mapped: %zu bytes at %lld, protection %d, flags %#x", size, (long long)offset,
		      protection, kind);
	/* Whatever was in that memory before must not be. */
	for (i = sizeof(struct nullhz_stall_page); alone && i < PAGE; i++)
		if (mapped[i])
			found("byte %zu of a new page is %#x", i, mapped[i]);
	return true;
}

/* Where a thread goes on when a page is not there. */
static __thread sigjmp_buf missing;
static __thread bool storing;

void handle_fault(int number)
{
	if (storing)
		siglongjmp(missing, 1);
	signal(number, SIG_DFL);
}

/* At full speed, as a program would that has lost its way. */
static void store(void)
{
	int passes = 1 + below(2000);

	if (!sigsetjmp(missing, 1)) {
		storing = true;
		while (passes--) {
			uint8_t *page = (uint8_t *)ZONE + below(SLOTS) * ZONE_PLACE;
			/* Mostly the line that means something. */
			size_t at = (one_in(4) ? below(PAGE) : below(128)) & ~7ul;
			uint64_t value = edge();

			if (one_in(4))
				page[at + below(8)] = value;
			else
				__atomic_store_n((uint64_t *)(page + at), value, __ATOMIC_RELAXED);
		}
	}
	storing = false;
}

void write_pages(void)
{
	int tries = 8;

	while (tries--)
		store();
	if (one_in(16)) {
		uint8_t *at = (uint8_t *)ZONE + below(SLOTS) * ZONE_PLACE;

		switch (below(6)) {
		case 0:
			munmap(at, (1 + below(16)) * PAGE);
			break;
		case 1:
			mprotect(at, PAGE, one_in(2) ? PROT_NONE : PROT_READ);
			break;
		case 2:
			mprotect(at, PAGE, PROT_READ | PROT_WRITE | (one_in(4) ? PROT_EXEC : 0));
			break;
		case 3:
			madvise(at, PAGE, one_in(2) ? MADV_DONTNEED : MADV_DOFORK);
			break;
		case 4:
			mremap(at, PAGE, (1 + below(4)) * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			       (uint8_t *)ZONE + below(SLOTS) * ZONE_PLACE);
			break;
		default:
			mremap(at, 0, PAGE, MREMAP_MAYMOVE);
		}
	}
}
