/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Software GPU: /dev/nullhz-soft-gpu, and its C twin /dev/nullhz-soft-gpu-c
 *
 * One device with a page table per open file and a TLB per CPU, which serves
 * to prove that no access of it goes to memory that the kernel has taken back.
 * An open file is a context of the device: it mirrors the memory of the process
 * that opened it. The device reads and writes pages by itself, in threads, and
 * judges what it sees by the stamps that user space keeps in those pages.
 *
 * Device addresses below the aperture are the process's own addresses, mirrored
 * by MMU notifiers where a range is registered. Those in the aperture are given
 * out by the driver: pinned buffers, which it maps and unmaps by itself.
 *
 * All fields are in the CPU's byte order; layouts are the same for 32-bit and
 * 64-bit programs. Addresses and lengths are in bytes and multiples of
 * NULLHZ_SOFT_GPU_PAGE. Reserved fields (pad) and unknown flags are 0.
 */
#ifndef _UAPI_NULLHZ_SOFT_GPU_H
#define _UAPI_NULLHZ_SOFT_GPU_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Raised whenever a layout or a meaning below changes incompatibly. */
#define NULLHZ_SOFT_GPU_ABI_VERSION	1

#define NULLHZ_SOFT_GPU_PAGE		4096	/* bytes */

/* Of a file; what is beyond is refused with ENOSPC. */
#define NULLHZ_SOFT_GPU_MAX_INTERVALS	65536	/* registered at a time, in all ranges */
#define NULLHZ_SOFT_GPU_MAX_TABLES	32768	/* page tables of all levels, kept until close() */
#define NULLHZ_SOFT_GPU_MAX_PINNED	16384	/* pages: buffers and generations */
#define NULLHZ_SOFT_GPU_MAX_RUNS	64
#define NULLHZ_SOFT_GPU_MAX_DETAILS	64	/* violations that are kept with details */

/* How invalidations reach the device's TLBs. */
#define NULLHZ_SOFT_GPU_B0		0	/* a notifier and a flush per interval */
#define NULLHZ_SOFT_GPU_B1		1	/* a notifier and a flush per 512 MB */
#define NULLHZ_SOFT_GPU_B2		2	/* a notifier per process, a full flush per event */
#define NULLHZ_SOFT_GPU_BATCHED		3	/* nullhz_mmu_batch; its tunables are in sysfs */
#define NULLHZ_SOFT_GPU_TYPED		4	/* as BATCHED, by a driver with two passes */
#define NULLHZ_SOFT_GPU_MODES		5

/* struct nullhz_soft_gpu_info.features */
#define NULLHZ_SOFT_GPU_F_BIND		0x01	/* BIND, UNBIND, SUBMIT */
#define NULLHZ_SOFT_GPU_F_FAULTS	0x02	/* FAULTS */
#define NULLHZ_SOFT_GPU_F_MUTANTS	0x04	/* FAULTS with a mutant: test kernels only */
#define NULLHZ_SOFT_GPU_F_WRITE		0x08	/* the flag WRITE */
#define NULLHZ_SOFT_GPU_F_MORE		0x10	/* MODE, UNREGISTER, VIOLATION, CPU */

/* NULLHZ_SOFT_GPU_IOC_INFO */
struct nullhz_soft_gpu_info {
	__u32 abi_version;
	__u32 modes;		/* bit n: there is mode n */
	__u32 features;		/* NULLHZ_SOFT_GPU_F_* */
	__u32 mode;		/* of this file; BATCHED at first */
	__u32 cpus;		/* CPUs are numbered from 0, and so are the TLBs */
	__u32 tlb_entries;	/* of each TLB */
	__u32 context;		/* of this file, in entries of the TLBs */
	__u32 pad;
	__u64 aperture;		/* its first device address */
	__u64 aperture_size;
};

/*
 * NULLHZ_SOFT_GPU_IOC_MODE: while no run is active and no buffer is bound.
 * Registered ranges stay registered; the page table is emptied.
 */
struct nullhz_soft_gpu_mode {
	__u32 mode;
	__u32 pad;
};

/*
 * NULLHZ_SOFT_GPU_IOC_REGISTER: mirrors [start, start + length) in intervals
 * of .interval bytes; the last one may be shorter. Nothing need be mapped there.
 * NULLHZ_SOFT_GPU_IOC_UNREGISTER: a range with the same start and length. The
 * device sees nothing of it any more when the call returns.
 */
struct nullhz_soft_gpu_range {
	__u64 start;
	__u64 length;
	__u64 interval;		/* 0: one of the whole length; UNREGISTER: 0 */
};

/* The pages start, start + stride, ... of registered ranges or bound buffers. */
struct nullhz_soft_gpu_pages {
	__u64 start;
	__u64 stride;
	__u64 count;
};

/*
 * NULLHZ_SOFT_GPU_IOC_PREFETCH: fills the page table as the device's faults
 * would do. Pages that cannot be accessed are skipped.
 */
struct nullhz_soft_gpu_prefetch {
	struct nullhz_soft_gpu_pages pages;
	__u32 flags;		/* NULLHZ_SOFT_GPU_WRITE */
	__u32 pad;
	__u64 filled;		/* out; all, but what was refused */
	__u64 refused;		/* out */
};

/* What user space writes at the start of a page; .magic last, and once. */
#define NULLHZ_SOFT_GPU_MAGIC		0x6e756c6c687a2167ULL
struct nullhz_soft_gpu_stamp {
	__u64 magic;
	__u64 owner;
	__u64 address;		/* of the page */
	__u64 generation;	/* may grow while the page is in use */
};

/* What the device writes into a page whose stamp is right; .writes last. */
#define NULLHZ_SOFT_GPU_MARK		64	/* offset in the page, bytes */
struct nullhz_soft_gpu_mark {
	__u64 owner;
	__u64 address;		/* at which the device meant to write */
	__u64 generation;	/* of the stamp that it saw */
	__u64 writes;		/* running number of the run's write, from 1 */
};

/*
 * NULLHZ_SOFT_GPU_IOC_ORACLE: how to judge accesses to .pages. .table is an
 * array of one __u64 per page, page-aligned memory of the process that is pinned
 * until it is replaced, or the file is closed. The device reads an entry before
 * each access: a stamp with a lower generation is a violation. So user space
 * raises the entry of a page when the call that took the page away has returned,
 * and stamps the new page with at least that generation. A page whose magic is 0
 * is blank: new, and not yet stamped; no violation.
 */
struct nullhz_soft_gpu_oracle {
	struct nullhz_soft_gpu_pages pages;	/* count 0: ends judging */
	__u64 table;
	__u64 owner;
};

/* Kinds of violations. */
#define NULLHZ_SOFT_GPU_OLD		0	/* stamp with a generation below the minimum */
#define NULLHZ_SOFT_GPU_OWNER		1	/* stamp of another owner */
#define NULLHZ_SOFT_GPU_ADDRESS		2	/* stamp of another address */
#define NULLHZ_SOFT_GPU_POISON		3	/* page_poison=1: of a free page */
#define NULLHZ_SOFT_GPU_FOREIGN		4	/* no stamp at all */
#define NULLHZ_SOFT_GPU_KINDS		5

/* flags of PREFETCH, RUN and ACCESS */
#define NULLHZ_SOFT_GPU_WRITE		0x01	/* accesses are reads and writes */
#define NULLHZ_SOFT_GPU_RANDOM		0x02	/* RUN: pages at random, not in turn */

/* NULLHZ_SOFT_GPU_IOC_RUN: starts a thread of the device on a CPU. */
struct nullhz_soft_gpu_run {
	struct nullhz_soft_gpu_pages pages;
	__u64 accesses;		/* 0: until it is stopped */
	__u64 seed;		/* of RANDOM; else the index of the first page, modulo .count */
	__u32 flags;
	__u32 cpu;		/* online */
	__u32 run;		/* out: never 0 */
	__u32 pad;
};

/*
 * NULLHZ_SOFT_GPU_IOC_STOP: ends a run and tells what it did. .accesses is the
 * sum of hits and walks, of which each has one outcome: stamped, blank, unjudged,
 * refused or a violation.
 */
#define NULLHZ_SOFT_GPU_WAIT		0x01	/* not before its accesses are done */
struct nullhz_soft_gpu_stop {
	__u32 run;
	__u32 flags;
	__u64 accesses;
	__u64 hits;		/* translated by the TLB */
	__u64 walks;		/* of the page table */
	__u64 faults;		/* pages that were faulted in for it */
	__u64 writes;		/* marks written */
	__u64 stamped;		/* right stamps */
	__u64 blank;
	__u64 unjudged;		/* pages that the oracle knows nothing about */
	__u64 refused;		/* not registered, not mapped, or not writable */
	__u64 violations[NULLHZ_SOFT_GPU_KINDS];
	__u64 run_ns;
};

/*
 * NULLHZ_SOFT_GPU_IOC_ACCESS: one access by a TLB, done when the call returns.
 * Counts in the file's counters.
 */
#define NULLHZ_SOFT_GPU_STAMPED		0
#define NULLHZ_SOFT_GPU_BLANK		1
#define NULLHZ_SOFT_GPU_UNJUDGED	2
#define NULLHZ_SOFT_GPU_REFUSED		3
#define NULLHZ_SOFT_GPU_VIOLATION	4
struct nullhz_soft_gpu_access {
	__u64 address;
	__u32 flags;
	__u32 cpu;		/* whose TLB */
	__u32 outcome;		/* out */
	__u32 kind;		/* out: of the violation */
	__u32 hit;		/* out: 1: translated by the TLB */
	__u32 faults;		/* out: pages faulted in for it: 0 or more */
	struct nullhz_soft_gpu_stamp stamp;	/* out: as seen; zeros if refused */
};

/* NULLHZ_SOFT_GPU_IOC_VIOLATION: .index in (0, 1, ...), the rest out. */
struct nullhz_soft_gpu_violation {
	__u32 index;
	__u32 kind;
	__u32 cpu;		/* whose TLB */
	__u32 hit;		/* 1: translated by the TLB */
	__u64 mono_ns;		/* CLOCK_MONOTONIC */
	__u64 address;
	__u64 minimum;		/* generation, read before the access */
	__u64 pfn;		/* that the access went to */
	struct nullhz_soft_gpu_stamp seen;
};

/*
 * NULLHZ_SOFT_GPU_IOC_BIND: pins .count buffers of .pages pages each, which lie
 * one after the other from .user, and maps them one after the other from
 * .device. Drains first if unmaps of these device addresses are pending.
 * NULLHZ_SOFT_GPU_IOC_UNBIND: unmaps buffers, each by itself, that were bound
 * with these addresses and sizes; .user is 0. B0, B1 and B2 flush for each of
 * them, BATCHED defers.
 */
struct nullhz_soft_gpu_bind {
	__u64 user;
	__u64 device;
	__u32 pages;
	__u32 count;
};

/* NULLHZ_SOFT_GPU_IOC_COUNTERS: of this file, and, from device_ on, of the device. */
struct nullhz_soft_gpu_counters {
	__u64 events;		/* calls of notifiers, or zaps asked for by the library */
	__u64 elided;		/* of those, nothing was mapped there */
	__u64 would_block;	/* of those, could not sleep, and there was something */
	__u64 zapped;		/* pages taken out of the page table */
	__u64 event_ns;		/* in those calls, with their flushes; not of BATCHED, TYPED */
	__u64 event_max_ns;
	__u64 faults;		/* pages faulted in */
	__u64 refused;		/* pages that could not be */
	__u64 retries;		/* faults begun again since an event came between */
	__u64 unbinds;		/* buffers unmapped */
	__u64 intervals;	/* registered now */
	__u64 notifiers;	/* registered now; BATCHED, TYPED: with the library */
	__u64 tables;		/* page tables of all levels */
	__u64 accesses;		/* of ended runs, and of ACCESS */
	__u64 violations;	/* those of active runs included */

	__u64 device_flushes;	/* acknowledged or not; each is one broadcast */
	__u64 device_full;	/* of those, of everything */
	__u64 device_spans;	/* in the others */
	__u64 device_handled;	/* times that a CPU handled a broadcast */
	__u64 device_remote;	/* TLBs of offline CPUs that were flushed from elsewhere */
	__u64 device_drained;	/* accesses in flight that a flush waited for */
	__u64 device_cancelled;	/* walks in flight whose result was not cached */
	__u64 device_unanswered;	/* flushes without acknowledgement */
	__u64 device_resets;
	__u64 device_flush_ns;
	__u64 device_flush_max_ns;
};

/* NULLHZ_SOFT_GPU_IOC_CPU: .cpu in, the rest out. */
struct nullhz_soft_gpu_cpu {
	__u32 cpu;
	__u32 valid;		/* entries that are */
	__u64 handled;		/* broadcasts handled, each by an interrupt or by the caller */
	__u64 interrupted;	/* of those, while an access was in flight */
	__u64 filled;		/* entries written */
	__u64 dropped;		/* entries invalidated by spans */
};

/*
 * NULLHZ_SOFT_GPU_IOC_FAULTS: how the device misbehaves, all of it, until it is
 * told otherwise or the module is unloaded. All 0: it does not.
 */
#define NULLHZ_SOFT_GPU_NO_MUTANT	0
#define NULLHZ_SOFT_GPU_NO_DRAIN	1	/* flushes neither wait for nor cancel walks */
struct nullhz_soft_gpu_faults {
	__u32 unanswered;	/* the next flushes, so many, are not acknowledged */
	__u32 failed_resets;	/* the next resets, so many, fail */
	__u32 flush_delay_us;	/* each flush takes longer, at most 100000 */
	__u32 walk_delay_us;	/* each walk takes longer, at most 1000 */
	__u32 mutant;		/* while it is not 0, accesses are reads only */
	__u32 pad;
};

#define NULLHZ_SOFT_GPU_IOC_MAGIC	0xF4
#define NULLHZ_SOFT_GPU_IOC_INFO	\
	_IOR(NULLHZ_SOFT_GPU_IOC_MAGIC, 0, struct nullhz_soft_gpu_info)
#define NULLHZ_SOFT_GPU_IOC_MODE	\
	_IOW(NULLHZ_SOFT_GPU_IOC_MAGIC, 1, struct nullhz_soft_gpu_mode)
#define NULLHZ_SOFT_GPU_IOC_REGISTER	\
	_IOW(NULLHZ_SOFT_GPU_IOC_MAGIC, 2, struct nullhz_soft_gpu_range)
#define NULLHZ_SOFT_GPU_IOC_UNREGISTER	\
	_IOW(NULLHZ_SOFT_GPU_IOC_MAGIC, 3, struct nullhz_soft_gpu_range)
#define NULLHZ_SOFT_GPU_IOC_PREFETCH	\
	_IOWR(NULLHZ_SOFT_GPU_IOC_MAGIC, 4, struct nullhz_soft_gpu_prefetch)
#define NULLHZ_SOFT_GPU_IOC_ORACLE	\
	_IOW(NULLHZ_SOFT_GPU_IOC_MAGIC, 5, struct nullhz_soft_gpu_oracle)
#define NULLHZ_SOFT_GPU_IOC_RUN		\
	_IOWR(NULLHZ_SOFT_GPU_IOC_MAGIC, 6, struct nullhz_soft_gpu_run)
#define NULLHZ_SOFT_GPU_IOC_STOP	\
	_IOWR(NULLHZ_SOFT_GPU_IOC_MAGIC, 7, struct nullhz_soft_gpu_stop)
#define NULLHZ_SOFT_GPU_IOC_ACCESS	\
	_IOWR(NULLHZ_SOFT_GPU_IOC_MAGIC, 8, struct nullhz_soft_gpu_access)
#define NULLHZ_SOFT_GPU_IOC_VIOLATION	\
	_IOWR(NULLHZ_SOFT_GPU_IOC_MAGIC, 9, struct nullhz_soft_gpu_violation)
#define NULLHZ_SOFT_GPU_IOC_BIND	\
	_IOW(NULLHZ_SOFT_GPU_IOC_MAGIC, 10, struct nullhz_soft_gpu_bind)
#define NULLHZ_SOFT_GPU_IOC_UNBIND	\
	_IOW(NULLHZ_SOFT_GPU_IOC_MAGIC, 11, struct nullhz_soft_gpu_bind)
/* The device is given work: pending unmaps are done when the call returns. */
#define NULLHZ_SOFT_GPU_IOC_SUBMIT	\
	_IO(NULLHZ_SOFT_GPU_IOC_MAGIC, 12)
#define NULLHZ_SOFT_GPU_IOC_COUNTERS	\
	_IOR(NULLHZ_SOFT_GPU_IOC_MAGIC, 13, struct nullhz_soft_gpu_counters)
#define NULLHZ_SOFT_GPU_IOC_CPU		\
	_IOWR(NULLHZ_SOFT_GPU_IOC_MAGIC, 14, struct nullhz_soft_gpu_cpu)
#define NULLHZ_SOFT_GPU_IOC_FAULTS	\
	_IOW(NULLHZ_SOFT_GPU_IOC_MAGIC, 15, struct nullhz_soft_gpu_faults)

/*
 * Errors
 *
 * open()	EACCES: not in the node's group. ENOSPC: too many contexts. ENOMEM.
 *
 * Any ioctl()	ENOTTY: unknown command, or one that this device does not have
 *		(info.modes, info.features). EINVAL: a known command's number with
 *		another size (the smaller device, in C: ENOTTY), a field out of its
 *		range, a pad that is not 0. EFAULT: bad pointer. EPERM: all but INFO,
 *		STOP, VIOLATION, COUNTERS and CPU by a process that does not have the
 *		memory of the one that opened the file (fork(), exec(), a file that
 *		was passed on). ESRCH: that process has gone. EINTR: killed. ENOMEM.
 * MODE		EBUSY: a run is active, or a buffer is bound.
 * REGISTER	EEXIST: overlaps with a registered range. ENOSPC: too many intervals.
 *		EOVERFLOW: beyond the addresses of a process.
 * UNREGISTER	ENOENT: no such range. EBUSY: a run is active.
 * ORACLE	EBUSY: a run is active. ENOSPC: the table is too large.
 * RUN		EINVAL: no such CPU, or offline. ENOSPC: too many runs.
 *		EPERM: WRITE while there is a mutant.
 * STOP		ENOENT: no such run. ERESTARTSYS: signal while WAIT waits. EFAULT: if
 *		the pointer is bad only for the answer, the run has ended.
 * ACCESS	EINVAL: no such CPU. EPERM: WRITE while there is a mutant.
 * VIOLATION	ENOENT: not so many, or its details were not kept.
 * BIND		EBUSY: a buffer is bound there. EINVAL: not in the aperture.
 *		EFAULT: not memory that can be pinned. ENOSPC: too many pages.
 * UNBIND	ENOENT: no such buffer; nothing is unmapped then.
 * FAULTS	EPERM: no CAP_SYS_ADMIN. EOPNOTSUPP: a mutant, and no test kernel.
 */

#endif /* _UAPI_NULLHZ_SOFT_GPU_H */
