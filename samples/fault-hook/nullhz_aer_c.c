// SPDX-License-Identifier: GPL-2.0
/*
 * nullhz_aer_c: errors of PCI Express devices as events on the fault bus.
 *
 * nullhz_aer in C; its levels are explained there.
 */

#include <linux/aer.h>
#include <linux/cleanup.h>
#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/pci.h>
#include <linux/string.h>
#include <nullhz/fault.h>

/* So many correctable errors of a device in WINDOW are too many. */
#define LIMIT		60
#define WINDOW		(60 * HZ)
/* How many devices are told apart; if there are more, old ones are forgotten. */
#define DEVICES		64

/* Correctable errors of a device. */
struct aer_counts {
	bool used;
	int domain;
	u16 id;		/* bus, device and function */
	u64 since;	/* when the window began, jiffies */
	u32 in_window;
	u32 total;
};

static struct nullhz_fault_source *aer_source;
static struct aer_counts aer_counts[DEVICES];
static DEFINE_MUTEX(aer_counts_lock);

static struct aer_counts *aer_counts_of(struct pci_dev *dev)
{
	struct aer_counts *entry, *oldest = aer_counts;

	for (entry = aer_counts; entry < aer_counts + DEVICES; entry++) {
		if (entry->used && entry->domain == pci_domain_nr(dev->bus) &&
		    entry->id == pci_dev_id(dev))
			return entry;
		if (entry->since < oldest->since)
			oldest = entry;
	}
	*oldest = (struct aer_counts) {
		.used = true,
		.domain = pci_domain_nr(dev->bus),
		.id = pci_dev_id(dev),
		.since = get_jiffies_64(),
	};
	return oldest;
}

/* Counts a correctable error; returns whether it is one too many. */
static bool aer_count(struct pci_dev *dev, u32 *total)
{
	struct aer_counts *entry;

	guard(mutex)(&aer_counts_lock);
	entry = aer_counts_of(dev);
	if (get_jiffies_64() - entry->since >= WINDOW) {
		entry->since = get_jiffies_64();
		entry->in_window = 0;
	}
	if (entry->total < U32_MAX)
		entry->total++;
	*total = entry->total;
	return ++entry->in_window % LIMIT == 0;
}

static int aer_notify(struct notifier_block *nb, unsigned long severity, void *data)
{
	const struct aer_report *error = data;
	struct pci_dev *dev = error->dev;
	struct nullhz_fault_aer payload = {
		.status = error->status,
		.advisory = error->anfe_status,
		.domain = pci_domain_nr(dev->bus),
		.vendor = dev->vendor,
		.device = dev->device,
		.bus = dev->bus->number,
		.devfn = dev->devfn,
		.has_tlp = !!error->tlp,
	};
	struct nullhz_fault_report report = {
		.cpu = -1,
		.node = -1,
		.count = 1,
		.payload = &payload,
		.payload_len = sizeof(payload),
	};
	int err;

	if (error->tlp)
		memcpy(payload.tlp, error->tlp->dw, sizeof(payload.tlp));

	switch (severity) {
	case AER_CORRECTABLE:
		report.kind = NULLHZ_AER_CORRECTABLE;
		report.level = aer_count(dev, &payload.corrected) ? NULLHZ_FAULT_DEGRADING :
								    NULLHZ_FAULT_WATCH;
		break;
	case AER_NONFATAL:
		report.kind = NULLHZ_AER_NONFATAL;
		report.level = NULLHZ_FAULT_DEGRADING;
		break;
	default:
		report.kind = NULLHZ_AER_FATAL;
		report.level = NULLHZ_FAULT_IMMINENT;
	}

	err = nullhz_fault_report(aer_source, &report);
	if (err)
		dev_err(&dev->dev, "not on the fault bus: %d\n", err);
	return NOTIFY_DONE;
}

static struct notifier_block aer_notifier = {
	.notifier_call = aer_notify,
};

static int __init nullhz_aer_init(void)
{
	int err;

	aer_source = nullhz_fault_source_register(NULLHZ_FAULT_SRC_PCIE_AER, "pcie_aer");
	if (IS_ERR(aer_source))
		return PTR_ERR(aer_source);

	err = aer_register_notifier(&aer_notifier);
	if (err)
		nullhz_fault_source_unregister(aer_source);
	return err;
}

static void __exit nullhz_aer_exit(void)
{
	aer_unregister_notifier(&aer_notifier);
	nullhz_fault_source_unregister(aer_source);
}

module_init(nullhz_aer_init);
module_exit(nullhz_aer_exit);
MODULE_AUTHOR("nullhz");
MODULE_DESCRIPTION("PCI Express errors for the fault bus, in C");
MODULE_LICENSE("GPL");
