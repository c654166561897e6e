/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * nullhz stall watchdog: /dev/nullhz-stall
 *
 * A training process opens the device, registers one rank per open file and
 * maps one page. From then on a heartbeat is one store to that page and a
 * checkpoint request is one load from it; nobody makes a system call. The open
 * file is the registration: it lasts until LEAVE, until the process is dead, or
 * until the last descriptor is closed and the page is not mapped any more.
 *
 * All multi-byte fields are in the CPU's byte order; layouts are the same for
 * 32-bit and 64-bit programs.
 */
#ifndef _UAPI_NULLHZ_STALL_H
#define _UAPI_NULLHZ_STALL_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Raised whenever a layout or a meaning below changes incompatibly. */
#define NULLHZ_STALL_ABI_VERSION	1

/* mmap() length; offset 0, MAP_SHARED, one mapping of one page per file. */
#define NULLHZ_STALL_PAGE_SIZE		4096

/* nullhz_stall_page.phase: what a rank is doing, each with a deadline of its own */
#define NULLHZ_STALL_PHASE_INIT		0	/* loading, compiling; never learned */
#define NULLHZ_STALL_PHASE_STEP		1	/* a training step */
#define NULLHZ_STALL_PHASE_COMM_WAIT	2	/* waits for other ranks: never leads to a reset */
#define NULLHZ_STALL_PHASE_CHECKPOINT	3	/* writes a checkpoint */
#define NULLHZ_STALL_PHASE_EVAL		4	/* evaluates */
#define NULLHZ_STALL_PHASES		5

/* nullhz_stall_page.state, nullhz_fault_stall.state: rungs of the ladder */
#define NULLHZ_STALL_OK			0
#define NULLHZ_STALL_SUSPECT		1	/* most of its deadline has passed */
#define NULLHZ_STALL_STALLED		2	/* the deadline has passed: incident, snapshot */
#define NULLHZ_STALL_NO_ACK		3	/* still stalled: signals by policy */
#define NULLHZ_STALL_PREBITE		4	/* reason kept for the next boot, permit shut */

/*
 * The page. The first line is the trainer's, the second the kernel's; the
 * kernel reads the first with relaxed loads about every 10 ms, from a
 * housekeeping CPU, and trusts none of it.
 */
struct nullhz_stall_page {
	/* written by the trainer */
	__u64 step;		/* the heartbeat: any change of it is progress */
	__u64 progress;		/* progress within a step, optional: any change counts */
	__u32 phase;		/* NULLHZ_STALL_PHASE_*; one out of range is taken as STEP */
	__u32 checkpoint_ack;	/* the last .checkpoint_request that was answered */
	__u64 trainer_reserved[5];
	/* written by the kernel */
	__u32 checkpoint_request; /* not .checkpoint_ack: a checkpoint is wanted now */
	__u32 state;		/* NULLHZ_STALL_OK.. */
	__u64 incident;		/* of the fault bus, 0: none */
	__u64 deadline_ns;	/* of the phase: without progress for so long, a stall */
	__u64 sampled_ns;	/* CLOCK_MONOTONIC of the sampler's last look */
	__u64 kernel_reserved[4];
};

/* NULLHZ_STALL_IOC_INFO */
struct nullhz_stall_info {
	__u32 abi_version;
	__u32 page_size;	/* NULLHZ_STALL_PAGE_SIZE */
	__u32 max_ranks;	/* registrations at a time on this node */
	__u32 ranks;		/* registered now */
	__u32 period_ms;	/* of the sampler */
	__u32 max_grace_ms;	/* bound of NULLHZ_STALL_IOC_GRACE */
	__u32 armed;		/* 1: a hardware watchdog will reset the node */
	__u32 resets;		/* watchdog resets within the budget's window */
};

#define NULLHZ_STALL_NAME_SIZE		32

/*
 * nullhz_stall_register.flags
 *
 * TELLS_WAITS: every wait for other ranks, outside of INIT, is in COMM_WAIT:
 * barriers, collectives, and those that a framework hides in a backward pass or
 * in a checkpoint. Only then does another phase say that the rank is stuck by
 * itself, and is evidence against its node (NULLHZ_STALL_E_PHASE). A rank that
 * promises this and keeps silent about one of its waits has its healthy node
 * reset when a peer hangs.
 */
#define NULLHZ_STALL_F_TELLS_WAITS	0x01

/*
 * NULLHZ_STALL_IOC_REGISTER: this file is a rank. The calling thread is the one
 * whose state and stack are looked at when the rank stalls, together with the
 * other threads of its process.
 */
struct nullhz_stall_register {
	__u32 rank;		/* global rank; no other of the job has it on the node */
	__u32 flags;		/* NULLHZ_STALL_F_* */
	char  name[NULLHZ_STALL_NAME_SIZE]; /* job, NUL-terminated, printable ASCII, not empty */
	/* ms; 0: learned (INIT, and until enough is known: the module's default) */
	__u32 deadline_ms[NULLHZ_STALL_PHASES];
	__u32 floor_ms;		/* no learned deadline is shorter; 0: the module's */
	__u32 warmup;		/* steps that are not learned from; 0: the module's */
	__u32 pad;		/* 0 */
};

/* NULLHZ_STALL_IOC_GRACE: no deadline for so long; 0 ends it. */
struct nullhz_stall_grace {
	__u32 ms;		/* at most nullhz_stall_info.max_grace_ms */
	__u32 pad;		/* 0 */
};

/*
 * NULLHZ_STALL_IOC_CHECKPOINT: asks every rank for a checkpoint, and
 * NULLHZ_STALL_IOC_ANSWERS: how far they are with a request. While nobody has
 * answered the last request, it is the answer to a new one, too.
 */
struct nullhz_stall_checkpoint {
	__u32 request;		/* CHECKPOINT: out; ANSWERS: in. Never 0 */
	__u32 asked;		/* out: ranks that were registered at the request */
	__u32 answered;		/* out: of those, how many have answered */
	__u32 gone;		/* out: of those, how many have left or crashed without an answer */
};

/* NULLHZ_STALL_IOC_RANK: .index in (0, 1, ... until ENOENT), the rest out. */
struct nullhz_stall_rank {
	__u32 index;
	__u32 rank;
	char  name[NULLHZ_STALL_NAME_SIZE];
	__s32 pid;		/* of the process, as the caller sees it; 0: not visible or gone */
	__s32 tid;
	__u32 state;		/* NULLHZ_STALL_OK.. */
	__u32 phase;
	__u64 step;
	__u64 progress;
	__u64 age_ns;		/* since the last progress */
	__u64 deadline_ns;
	__u64 grace_ns;		/* left, 0: none */
	__u64 steps_seen;	/* changes of .step that were seen */
	__u32 stalls;		/* times that it reached STALLED */
	__u32 checkpoint_ack;	/* as in its page: the last request that it answered */
};

#define NULLHZ_STALL_IOC_MAGIC		0xF2
#define NULLHZ_STALL_IOC_INFO		_IOR(NULLHZ_STALL_IOC_MAGIC, 0, struct nullhz_stall_info)
#define NULLHZ_STALL_IOC_REGISTER	\
	_IOW(NULLHZ_STALL_IOC_MAGIC, 1, struct nullhz_stall_register)
#define NULLHZ_STALL_IOC_GRACE		_IOW(NULLHZ_STALL_IOC_MAGIC, 2, struct nullhz_stall_grace)
/* A clean end: what is closed without it has crashed. */
#define NULLHZ_STALL_IOC_LEAVE		_IO(NULLHZ_STALL_IOC_MAGIC, 3)
#define NULLHZ_STALL_IOC_CHECKPOINT	\
	_IOR(NULLHZ_STALL_IOC_MAGIC, 4, struct nullhz_stall_checkpoint)
#define NULLHZ_STALL_IOC_ANSWERS	\
	_IOWR(NULLHZ_STALL_IOC_MAGIC, 5, struct nullhz_stall_checkpoint)
#define NULLHZ_STALL_IOC_RANK		_IOWR(NULLHZ_STALL_IOC_MAGIC, 6, struct nullhz_stall_rank)

/* nullhz_fault_event.kind of NULLHZ_FAULT_SRC_STALL; payload: struct nullhz_fault_stall */
#define NULLHZ_STALL_EV_SUSPECT		1	/* WATCH: stacks are in the kernel log */
#define NULLHZ_STALL_EV_STALLED		2	/* IMMINENT */
#define NULLHZ_STALL_EV_NO_ACK		3	/* DEGRADING */
#define NULLHZ_STALL_EV_PREBITE		4	/* FATAL: kept for the next boot; the node resets */
#define NULLHZ_STALL_EV_RECOVERED	5	/* WATCH: progress again, .state is where it was */
#define NULLHZ_STALL_EV_REGISTERED	6	/* WATCH */
#define NULLHZ_STALL_EV_LEFT		7	/* WATCH: clean end */
#define NULLHZ_STALL_EV_CRASHED		8	/* DEGRADING: closed or exited without LEAVE */
#define NULLHZ_STALL_EV_HELD		9	/* DEGRADING: would reset, but for .held */
#define NULLHZ_STALL_EV_RESET		10	/* FATAL, of the boot before: no last words */
#define NULLHZ_STALL_EV_BAD_PAGE	11	/* WATCH, once: phase out of range */
#define NULLHZ_STALL_EV_LATE_SAMPLER	12	/* DEGRADING: itself held up, for .age_ns */

/* struct nullhz_fault_stall.culprit: what the rank's process was seen doing */
#define NULLHZ_STALL_C_UNKNOWN		0
#define NULLHZ_STALL_C_SPINNING		1	/* on a CPU, or runnable */
#define NULLHZ_STALL_C_SLEEPING		2	/* interruptible: waits for something */
#define NULLHZ_STALL_C_DISK		3	/* D state: in the kernel, uninterruptible */
#define NULLHZ_STALL_C_STOPPED		4	/* SIGSTOP or traced */
#define NULLHZ_STALL_C_FROZEN		5	/* cgroup or system freezer */
#define NULLHZ_STALL_C_EXITED		6	/* dead or a zombie */

/* struct nullhz_fault_stall.evidence: why this node, and not a peer, is at fault; a bit mask */
#define NULLHZ_STALL_E_PHASE		0x01	/* promised to tell its waits, and is in none */
#define NULLHZ_STALL_E_DISK		0x02	/* a thread of it is stuck in D state */
#define NULLHZ_STALL_E_HOUSEKEEPING	0x04	/* a housekeeping CPU does not run its threads */
#define NULLHZ_STALL_E_AGENT		0x08	/* nobody acknowledged in time, unlike before */

/* struct nullhz_fault_stall.held */
#define NULLHZ_STALL_H_NOT		0
#define NULLHZ_STALL_H_DISARMED		1	/* no hardware watchdog, or reset=0 */
#define NULLHZ_STALL_H_BUDGET		2	/* too many resets within the window */
#define NULLHZ_STALL_H_NO_EVIDENCE	3	/* only a peer is to blame */

/* nullhz_fault_stall.rank: no rank, but the program that pings our standard watchdog */
#define NULLHZ_STALL_FEEDER		0xffffffff

struct nullhz_fault_stall {
	__u64 step;
	__u64 progress;
	__u64 age_ns;		/* since the last progress */
	__u64 deadline_ns;
	__u64 incident;		/* that the stall opened or joined, 0: none */
	__u32 rank;
	__u32 phase;
	__u32 state;		/* NULLHZ_STALL_OK.. */
	__u32 culprit;		/* NULLHZ_STALL_C_* */
	__u32 evidence;		/* NULLHZ_STALL_E_* */
	__u32 held;		/* NULLHZ_STALL_H_* */
	__s32 pid;		/* in the initial namespace */
	__s32 tid;		/* of the thread that .culprit and .comm tell of */
	__u32 ranks;		/* registered */
	__u32 stalled;		/* of those, STALLED or worse */
	__u32 resets;		/* watchdog resets within the budget's window */
	__u32 timeout_ms;	/* of the hardware watchdog, 0: none */
	char  name[NULLHZ_STALL_NAME_SIZE];
	char  comm[16];
};

/*
 * Errors
 *
 * open()	EACCES: not in the node's group.
 * mmap()	EINVAL: another length or offset, not MAP_SHARED, not both readable
 *		and writable, executable, or the file is no rank. EBUSY: mapped before.
 * ioctl()	ENOTTY: unknown command. EINVAL: a known command's number with
 *		another size, a field out of its range, a pad that is not 0; GRACE,
 *		LEAVE: the file is no rank. EFAULT: bad pointer.
 *		REGISTER: EBUSY: the file is or was a rank; EEXIST: the job's
 *		rank is registered by another file; ENOSPC: max_ranks; ENOMEM.
 *		CHECKPOINT: EPERM without CAP_SYS_ADMIN. ANSWERS: ENOENT: not the
 *		newest request. RANK: ENOENT: no more ranks.
 *
 * A mapping keeps its file open. After LEAVE it stays, and does nothing. It is
 * not inherited by fork().
 */

#endif /* _UAPI_NULLHZ_STALL_H */
