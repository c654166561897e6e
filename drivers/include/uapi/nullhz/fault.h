/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * nullhz fault bus: /dev/nullhz-fault
 *
 * One stream of fixed-size records for every fault source of a node. Every
 * open file has its own cursor and filter; read() returns whole records only.
 * All multi-byte fields are in the CPU's byte order; layouts are the same for
 * 32-bit and 64-bit programs.
 */
#ifndef _UAPI_NULLHZ_FAULT_H
#define _UAPI_NULLHZ_FAULT_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Raised whenever a layout or a meaning below changes incompatibly. */
#define NULLHZ_FAULT_ABI_VERSION	1

/* sizeof(struct nullhz_fault_event); a later version may only grow it. */
#define NULLHZ_FAULT_EVENT_SIZE		256
#define NULLHZ_FAULT_PAYLOAD_SIZE	168

/* nullhz_fault_event.level; ordered, higher is worse. */
#define NULLHZ_FAULT_WATCH		0	/* worth counting */
#define NULLHZ_FAULT_DEGRADING		1	/* checkpoint at the next step */
#define NULLHZ_FAULT_IMMINENT		2	/* snapshot now; opens an incident */
#define NULLHZ_FAULT_FATAL		3	/* a record only: of the end of a node */

/* nullhz_fault_event.flags */
#define NULLHZ_FAULT_F_BOOT		0x01	/* before the source came; FATAL: before the boot */
#define NULLHZ_FAULT_F_PREVIOUS_BOOT	0x02	/* read back from persistent storage */
#define NULLHZ_FAULT_F_OPENED		0x04	/* this record opened its incident */
#define NULLHZ_FAULT_F_SUMMARY		0x08	/* stands for .count occurrences */
#define NULLHZ_FAULT_F_INJECTED		0x10	/* injected in software, says the source */
#define NULLHZ_FAULT_F_REPLAYED		0x20	/* again: its incident is unacknowledged */

/* nullhz_fault_event.source */
#define NULLHZ_FAULT_SRC_BUS		0	/* the bus itself: incident transitions */
#define NULLHZ_FAULT_SRC_MCE		1
#define NULLHZ_FAULT_SRC_STALL		2
#define NULLHZ_FAULT_SRC_PCIE_AER	3
#define NULLHZ_FAULT_SRC_GHES		4
#define NULLHZ_FAULT_SRC_GPU		5
#define NULLHZ_FAULT_SRC_NIC		6
#define NULLHZ_FAULT_SRC_THERMAL	7
/* 32..63: for out-of-tree sources, by agreement on the node. */
#define NULLHZ_FAULT_SRC_PRIVATE	32
#define NULLHZ_FAULT_SRC_MAX		63

/* nullhz_fault_event.kind of NULLHZ_FAULT_SRC_BUS; payload: struct nullhz_fault_bus */
#define NULLHZ_FAULT_BUS_ACKED		1	/* an incident was acknowledged */
#define NULLHZ_FAULT_BUS_EXPIRED	2	/* its deadline passed unacknowledged */
/*
 * An IMMINENT event whose incident is open already, or was opened less than a
 * cooldown ago, joins that incident. After a snapshot that failed, the cooldown
 * is 1 s, and doubles with each further failure up to what it is by default; a
 * success makes it start over. The first 16 in a second of each source
 * are records of their own; the others are added up and come, at most every
 * 100 ms, as one record of this kind with F_SUMMARY and their number in .count.
 * It is a WATCH record of source BUS, and passes filters as such: whoever wants
 * all counts under a filter of levels or sources reads .joined of the incident
 * (NULLHZ_FAULT_IOC_INCIDENT), or filters what it has read.
 */
#define NULLHZ_FAULT_BUS_STORM		3
/*
 * Follows a record that was kept from a node's previous boot and has its flags
 * and boot_id: .incident and .snapshot_id are the last ones of that boot,
 * .source is the source that kept the record.
 */
#define NULLHZ_FAULT_BUS_LAST_WORDS	4

struct nullhz_fault_bus {
	__u64 incident;
	__u64 snapshot_id;	/* ACKED: as given by the acknowledger */
	__u64 age_ns;		/* since the incident was opened, 0: unknown */
	__s32 result;		/* ACKED: 0 or a negative errno of the snapshot */
	__u32 joined;		/* events that joined the incident so far */
	__u32 source;		/* of the incident */
	__u32 acker;		/* ACKED: pid in the initial namespace */
};

/* nullhz_fault_event.kind of NULLHZ_FAULT_SRC_MCE: how the record was graded */
#define NULLHZ_MCE_INVALID		0	/* VAL = 0 or a bank that cannot be */
#define NULLHZ_MCE_CORRECTED		1
#define NULLHZ_MCE_DEFERRED		2	/* AMD deferred, Intel UCNA */
#define NULLHZ_MCE_ACTION_OPTIONAL	3	/* Intel SRAO */
#define NULLHZ_MCE_ACTION_REQUIRED	4	/* Intel SRAR, recovered */
#define NULLHZ_MCE_FATAL		5	/* context corrupt, or no recovery */
#define NULLHZ_MCE_HIDDEN_UC		6	/* uncorrected, logged as corrected (SKX quirk) */

/* struct nullhz_fault_mce.reason: why the level is what it is; a bit mask */
#define NULLHZ_MCE_R_GRADE		0x0001	/* the record's own grade */
#define NULLHZ_MCE_R_PAGE		0x0002	/* a page's bucket filled */
#define NULLHZ_MCE_R_DIMM		0x0004	/* a DIMM's (rank's, channel's) bucket filled */
#define NULLHZ_MCE_R_BANK		0x0008	/* a bank's bucket filled */
#define NULLHZ_MCE_R_SOCKET		0x0010	/* a socket's bucket filled */
#define NULLHZ_MCE_R_STORM		0x0020	/* corrected errors come too fast */
#define NULLHZ_MCE_R_OVERFLOW		0x0040	/* OVER set on a corrected error */
#define NULLHZ_MCE_R_COLUMNS		0x0080	/* several columns of one row */
#define NULLHZ_MCE_R_PARITY		0x0100	/* command/address parity */
#define NULLHZ_MCE_R_ESCALATED		0x0200	/* DEGRADING repeated until IMMINENT */
#define NULLHZ_MCE_R_HIDDEN_UC		0x0400	/* SKX quirk */
#define NULLHZ_MCE_R_EVICTED		0x0800	/* the bucket table was full: counts restarted */

/* Payload of NULLHZ_FAULT_SRC_MCE: the registers as read, and the verdict. */
struct nullhz_fault_mce {
	__u64 status;		/* MCi_STATUS */
	__u64 addr;		/* MCi_ADDR */
	__u64 misc;		/* MCi_MISC */
	__u64 mcgstatus;	/* MCG_STATUS */
	__u64 ip;		/* of user space; 0: unknown, or the kernel's */
	__u64 synd;		/* MCA_SYND, SMCA only */
	__u64 ipid;		/* MCA_IPID, SMCA only */
	__u64 synd1;		/* MCA_SYND1, AMD only */
	__u64 synd2;		/* MCA_SYND2, AMD only */
	__u64 mcgcap;		/* MCG_CAP */
	__u64 ppin;
	__u64 tsc;
	__u32 cpuid;		/* CPUID(1).EAX of the reporting CPU */
	__u32 apicid;
	__u32 socketid;
	__u32 microcode;
	__u8  cpuvendor;	/* the kernel's X86_VENDOR_* */
	__u8  bank;		/* 255: made up by firmware (GHES), no bank */
	__u8  cs;
	__u8  kernel_severity;	/* struct mce.severity as the kernel graded it; 0: not graded */
	__u32 reason;		/* NULLHZ_MCE_R_* */
	__u32 page_count;	/* corrected errors of this page in its bucket's window */
	__u32 dimm_count;
	__u32 bank_count;
	__u32 socket_count;
	__u32 smca_type;	/* SMCA bank type + 1, 0: unknown or not SMCA */
	__u32 pad;
};

/* nullhz_fault_event.kind of NULLHZ_FAULT_SRC_PCIE_AER */
#define NULLHZ_AER_CORRECTABLE		1
#define NULLHZ_AER_NONFATAL		2
#define NULLHZ_AER_FATAL		3

/* Payload of NULLHZ_FAULT_SRC_PCIE_AER: the device, and what it has logged. */
struct nullhz_fault_aer {
	__u32 status;		/* (Un)Correctable Error Status, unmasked; 0: unreachable */
	__u32 advisory;		/* Uncorrectable Error Status, signalled as correctable */
	__u32 tlp[4];		/* header of the packet with the error, if .has_tlp */
	__u32 corrected;	/* correctable errors of the device so far, this one included */
	__u32 domain;		/* PCI segment */
	__u16 vendor;
	__u16 device;
	__u8  bus;
	__u8  devfn;		/* device number << 3 | function number */
	__u8  has_tlp;
	__u8  pad;
};

/* Payload of NULLHZ_FAULT_SRC_STALL is defined by <nullhz/stall.h>. */

struct nullhz_fault_event {
	__u32 size;		/* NULLHZ_FAULT_EVENT_SIZE of the writer */
	__u16 version;		/* NULLHZ_FAULT_ABI_VERSION */
	__u8  level;		/* NULLHZ_FAULT_WATCH.. */
	__u8  flags;		/* NULLHZ_FAULT_F_* */
	__u64 seq;		/* 1, 2, ... without a gap, since the bus was loaded */
	__u64 mono_ns;		/* CLOCK_MONOTONIC when it happened */
	__u64 real_ns;		/* CLOCK_REALTIME when it happened */
	__u8  boot_id[16];	/* random UUID of the bus that it happened on, new at every load */
	__u16 source;		/* NULLHZ_FAULT_SRC_* */
	__u16 kind;		/* by source */
	__u32 count;		/* occurrences that this record stands for, >= 1 */
	__s32 cpu;		/* -1: unknown or none */
	__s32 node;		/* NUMA node, -1: unknown or none */
	__u64 incident;		/* 0: none; of the boot that boot_id tells */
	__u64 lost;		/* set by read(): matching records missed before this one */
	__u32 payload_len;	/* bytes of .payload in use */
	__u32 pad;
	__u8  payload[NULLHZ_FAULT_PAYLOAD_SIZE];
};

/* NULLHZ_FAULT_IOC_INFO */
struct nullhz_fault_info {
	__u32 abi_version;
	__u32 event_size;
	__u32 ring_events;	/* records kept for replay */
	__u32 open_incidents;	/* unacknowledged: open or expired */
	__u64 head_seq;		/* seq of the newest record, 0: none yet */
	__u64 sources;		/* bit n: source n is registered now */
	__u64 last_incident;	/* 0: none yet */
	__u64 last_snapshot_id;	/* of the newest successful acknowledgement */
	__u8  boot_id[16];
};

/*
 * NULLHZ_FAULT_IOC_FILTER: what this file reads, polls for and is signalled
 * about. A record passes when its level is at least .min_level and its
 * source's bit is set. Default: everything. What the bus says itself (ACKED,
 * EXPIRED, STORM) is of level WATCH and source BUS, whatever it is about.
 */
struct nullhz_fault_filter {
	__u32 min_level;
	__u32 pad;		/* 0 */
	__u64 source_mask;	/* not 0 */
};

/*
 * NULLHZ_FAULT_IOC_SEEK: where this file's next read() starts. What is no
 * longer, or not yet, in the ring is not counted as lost: SEQ starts with the
 * nearest record that is there.
 *
 * The event that opened an incident which nobody has acknowledged outlives the
 * ring. It is delivered first, with F_REPLAYED, when the ring has dropped it
 * before the file was opened or sought OLDEST, or before the file read it.
 */
#define NULLHZ_FAULT_SEEK_OLDEST	0	/* as after open(): the replay ring */
#define NULLHZ_FAULT_SEEK_NEWEST	1	/* only what comes from now on */
#define NULLHZ_FAULT_SEEK_SEQ		2	/* from .seq */
struct nullhz_fault_seek {
	__u32 whence;
	__u32 pad;		/* 0 */
	__u64 seq;		/* 0 unless NULLHZ_FAULT_SEEK_SEQ */
};

/* NULLHZ_FAULT_IOC_ACK: the acknowledger has dealt with an incident. */
struct nullhz_fault_ack {
	__u64 incident;
	__u64 snapshot_id;	/* BTRFS subvolume id; 0 only with .result < 0 */
	__s32 result;		/* 0, or the negative errno that the snapshot failed with */
	__u32 pad;		/* 0 */
};

/* nullhz_fault_incident.state */
#define NULLHZ_INCIDENT_OPEN		1
#define NULLHZ_INCIDENT_ACKED		2
#define NULLHZ_INCIDENT_EXPIRED		3	/* may still be acknowledged, late */

/* NULLHZ_FAULT_IOC_INCIDENT: .incident in, the rest out. */
struct nullhz_fault_incident {
	__u64 incident;
	__u64 opened_ns;	/* CLOCK_MONOTONIC */
	__u64 deadline_ns;	/* CLOCK_MONOTONIC */
	__u64 acked_ns;		/* CLOCK_MONOTONIC, 0: not yet */
	__u64 snapshot_id;
	__u64 first_seq;	/* of the event that opened it */
	__u64 joined;		/* events that joined it, the first one included */
	__s32 result;
	__u32 state;		/* NULLHZ_INCIDENT_* */
	__u32 source;
	__u32 late;		/* 1: acknowledged after its deadline */
};

#define NULLHZ_FAULT_IOC_MAGIC		0xF1
#define NULLHZ_FAULT_IOC_INFO		_IOR(NULLHZ_FAULT_IOC_MAGIC, 0, struct nullhz_fault_info)
#define NULLHZ_FAULT_IOC_FILTER		_IOW(NULLHZ_FAULT_IOC_MAGIC, 1, struct nullhz_fault_filter)
#define NULLHZ_FAULT_IOC_SEEK		_IOW(NULLHZ_FAULT_IOC_MAGIC, 2, struct nullhz_fault_seek)
#define NULLHZ_FAULT_IOC_ACK		_IOW(NULLHZ_FAULT_IOC_MAGIC, 3, struct nullhz_fault_ack)
#define NULLHZ_FAULT_IOC_INCIDENT	\
	_IOWR(NULLHZ_FAULT_IOC_MAGIC, 4, struct nullhz_fault_incident)

/*
 * Errors
 *
 * open()	EACCES: not in the node's group.
 * read()	EAGAIN: nothing to read, O_NONBLOCK. EINVAL: room for less than
 *		one record. EFAULT: bad buffer; no record is consumed.
 *		EINTR/ERESTART: interrupted before the first record.
 * ioctl()	ENOTTY: unknown command. EINVAL: a known command's number with
 *		another size, a field out of its range, a pad that is not 0.
 *		EFAULT: bad pointer. EPERM: ACK without CAP_SYS_ADMIN.
 *		ENOENT: ACK, INCIDENT: no such incident (never opened, or older
 *		than the incident table). EALREADY: ACK of an acknowledged one.
 */

#endif /* _UAPI_NULLHZ_FAULT_H */
