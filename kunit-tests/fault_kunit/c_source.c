// SPDX-License-Identifier: GPL-2.0
/* A fault source in C, and what it may do wrong. */

#include <linux/err.h>
#include <linux/limits.h>
#include <nullhz/fault.h>

int nullhz_fault_kunit_c(void);

/* The line of the first expectation that was not met. */
static int failed;

static void expect_at(bool met, int line)
{
	if (!met && !failed)
		failed = line;
}

#define EXPECT(condition) expect_at(condition, __LINE__)

static void misuse(struct nullhz_fault_source *source)
{
	static const u8 payload[NULLHZ_FAULT_PAYLOAD_SIZE];
	const struct nullhz_fault_report good = {
		.level = NULLHZ_FAULT_WATCH,
		.flags = NULLHZ_FAULT_F_INJECTED,
		.cpu = -1,
		.node = -1,
		.count = 1,
		.payload_len = sizeof(payload),
		.payload = payload,
	};
	struct nullhz_fault_report bad;

	EXPECT(nullhz_fault_report(source, &good) == 0);
	EXPECT(nullhz_fault_report(NULL, &good) == -EINVAL);
	EXPECT(nullhz_fault_report(ERR_PTR(-ENOMEM), &good) == -EINVAL);
	EXPECT(nullhz_fault_report(source, NULL) == -EINVAL);
	EXPECT(nullhz_fault_persist(NULL, &good) == -EINVAL);
	EXPECT(nullhz_fault_persist(source, NULL) == -EINVAL);

	bad = good;
	bad.level = NULLHZ_FAULT_FATAL + 1;
	EXPECT(nullhz_fault_report(source, &bad) == -EINVAL);
	bad = good;
	bad.pad = 1;
	EXPECT(nullhz_fault_report(source, &bad) == -EINVAL);
	bad = good;
	bad.payload = NULL;
	EXPECT(nullhz_fault_report(source, &bad) == -EINVAL);
	bad.payload_len = 0;
	EXPECT(nullhz_fault_report(source, &bad) == 0);
	bad = good;
	bad.payload_len = U32_MAX;
	EXPECT(nullhz_fault_report(source, &bad) == -EINVAL);
	/* A CPU that is not there has no node, and is no reason to drop a fault. */
	bad = good;
	bad.cpu = S32_MAX;
	EXPECT(nullhz_fault_report(source, &bad) == 0);
}

int nullhz_fault_kunit_c(void)
{
	struct nullhz_fault_source *source;

	failed = 0;
	EXPECT(PTR_ERR(nullhz_fault_source_register(NULLHZ_FAULT_SRC_MAX, NULL)) == -EINVAL);
	EXPECT(PTR_ERR(nullhz_fault_source_register(U32_MAX, "c")) == -EINVAL);
	nullhz_fault_source_unregister(NULL);
	nullhz_fault_source_unregister(ERR_PTR(-EBUSY));

	source = nullhz_fault_source_register(NULLHZ_FAULT_SRC_MAX, "c");
	EXPECT(!IS_ERR_OR_NULL(source));
	if (!failed)
		misuse(source);
	nullhz_fault_source_unregister(source);
	return failed;
}
