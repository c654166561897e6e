// SPDX-License-Identifier: GPL-2.0
/*
 * heartbeat_cases CASE PAGE - tests of nullhz_heartbeat.h without the module
 *
 * PAGE is a file that stands for the heartbeat page; the device's ioctls end in
 * __wrap_ioctl() (ld --wrap). Compiled as C99 and as C++17. The real device is
 * tested in the virtual machine.
 */
#include "nullhz_heartbeat.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>

/* The device that is played. */
static struct {
	struct nullhz_stall_register rank;
	uint32_t version, grace_ms;
	int registered, left;		/* calls */
	int info_error, register_error, grace_error, mmap_error;
} device;

static const char *page_path;
static int page_fd;

static void check_at(int line, int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "line %d: %s\n", line, what);
	exit(1);
}

#define check(expression) check_at(__LINE__, expression, #expression)

static int answer(int error)
{
	errno = error;
	return error ? -1 : 0;
}

#ifdef __cplusplus
extern "C" {
#endif
int __wrap_ioctl(int fd, unsigned long command, ...);
void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);
void *__real_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);

int __wrap_ioctl(int fd, unsigned long command, ...)
{
	struct nullhz_stall_info *info;
	va_list arguments;
	void *argument;

	check(fcntl(fd, F_GETFD) == FD_CLOEXEC);
	va_start(arguments, command);
	argument = command == NULLHZ_STALL_IOC_LEAVE ? NULL : va_arg(arguments, void *);
	va_end(arguments);
	switch (command) {
	case NULLHZ_STALL_IOC_INFO:
		info = (struct nullhz_stall_info *)argument;
		memset(info, 0, sizeof(*info));
		info->abi_version = device.version;
		info->page_size = NULLHZ_STALL_PAGE_SIZE;
		return answer(device.info_error);
	case NULLHZ_STALL_IOC_REGISTER:
		device.registered++;
		device.rank = *(struct nullhz_stall_register *)argument;
		return answer(device.register_error);
	case NULLHZ_STALL_IOC_GRACE:
		check(((struct nullhz_stall_grace *)argument)->pad == 0);
		device.grace_ms = ((struct nullhz_stall_grace *)argument)->ms;
		return answer(device.grace_error);
	case NULLHZ_STALL_IOC_LEAVE:
		device.left++;
		return 0;
	default:
		return answer(ENOTTY);
	}
}

void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
	check(size == NULLHZ_STALL_PAGE_SIZE && offset == 0);
	check(prot == (PROT_READ | PROT_WRITE) && flags == MAP_SHARED);
	if (!device.mmap_error)
		return __real_mmap(at, size, prot, flags, fd, offset);
	errno = device.mmap_error;
	return MAP_FAILED;
}

#ifdef __cplusplus
}
#endif

/* What the kernel sees in the page. */
static struct nullhz_stall_page seen(void)
{
	struct nullhz_stall_page page;

	check(pread(page_fd, &page, sizeof(page), 0) == (ssize_t)sizeof(page));
	return page;
}

/* The kernel asks for a checkpoint. */
static void request(uint32_t number)
{
	off_t at = offsetof(struct nullhz_stall_page, checkpoint_request);

	check(pwrite(page_fd, &number, sizeof(number), at) == sizeof(number));
}

static void start(struct nullhz_heartbeat *hb, uint32_t number)
{
	struct nullhz_stall_register rank = nullhz_rank(number, "job");

	check(nullhz_register_at(hb, page_path, &rank) == 0);
	check(nullhz_active(hb));
}

/* Registering fails with `error` and words that hold `why`; all else does nothing. */
static void fails(const char *path, const char *name, int error, const char *why)
{
	struct nullhz_stall_register rank = nullhz_rank(0, name);
	struct nullhz_heartbeat hb;
	int free_fd = dup(page_fd);

	close(free_fd);
	check(nullhz_register_at(&hb, path, &rank) == -error);
	if (!strstr(hb.error, why))
		fprintf(stderr, "\"%s\" lacks \"%s\"\n", hb.error, why);
	check(!!strstr(hb.error, why));
	check(!nullhz_active(&hb));
	nullhz_beat(&hb, 1);
	nullhz_progress(&hb, 1);
	nullhz_phase(&hb, NULLHZ_STALL_PHASE_EVAL);
	check(nullhz_checkpoint_wanted(&hb) == 0);
	check(nullhz_grace(&hb, 1) == 0);
	check(nullhz_leave(&hb) == 0);
	check(seen().step == 0 && seen().phase == 0);
	/* Nothing is left open. */
	check(dup(page_fd) == free_fd);
	close(free_fd);
}

static void stores_reach_the_page(void)
{
	struct nullhz_heartbeat hb;

	start(&hb, 7);
	check(device.rank.rank == 7 && !strcmp(device.rank.name, "job"));
	check(device.rank.flags == 0 && device.rank.pad == 0 && device.rank.floor_ms == 0);
	check(seen().phase == NULLHZ_STALL_PHASE_INIT);
	nullhz_phase(&hb, NULLHZ_STALL_PHASE_COMM_WAIT);
	nullhz_beat(&hb, 0x123456789abcdefull);
	nullhz_progress(&hb, UINT64_MAX);
	check(seen().phase == NULLHZ_STALL_PHASE_COMM_WAIT);
	check(seen().step == 0x123456789abcdefull);
	check(seen().progress == UINT64_MAX);
	check(seen().checkpoint_request == 0 && seen().checkpoint_ack == 0);
	check(nullhz_state(&hb) == NULLHZ_STALL_OK);
}

static void promise_is_passed_on(void)
{
	struct nullhz_stall_register rank = nullhz_rank(0, "job");
	struct nullhz_heartbeat hb;

	rank.flags = NULLHZ_STALL_F_TELLS_WAITS;
	check(nullhz_register_at(&hb, page_path, &rank) == 0);
	check(device.rank.flags == NULLHZ_STALL_F_TELLS_WAITS);
}

static void checkpoint_is_asked_for_and_answered(void)
{
	struct nullhz_heartbeat hb;

	start(&hb, 0);
	check(nullhz_checkpoint_wanted(&hb) == 0);
	request(41);
	check(nullhz_checkpoint_wanted(&hb) == 41);
	check(nullhz_checkpoint_wanted(&hb) == 41);
	nullhz_checkpoint_done(&hb, 41);
	check(seen().checkpoint_ack == 41);
	check(nullhz_checkpoint_wanted(&hb) == 0);
}

static void request_during_a_checkpoint_is_another_one(void)
{
	struct nullhz_heartbeat hb;
	uint32_t wanted;

	start(&hb, 0);
	request(1);
	wanted = nullhz_checkpoint_wanted(&hb);
	request(2);
	nullhz_checkpoint_done(&hb, wanted);
	check(nullhz_checkpoint_wanted(&hb) == 2);
}

static void no_device(void)
{
	fails("/nonexistent/nullhz-stall", "job", ENOENT, "is the module nullhz_stall loaded?");
	check(device.registered == 0);
}

static void another_device(void)
{
	device.info_error = ENOTTY;
	fails(page_path, "job", ENOTTY, "not a stall watchdog's?");
	check(device.registered == 0);
}

static void another_version(void)
{
	device.version = NULLHZ_STALL_ABI_VERSION + 1;
	fails(page_path, "job", EPROTO, "different versions");
	check(device.registered == 0);
}

static void name_that_is_too_long(void)
{
	fails(page_path, "12345678901234567890123456789012", EINVAL, "more than 31 characters");
	check(device.registered == 0);
}

static void name_that_just_fits(void)
{
	struct nullhz_stall_register rank = nullhz_rank(0, "1234567890123456789012345678901");
	struct nullhz_heartbeat hb;

	check(nullhz_register_at(&hb, page_path, &rank) == 0);
	check(strlen(device.rank.name) == 31);
}

static void rank_that_is_taken(void)
{
	device.register_error = EEXIST;
	fails(page_path, "job", EEXIST, "another process has this rank of the job");
	check(device.left == 0);
}

static void no_page(void)
{
	device.mmap_error = EBUSY;
	fails(page_path, "job", EBUSY, "heartbeat page");
	/* Registered for a moment: that was no crash. */
	check(device.registered == 1 && device.left == 1);
}

static void leaves_once(void)
{
	struct nullhz_heartbeat hb;
	int fd;

	start(&hb, 0);
	fd = hb.fd;
	nullhz_beat(&hb, 1);
	check(nullhz_leave(&hb) == 0);
	check(device.left == 1);
	check(fcntl(fd, F_GETFD) < 0 && errno == EBADF);
	check(!nullhz_active(&hb));
	nullhz_beat(&hb, 2);
	check(nullhz_leave(&hb) == 0);
	check(device.left == 1);
	check(seen().step == 1);
}

static void grace_is_passed_on(void)
{
	struct nullhz_heartbeat hb;

	start(&hb, 0);
	check(nullhz_grace(&hb, 2500) == 0);
	check(device.grace_ms == 2500);
	device.grace_error = EINVAL;
	check(nullhz_grace(&hb, UINT32_MAX) == -EINVAL);
	check(!!strstr(hb.error, "longer than the module allows?"));
}

/* The child of a process with two ranks and one that has left. */
static void child_of_fork(struct nullhz_heartbeat hb[3], const int fds[3],
			  struct nullhz_stall_page *const pages[3])
{
	unsigned char resident;
	int i, status;

	for (i = 0; i < 3; i++) {
		check(!nullhz_active(&hb[i]));
		check(fcntl(fds[i], F_GETFD) < 0 && errno == EBADF);
		check(mincore(pages[i], NULLHZ_STALL_PAGE_SIZE, &resident) && errno == ENOMEM);
		nullhz_beat(&hb[i], 99);
		nullhz_checkpoint_done(&hb[i], 99);
		check(nullhz_leave(&hb[i]) == 0);
	}
	check(device.left == 2);
	/* It may become a rank of its own, and fork. */
	start(&hb[0], 3);
	nullhz_phase(&hb[0], NULLHZ_STALL_PHASE_EVAL);
	if (!fork())
		_exit(nullhz_active(&hb[0]));
	check(wait(&status) > 0 && status == 0);
	_exit(0);
}

static void child_does_not_beat_as_its_parent(void)
{
	struct nullhz_stall_page *pages[3];
	struct nullhz_heartbeat hb[3];
	int fds[3], i, status;

	for (i = 0; i < 3; i++) {
		start(&hb[i], i);
		fds[i] = hb[i].fd;
		pages[i] = hb[i].page;
	}
	nullhz_beat(&hb[0], 5);
	check(nullhz_leave(&hb[1]) == 0);
	start(&hb[1], 1);
	check(nullhz_leave(&hb[1]) == 0);
	if (!fork())
		child_of_fork(hb, fds, pages);
	check(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	check(seen().step == 5 && seen().checkpoint_ack == 0);
	check(seen().phase == NULLHZ_STALL_PHASE_EVAL);
	nullhz_beat(&hb[2], 6);
	check(seen().step == 6);
	check(nullhz_leave(&hb[0]) == 0 && nullhz_leave(&hb[2]) == 0);
	check(device.left == 4);
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
#define CASE(name) { #name, name }
	CASE(stores_reach_the_page),
	CASE(promise_is_passed_on),
	CASE(checkpoint_is_asked_for_and_answered),
	CASE(request_during_a_checkpoint_is_another_one),
	CASE(no_device),
	CASE(another_device),
	CASE(another_version),
	CASE(name_that_is_too_long),
	CASE(name_that_just_fits),
	CASE(rank_that_is_taken),
	CASE(no_page),
	CASE(leaves_once),
	CASE(grace_is_passed_on),
	CASE(child_does_not_beat_as_its_parent),
};

int main(int argc, char **argv)
{
	size_t i;

	if (argc != 3)
		return 2;
	device.version = NULLHZ_STALL_ABI_VERSION;
	page_path = argv[2];
	page_fd = open(page_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	check(page_fd >= 0 && ftruncate(page_fd, NULLHZ_STALL_PAGE_SIZE) == 0);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (!strcmp(cases[i].name, argv[1])) {
			cases[i].run();
			return 0;
		}
	}
	fprintf(stderr, "no case %s\n", argv[1]);
	return 2;
}
