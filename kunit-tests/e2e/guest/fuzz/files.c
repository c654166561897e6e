// SPDX-License-Identifier: GPL-2.0
/* What can be done with any open file, and with attributes in sysfs and debugfs. */
#include "fuzz.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

struct slot slots[SLOTS];
enum device theme;

struct slot *any_slot(void)
{
	/* Mostly the same few, so that calls follow from each other. */
	return &slots[one_in(4) ? below(SLOTS) : below(4)];
}

static int polled = -1, sockets[2] = { -1, -1 };

void files_init(void)
{
	int i;

	for (i = 0; i < SLOTS; i++)
		slots[i].fd = -1;
	polled = epoll_create1(EPOLL_CLOEXEC);
	socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, sockets);
}

bool open_device(struct slot *slot)
{
	static const int modes[] = { O_RDWR, O_RDONLY, O_WRONLY };
	int flags = (one_in(2) ? O_RDWR : pick(modes)) | (one_in(4) ? 0 : O_NONBLOCK);
	int fd;

	flags |= (one_in(8) ? O_ASYNC : 0) | (one_in(2) ? O_CLOEXEC : 0);
	slot->device = one_in(4) ? below(DEVICES) : theme;
	fd = open(device_path[slot->device], flags);
	if (slot->fd >= 0)
		close(slot->fd);
	slot->fd = fd;
	return fd >= 0;
}

/* Whole records, in their order. */
static void check_records(const uint8_t *bytes, ssize_t length)
{
	const struct nullhz_fault_event *event = (const void *)bytes;
	ssize_t i, number = length / (ssize_t)sizeof(*event);

	if (length % (ssize_t)sizeof(*event))
		found("%zd bytes of records", length);
	for (i = 0; i < number; i++) {
		count(&counts->records);
		if (event[i].size != sizeof(*event) || event[i].version != 1 || event[i].level > 3 ||
		    event[i].payload_len > NULLHZ_FAULT_PAYLOAD_SIZE || event[i].pad ||
		    event[i].source > NULLHZ_FAULT_SRC_MAX || !event[i].seq || !event[i].count)
			found("record %llu is damaged", (unsigned long long)event[i].seq);
		if (i && event[i].seq <= event[i - 1].seq &&
		    !((event[i].flags | event[i - 1].flags) & NULLHZ_FAULT_F_REPLAYED))
			found("record %llu after %llu", (unsigned long long)event[i].seq,
			      (unsigned long long)event[i - 1].seq);
	}
}

static void read_file(struct slot *slot)
{
	static __thread uint8_t records[16 * 256];
	struct iovec parts[3];
	ssize_t length;
	bool good;
	void *at;
	int i;

	switch (below(4)) {
	case 0:
	case 1:
		/* Blocks, if that is what was asked for; the timer ends it. */
		length = read(slot->fd, records, one_in(2) ? sizeof(records) :
			      below(sizeof(records) + 1));
		if (alone && slot->device == FAULT && length > 0)
			check_records(records, length);
		if (alone && slot->device != FAULT && length > 0)
			found("read %zd bytes from %s", length, device_path[slot->device]);
		break;
	case 2:
		at = argument(records, 1024, &good);
		if (read(slot->fd, at, below(1025)) >= 0 && good)
			check_argument(at, 1024);
		break;
	default:
		for (i = 0; i < 3; i++)
			parts[i] = (struct iovec){ argument(records, 300, &good), below(300) };
		if (one_in(2))
			(void)!readv(slot->fd, parts, 3);
		else
			(void)!preadv(slot->fd, parts, 3, edge());
	}
}

static void poll_file(struct slot *slot)
{
	struct epoll_event event = { .events = any(), .data.u32 = 1 };
	struct pollfd wanted = { slot->fd, any(), 0 };
	int operation = below(3) + 1;

	switch (below(3)) {
	case 0:
		poll(&wanted, 1, below(3));
		break;
	case 1:
		event.events |= EPOLLIN;
		epoll_ctl(polled, operation, slot->fd, &event);
		break;
	default:
		epoll_wait(polled, &event, 1, below(3));
	}
}

static void control_file(struct slot *slot)
{
	static const int flags[] = { 0, O_NONBLOCK, O_ASYNC, O_ASYNC | O_NONBLOCK, O_APPEND };
	int on = below(2);

	switch (below(6)) {
	case 0:
		fcntl(slot->fd, F_SETFL, pick(flags));
		break;
	case 1:
		fcntl(slot->fd, F_SETOWN, one_in(4) ? 0 : getpid());
		break;
	case 2:
		/* SIGALRM, SIGUSR1, real-time ones: all are ignored or handled. */
		fcntl(slot->fd, F_SETSIG, one_in(2) ? 0 : SIGRTMIN + below(8));
		break;
	case 3:
		ioctl(slot->fd, FIOASYNC, &on);
		break;
	case 4:
		ioctl(slot->fd, FIONBIO, &on);
		break;
	default:
		fcntl(slot->fd, F_SETFD, FD_CLOEXEC);
	}
}

/* To another process, or only into a socket's queue, from where it comes back. */
static void pass_file(struct slot *slot)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {};
	struct iovec byte = { "x", 1 };
	struct msghdr message = {
		.msg_iov = &byte, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	char room;

	if (one_in(2)) {
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &slot->fd, sizeof(int));
		sendmsg(sockets[0], &message, 0);
		return;
	}
	byte = (struct iovec){ &room, 1 };
	if (recvmsg(sockets[1], &message, 0) == 1 && control.header.cmsg_type == SCM_RIGHTS) {
		int fd;

		memcpy(&fd, CMSG_DATA(&control.header), sizeof(int));
		close(fd);
	}
}

static void odd_call(struct slot *slot)
{
	static uint8_t bytes[300];
	struct stat status;
	int ends[2];

	switch (below(8)) {
	case 0:
		if (write(slot->fd, bytes, below(300)) > 0)
			found("wrote to %s", device_path[slot->device]);
		break;
	case 1:
		lseek(slot->fd, edge(), below(5));
		break;
	case 2:
		fstat(slot->fd, &status);
		fsync(slot->fd);
		break;
	case 3:
		(void)!ftruncate(slot->fd, edge());
		posix_fallocate(slot->fd, 0, below(10000) + 1);
		break;
	case 4:
		if (!pipe2(ends, O_NONBLOCK)) {
			splice(slot->fd, NULL, ends[1], NULL, below(5000), SPLICE_F_NONBLOCK);
			sendfile(ends[1], slot->fd, NULL, below(5000));
			close(ends[0]);
			close(ends[1]);
		}
		break;
	case 5:
		posix_fadvise(slot->fd, 0, edge(), below(6));
		break;
	case 6:
		(void)!pread(slot->fd, bytes, below(300), edge());
		break;
	default:
		(void)!pwrite(slot->fd, bytes, below(300), edge());
	}
}

void call_file(void)
{
	struct slot *slot = any_slot(), *other = any_slot();
	int fd;

	if (slot->fd < 0 || one_in(32)) {
		open_device(slot);
		return;
	}
	switch (below(16)) {
	case 0:
	case 1:
	case 2:
		read_file(slot);
		break;
	case 3:
		poll_file(slot);
		break;
	case 4:
		control_file(slot);
		break;
	case 5:
		pass_file(slot);
		break;
	case 6:
		odd_call(slot);
		break;
	case 7:
		close(slot->fd);
		slot->fd = -1;
		break;
	case 8:
		fd = dup(slot->fd);
		if (other->fd >= 0)
			close(other->fd);
		*other = (struct slot){ fd, slot->device };
		break;
	default:
		map_page(slot->fd, slot->device);
	}
}

/* --- Attributes -------------------------------------------------------------------- */

#define ATTRIBUTES 512

static struct {
	char path[160];
	bool writable;
} attributes[ATTRIBUTES];
static unsigned int attribute_count;
/* Of nullhz_fault_gen, which reports what it is told to. */
static unsigned int generator;

/* What is the driver core's own. */
static bool is_foreign(const char *name)
{
	static const char *const names[] = {
		"uevent", "driver_override", "remove", "bind", "unbind", "power", "autosuspend",
		"async", "initstate", "taint", "refcnt", "coresize", "initsize", "srcversion",
		"version", "sections", "notes", "holders", "dev",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return name[0] == '.';
}

static void add_folder(const char *folder, const char *prefix)
{
	DIR *entries = opendir(folder);
	struct dirent *entry;

	while (entries && (entry = readdir(entries))) {
		char path[160];
		struct stat status;

		if (is_foreign(entry->d_name) || strncmp(entry->d_name, prefix, strlen(prefix)) ||
		    (size_t)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >=
		    sizeof(path))
			continue;
		/* Links only where a name was asked for: the devices of a class. */
		if (*prefix ? stat(path, &status) : lstat(path, &status))
			continue;
		if (S_ISDIR(status.st_mode)) {
			add_folder(path, "");
		} else if (S_ISREG(status.st_mode) && attribute_count < ATTRIBUTES) {
			if (strstr(path, "nullhz_fault_gen/run"))
				generator = attribute_count;
			strcpy(attributes[attribute_count].path, path);
			attributes[attribute_count++].writable = status.st_mode & 0200;
		}
	}
	if (entries)
		closedir(entries);
}

void attributes_init(void)
{
	static const char *const folders[] = {
		"/sys/class/misc", "/sys/devices/faux", "/sys/module", "/sys/kernel/debug",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(folders); i++)
		add_folder(folders[i], "nullhz");
	if (attribute_count < 50)
		found("only %u attributes", attribute_count);
}

static size_t some_text(char *text, size_t size)
{
	static const char *const words[] = {
		"", "\n", " ", "0", "1", "2", "3", "16", "50", "100", "1000", "-1", "+1", "01", "0x10",
		"4294967295", "4294967296", "18446744073709551616", "1 2", "1\n2", "none", "cont",
		"abort", "kill", "Y", "N", "/nonexistent", "/bin/true", "%s%n",
		/* For nullhz_fault_gen. */
		"count=20 level=imminent kind=7 context=hardirq source=33", "level=watch count=300",
		"count=3 level=degrading sum=5 context=softirq", "count=2 level=fatal source=35",
		"count=x", "level=", "rate=0 rate=0",
	};
	size_t length;

	switch (below(4)) {
	case 0:
		length = snprintf(text, size, "%lld\n", (long long)edge());
		break;
	case 1:
		length = below(size);
		memset(text, one_in(2) ? 'x' : any(), length);
		if (length && one_in(2))
			text[0] = '/';
		break;
	default:
		length = snprintf(text, size, "%s%s", pick(words), one_in(2) ? "\n" : "");
	}
	if (length && one_in(8))
		text[below(length)] = any();
	return length;
}

void call_attribute(void)
{
	unsigned int index = one_in(4) ? generator : below(attribute_count);
	static __thread char text[2 * PAGE];
	ssize_t length;
	bool good;
	int fd;

	fd = open(attributes[index].path, attributes[index].writable ? O_RDWR : O_RDONLY);
	if (fd < 0)
		/* Only one of both. */
		fd = open(attributes[index].path, O_WRONLY);
	if (fd < 0)
		return;
	if (attributes[index].writable && one_in(2)) {
		length = some_text(text, one_in(8) ? sizeof(text) : 80);
		count(&counts->written);
		(void)!write(fd, argument(text, length, &good), length);
	} else {
		length = pread(fd, text, one_in(2) ? sizeof(text) : below(64), one_in(4) ? edge() : 0);
		/* Kernel addresses are nobody's business. */
		if (length > 0 && length < (ssize_t)sizeof(text)) {
			text[length] = 0;
			if (strstr(text, "ffff88") || strstr(text, "ffffffff8") || strstr(text, "ffffffffc"))
				found("%s shows an address: %.60s", attributes[index].path, text);
		}
	}
	close(fd);
}
