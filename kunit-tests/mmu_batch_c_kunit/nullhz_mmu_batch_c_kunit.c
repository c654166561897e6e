// SPDX-License-Identifier: GPL-2.0
/*
 * nullhz_mmu_batch through its C interface, on a device of counters and with
 * real events: the tests unmap memory of their own.
 */

#include <kunit/test.h>
#include <linux/bits.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/limits.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/workqueue.h>
#include <nullhz/mmu_batch.h>

#define INTERVALS	40
#define SIZE		(2 * PAGE_SIZE)
#define TAG		7
#define NAME		"kunit"
/* Where its memory is, unless something else is there: all of it shares a notifier. */
#define START		BIT(30)
#define SLOW_MS		200

struct fake;

struct piece {
	struct fake *fake;
	struct nullhz_mmu_batch_interval *interval;
	bool live;
	u32 zaps;
	/* How many flushes there were when flushed() was called; 0: it was not. */
	u32 flushed_after;
};

struct fake {
	struct kunit *test;
	struct nullhz_mmu_batch_device *device;
	struct nullhz_mmu_batch_space *space;
	u64 start;
	struct piece pieces[INTERVALS];
	u32 zaps;
	/* How many zaps there were when it was flushed last. */
	u32 zapped_before;
	u32 flushes;
	u32 resets;
	u32 fail_flushes;
	u32 fail_resets;
	/* The next flush takes long: it has begun, may go on, and is over. */
	bool slow;
	struct completion begun;
	struct completion go_on;
	bool over;
	u32 count;
	struct nullhz_mmu_batch_span spans[NULLHZ_MMU_BATCH_MAX_SPANS];
};

struct fake_unmap {
	struct nullhz_mmu_batch_unmap unmap;
	struct fake *fake;
	bool live;
	/* How many flushes there were when it was released. */
	u32 released_after;
	struct completion released;
};

static int fake_flush(void *driver, const struct nullhz_mmu_batch_span *spans, u32 count)
{
	struct fake *fake = driver;

	fake->flushes++;
	fake->zapped_before = fake->zaps;
	fake->count = count;
	memcpy(fake->spans, spans, count * sizeof(*spans));
	if (fake->slow) {
		fake->slow = false;
		complete(&fake->begun);
		wait_for_completion_timeout(&fake->go_on, 30 * HZ);
		msleep(SLOW_MS);
		WRITE_ONCE(fake->over, true);
	}
	if (!fake->fail_flushes)
		return 0;
	fake->fail_flushes--;
	return -ETIMEDOUT;
}

static int fake_reset(void *driver)
{
	struct fake *fake = driver;

	fake->resets++;
	if (!fake->fail_resets)
		return 0;
	fake->fail_resets--;
	return -EIO;
}

static const struct nullhz_mmu_batch_device_ops fake_device_ops = {
	.owner = THIS_MODULE,
	.flush = fake_flush,
	.reset = fake_reset,
};

static bool piece_zap(void *driver, const struct nullhz_mmu_batch_event *event)
{
	struct piece *piece = driver;
	struct fake *fake = piece->fake;
	u64 start = fake->start + (piece - fake->pieces) * SIZE;
	bool live = piece->live;

	KUNIT_EXPECT_EQ(fake->test, event->start, start);
	KUNIT_EXPECT_EQ(fake->test, event->end, start + SIZE);
	KUNIT_EXPECT_TRUE(fake->test, event->blockable);
	piece->live = false;
	piece->zaps++;
	fake->zaps++;
	return live;
}

static void piece_flushed(void *driver, const struct nullhz_mmu_batch_event *event)
{
	struct piece *piece = driver;

	piece->flushed_after = piece->fake->flushes;
}

/* Each has a notifier of its own, ... */
static const struct nullhz_mmu_batch_interval_ops piece_ops = {
	.zap = piece_zap,
	.flushed = piece_flushed,
};

/* ... and all of these share one. */
static const struct nullhz_mmu_batch_interval_ops sharing_ops = {
	.zap = piece_zap,
};

static bool overlapping_zap(void *driver, const struct nullhz_mmu_batch_event *event)
{
	struct piece *piece = driver;
	bool live = piece->live;

	KUNIT_EXPECT_EQ(piece->fake->test, event->end - event->start, SIZE / 2);
	piece->live = false;
	piece->zaps++;
	return live;
}

static const struct nullhz_mmu_batch_interval_ops overlapping_ops = {
	.zap = overlapping_zap,
};

static bool unmap_zap(struct nullhz_mmu_batch_unmap *unmap)
{
	struct fake_unmap *this = container_of(unmap, struct fake_unmap, unmap);

	this->fake->zaps++;
	return this->live;
}

static void unmap_release(struct nullhz_mmu_batch_unmap *unmap)
{
	struct fake_unmap *this = container_of(unmap, struct fake_unmap, unmap);

	this->released_after = this->fake->flushes;
	complete(&this->released);
}

static void fake_unmap_init(struct fake *fake, struct fake_unmap *this, bool live)
{
	*this = (struct fake_unmap) {
		.unmap = {
			.start = fake->start,
			.end = fake->start + SIZE,
			.pages = SIZE / PAGE_SIZE,
			.zap = unmap_zap,
			.release = unmap_release,
		},
		.fake = fake,
		.live = live,
	};
	init_completion(&this->released);
}

static void fake_end(void *context)
{
	struct fake *fake = context;
	u32 i;

	for (i = 0; i < INTERVALS; i++)
		nullhz_mmu_batch_interval_remove(fake->pieces[i].interval);
	nullhz_mmu_batch_space_destroy(fake->space);
	nullhz_mmu_batch_device_unregister(fake->device);
}

/* Memory of this thread, in intervals, on a device that knows every @step'th of them. */
static struct fake *fake_start_with(struct kunit *test, u32 step,
				    const struct nullhz_mmu_batch_interval_ops *ops)
{
	struct fake *fake = kunit_kzalloc(test, sizeof(*fake), GFP_KERNEL);
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, fake);
	fake->test = test;
	init_completion(&fake->begun);
	init_completion(&fake->go_on);
	fake->start = kunit_vm_mmap(test, NULL, START, INTERVALS * SIZE, PROT_READ | PROT_WRITE,
				    MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NE(test, fake->start, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE((unsigned long)fake->start));
	fake->device = nullhz_mmu_batch_device_register(NAME, &fake_device_ops, fake, NULL);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, fake->device);
	fake->space = nullhz_mmu_batch_space_create(fake->device, current->mm, TAG);
	for (i = 0; i < INTERVALS; i++) {
		struct piece *piece = &fake->pieces[i];

		piece->fake = fake;
		piece->live = step && i % step == 0;
		piece->interval = nullhz_mmu_batch_interval_insert(fake->space,
								   fake->start + i * SIZE, SIZE,
								   ops, piece);
		KUNIT_EXPECT_NOT_ERR_OR_NULL(test, piece->interval);
	}
	return fake;
}

static struct fake *fake_start(struct kunit *test, u32 step)
{
	return fake_start_with(test, step, &piece_ops);
}

static struct fake *fake_start_sharing(struct kunit *test, u32 step)
{
	return fake_start_with(test, step, &sharing_ops);
}

/* Unmaps the first @count intervals. */
static void munmap_some(struct fake *fake, u32 count)
{
	KUNIT_EXPECT_EQ(fake->test, vm_munmap(fake->start, count * SIZE), 0);
}

static void expect_span(struct fake *fake, u32 index, u32 first, u32 count)
{
	const struct nullhz_mmu_batch_span *span = &fake->spans[index];
	u64 start = fake->start + first * SIZE;

	KUNIT_EXPECT_EQ(fake->test, span->start, start);
	KUNIT_EXPECT_EQ(fake->test, span->end, start + count * SIZE);
	KUNIT_EXPECT_EQ(fake->test, span->tag, TAG);
}

static void test_bad_devices(struct kunit *test)
{
	static const char * const names[] = {
		NULL, "", "a/b", "a b", "0123456789012345678901234567890x",
	};
	const struct nullhz_mmu_batch_device_ops deaf = { .reset = fake_reset };
	const struct nullhz_mmu_batch_device_ops stuck = { .flush = fake_flush };
	struct nullhz_mmu_batch_device *device, *again;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		device = nullhz_mmu_batch_device_register(names[i], &fake_device_ops, NULL, NULL);
		KUNIT_EXPECT_EQ(test, PTR_ERR(device), -EINVAL);
	}
	device = nullhz_mmu_batch_device_register(NAME, NULL, NULL, NULL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(device), -EINVAL);
	device = nullhz_mmu_batch_device_register(NAME, &deaf, NULL, NULL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(device), -EINVAL);
	device = nullhz_mmu_batch_device_register(NAME, &stuck, NULL, NULL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(device), -EINVAL);

	/* A name is free again when its device is gone. */
	for (i = 0; i < 2; i++) {
		device = nullhz_mmu_batch_device_register(NAME, &fake_device_ops, NULL, NULL);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, device);
		again = nullhz_mmu_batch_device_register(NAME, &fake_device_ops, NULL, NULL);
		KUNIT_EXPECT_EQ(test, PTR_ERR(again), -EEXIST);
		nullhz_mmu_batch_device_unregister(device);
	}
	nullhz_mmu_batch_device_unregister(NULL);
	nullhz_mmu_batch_device_unregister(again);
}

static void test_bad_arguments(struct kunit *test)
{
	const struct nullhz_mmu_batch_interval_ops nothing = { .flushed = piece_flushed };
	struct fake *fake = fake_start(test, 0);
	struct nullhz_mmu_batch_interval *interval;
	struct nullhz_mmu_batch_space *space;
	struct fake_unmap unmap;

	space = nullhz_mmu_batch_space_create(NULL, current->mm, TAG);
	KUNIT_EXPECT_EQ(test, PTR_ERR(space), -EINVAL);
	nullhz_mmu_batch_space_destroy(space);
	space = nullhz_mmu_batch_space_create(fake->device, NULL, TAG);
	KUNIT_EXPECT_EQ(test, PTR_ERR(space), -EINVAL);

	interval = nullhz_mmu_batch_interval_insert(NULL, 0, SIZE, &piece_ops, NULL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(interval), -EINVAL);
	nullhz_mmu_batch_interval_remove(interval);
	interval = nullhz_mmu_batch_interval_insert(fake->space, 0, 0, &piece_ops, NULL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(interval), -EINVAL);
	interval = nullhz_mmu_batch_interval_insert(fake->space, SIZE, U64_MAX, &piece_ops, NULL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(interval), -EINVAL);
	interval = nullhz_mmu_batch_interval_insert(fake->space, 0, SIZE, NULL, NULL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(interval), -EINVAL);
	interval = nullhz_mmu_batch_interval_insert(fake->space, 0, SIZE, &nothing, NULL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(interval), -EINVAL);
	KUNIT_EXPECT_NULL(test, nullhz_mmu_batch_interval_notifier(NULL));

	fake_unmap_init(fake, &unmap, true);
	KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(NULL, &unmap.unmap), -EINVAL);
	KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(fake->space, NULL), -EINVAL);
	unmap.unmap.end = unmap.unmap.start;
	KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(fake->space, &unmap.unmap), -EINVAL);
	fake_unmap_init(fake, &unmap, true);
	unmap.unmap.release = NULL;
	KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(fake->space, &unmap.unmap), -EINVAL);
	fake_unmap_init(fake, &unmap, true);
	unmap.unmap.zap = NULL;
	KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(fake->space, &unmap.unmap), -EINVAL);
	nullhz_mmu_batch_drain(NULL, NULLHZ_MMU_BATCH_SUBMIT);
	nullhz_mmu_batch_drain(fake->space, NULLHZ_MMU_BATCH_SUBMIT);
	KUNIT_EXPECT_EQ(test, fake->zaps, 0);
	KUNIT_EXPECT_EQ(test, fake->flushes, 0);
	fake_end(fake);
}

static void test_one_event_one_flush(struct kunit *test)
{
	struct fake *fake = fake_start(test, 1);
	u32 i;

	munmap_some(fake, INTERVALS);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
	KUNIT_EXPECT_EQ(test, fake->zapped_before, INTERVALS);
	KUNIT_EXPECT_EQ(test, fake->count, 1);
	expect_span(fake, 0, 0, INTERVALS);
	for (i = 0; i < INTERVALS; i++) {
		KUNIT_EXPECT_EQ(test, fake->pieces[i].zaps, 1);
		KUNIT_EXPECT_EQ(test, fake->pieces[i].flushed_after, 1);
	}
	fake_end(fake);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
}

static void test_nothing_live(struct kunit *test)
{
	struct fake *fake = fake_start(test, 0);

	munmap_some(fake, INTERVALS);
	KUNIT_EXPECT_EQ(test, fake->zaps, INTERVALS);
	KUNIT_EXPECT_EQ(test, fake->flushes, 0);
	KUNIT_EXPECT_EQ(test, fake->pieces[0].flushed_after, 0);
	fake_end(fake);
}

static void test_spans(struct kunit *test)
{
	struct fake *fake = fake_start(test, 2);
	u32 i;

	/* Sixteen of them, which is as many as there may be. */
	munmap_some(fake, 32);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
	KUNIT_ASSERT_EQ(test, fake->count, 16);
	for (i = 0; i < 16; i++)
		expect_span(fake, i, 2 * i, 1);
	fake_end(fake);
}

static void test_too_many_spans(struct kunit *test)
{
	struct fake *fake = fake_start(test, 2);

	munmap_some(fake, 34);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
	KUNIT_EXPECT_EQ(test, fake->count, 0);
	fake_end(fake);
}

static void test_a_device_that_does_not_answer(struct kunit *test)
{
	struct fake *fake = fake_start(test, 1);

	fake->fail_flushes = 1;
	munmap_some(fake, 1);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
	KUNIT_EXPECT_EQ(test, fake->resets, 1);
	KUNIT_EXPECT_EQ(test, fake->pieces[0].flushed_after, 1);

	/* Nobody goes on before a reset has succeeded. */
	fake->fail_flushes = 1;
	fake->fail_resets = 3;
	munmap_some(fake, 2);
	KUNIT_EXPECT_EQ(test, fake->flushes, 2);
	KUNIT_EXPECT_EQ(test, fake->resets, 5);
	KUNIT_EXPECT_EQ(test, fake->pieces[1].flushed_after, 2);

	munmap_some(fake, 3);
	KUNIT_EXPECT_EQ(test, fake->flushes, 3);
	KUNIT_EXPECT_EQ(test, fake->resets, 5);
	fake_end(fake);
}

static void test_removal_zaps(struct kunit *test)
{
	struct fake *fake = fake_start(test, 0);
	struct piece *piece = &fake->pieces[3];

	piece->live = true;
	nullhz_mmu_batch_interval_remove(piece->interval);
	piece->interval = NULL;
	KUNIT_EXPECT_EQ(test, piece->zaps, 1);
	KUNIT_EXPECT_EQ(test, piece->flushed_after, 1);
	expect_span(fake, 0, 3, 1);
	fake_end(fake);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
}

static void test_drained_unmaps(struct kunit *test)
{
	struct fake *fake = fake_start(test, 0);
	struct fake_unmap unmaps[3];
	u32 i;

	for (i = 0; i < ARRAY_SIZE(unmaps); i++) {
		fake_unmap_init(fake, &unmaps[i], true);
		KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(fake->space, &unmaps[i].unmap), 0);
	}
	KUNIT_EXPECT_EQ(test, fake->zaps, 3);
	nullhz_mmu_batch_drain(fake->space, NULLHZ_MMU_BATCH_REUSE);
	for (i = 0; i < ARRAY_SIZE(unmaps); i++) {
		KUNIT_EXPECT_TRUE(test, completion_done(&unmaps[i].released));
		KUNIT_EXPECT_GE(test, unmaps[i].released_after, 1);
	}
	/* One for all, unless the window was over in between. */
	KUNIT_EXPECT_GE(test, fake->flushes, 1);
	fake_end(fake);
}

static void test_unmaps_in_time(struct kunit *test)
{
	struct fake *fake = fake_start(test, 0);
	struct fake_unmap unmap;

	fake_unmap_init(fake, &unmap, true);
	KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(fake->space, &unmap.unmap), 0);
	/* Long after the window, on the slowest machine. */
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&unmap.released, 30 * HZ), 0);
	KUNIT_EXPECT_EQ(test, unmap.released_after, 1);
	fake_end(fake);
}

static void test_unmaps_of_nothing(struct kunit *test)
{
	struct fake *fake = fake_start(test, 0);
	struct fake_unmap unmap;

	fake_unmap_init(fake, &unmap, false);
	KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(fake->space, &unmap.unmap), 0);
	nullhz_mmu_batch_drain(fake->space, NULLHZ_MMU_BATCH_SUBMIT);
	KUNIT_EXPECT_TRUE(test, completion_done(&unmap.released));
	KUNIT_EXPECT_EQ(test, fake->flushes, 0);
	fake_end(fake);
}

/* munmap() finds nothing in the page table, but it may still be in the TLB. */
static void test_events_wait_for_unmaps(struct kunit *test)
{
	struct fake *fake = fake_start(test, 0);
	struct fake_unmap unmap;

	fake->slow = true;
	fake_unmap_init(fake, &unmap, true);
	KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(fake->space, &unmap.unmap), 0);
	wait_for_completion(&fake->begun);
	/* Other addresses need not wait. */
	KUNIT_EXPECT_EQ(test, vm_munmap(fake->start + SIZE, SIZE), 0);
	KUNIT_EXPECT_FALSE(test, READ_ONCE(fake->over));
	complete(&fake->go_on);
	munmap_some(fake, 1);
	KUNIT_EXPECT_TRUE(test, READ_ONCE(fake->over));
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
	expect_span(fake, 0, 0, 1);
	nullhz_mmu_batch_drain(fake->space, NULLHZ_MMU_BATCH_REUSE);
	KUNIT_EXPECT_EQ(test, unmap.released_after, 1);
	fake_end(fake);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
}

static void test_a_space_drains_at_its_end(struct kunit *test)
{
	struct fake *fake = fake_start(test, 0);
	struct fake_unmap unmap;

	fake_unmap_init(fake, &unmap, true);
	KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(fake->space, &unmap.unmap), 0);
	fake_end(fake);
	KUNIT_EXPECT_TRUE(test, completion_done(&unmap.released));
	KUNIT_EXPECT_EQ(test, unmap.released_after, 1);
}

static void expect_sequences(struct kunit *test, struct fake *fake)
{
	struct mmu_interval_notifier *first, *last;
	unsigned long first_seq, last_seq;

	first = nullhz_mmu_batch_interval_notifier(fake->pieces[0].interval);
	last = nullhz_mmu_batch_interval_notifier(fake->pieces[INTERVALS - 1].interval);
	first_seq = mmu_interval_read_begin(first);
	last_seq = mmu_interval_read_begin(last);
	munmap_some(fake, 1);
	nullhz_mmu_batch_space_lock(fake->space);
	KUNIT_EXPECT_TRUE(test, mmu_interval_read_retry(first, first_seq));
	KUNIT_EXPECT_FALSE(test, mmu_interval_read_retry(last, last_seq));
	nullhz_mmu_batch_space_unlock(fake->space);
	fake_end(fake);
}

static void test_the_sequence(struct kunit *test)
{
	expect_sequences(test, fake_start(test, 0));
}

static void test_sequences_of_a_shared_notifier(struct kunit *test)
{
	expect_sequences(test, fake_start_sharing(test, 0));
}

static void test_one_event_of_a_shared_notifier(struct kunit *test)
{
	struct fake *fake = fake_start_sharing(test, 2);
	u32 i;

	/* All of them are asked, and what lies between those that had something is flushed. */
	munmap_some(fake, 32);
	KUNIT_EXPECT_EQ(test, fake->zaps, 32);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
	KUNIT_EXPECT_EQ(test, fake->zapped_before, 32);
	KUNIT_ASSERT_EQ(test, fake->count, 1);
	expect_span(fake, 0, 0, 31);
	for (i = 0; i < INTERVALS; i++)
		KUNIT_EXPECT_EQ(test, fake->pieces[i].zaps, i < 32);
	/* Nothing is left there. */
	munmap_some(fake, 32);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
	/* The others have something when they are removed: 32, 34, 36 and 38. */
	fake_end(fake);
	KUNIT_EXPECT_EQ(test, fake->flushes, 5);
	KUNIT_EXPECT_EQ(test, fake->zaps, 32 + INTERVALS);
}

static void test_removal_from_a_shared_notifier(struct kunit *test)
{
	struct fake *fake = fake_start_sharing(test, 0);
	struct piece *piece = &fake->pieces[3];

	piece->live = true;
	nullhz_mmu_batch_interval_remove(piece->interval);
	piece->interval = NULL;
	KUNIT_EXPECT_EQ(test, piece->zaps, 1);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
	expect_span(fake, 0, 3, 1);
	/* It is not told any more; its neighbours are. */
	munmap_some(fake, 5);
	KUNIT_EXPECT_EQ(test, piece->zaps, 1);
	KUNIT_EXPECT_EQ(test, fake->zaps, 5);
	fake_end(fake);
}

static void test_an_overlap(struct kunit *test)
{
	struct fake *fake = fake_start_sharing(test, 0);
	struct piece other = { .fake = fake, .live = true };
	struct nullhz_mmu_batch_interval *interval;

	/* Over the first one, whose address its zap() is told. */
	fake->pieces[0].live = true;
	interval = nullhz_mmu_batch_interval_insert(fake->space, fake->start, SIZE / 2,
						    &overlapping_ops, &other);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, interval);
	munmap_some(fake, 1);
	KUNIT_EXPECT_EQ(test, fake->pieces[0].zaps, 1);
	KUNIT_EXPECT_EQ(test, other.zaps, 1);
	KUNIT_EXPECT_GE(test, fake->flushes, 1);
	nullhz_mmu_batch_interval_remove(interval);
	KUNIT_EXPECT_EQ(test, other.zaps, 2);
	fake_end(fake);
}

struct late {
	struct work_struct work;
	struct fake *fake;
	struct piece *piece;
	bool waited;
};

/* While an event is flushed: an interval in its range, and a reader of that. */
static void come_late(struct work_struct *work)
{
	struct late *late = container_of(work, struct late, work);
	struct fake *fake = late->fake;
	u64 start = fake->start + (late->piece - fake->pieces) * SIZE;

	wait_for_completion_timeout(&fake->begun, 30 * HZ);
	late->piece->interval = nullhz_mmu_batch_interval_insert(fake->space, start, SIZE,
								 &sharing_ops, late->piece);
	complete(&fake->go_on);
	if (IS_ERR(late->piece->interval))
		return;
	mmu_interval_read_begin(nullhz_mmu_batch_interval_notifier(late->piece->interval));
	late->waited = READ_ONCE(fake->over);
}

static void test_who_comes_late_to_a_shared_notifier(struct kunit *test)
{
	struct fake *fake = fake_start_sharing(test, 0);
	struct late late = { .fake = fake, .piece = &fake->pieces[1] };

	nullhz_mmu_batch_interval_remove(late.piece->interval);
	fake->pieces[0].live = true;
	fake->slow = true;
	INIT_WORK_ONSTACK(&late.work, come_late);
	schedule_work(&late.work);
	munmap_some(fake, 2);
	flush_work(&late.work);
	destroy_work_on_stack(&late.work);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, late.piece->interval);
	KUNIT_EXPECT_TRUE(test, late.waited);
	fake_end(fake);
}

/* While an event is flushed: an interval that had nothing in it is removed. */
static void leave_late(struct work_struct *work)
{
	struct late *late = container_of(work, struct late, work);
	struct fake *fake = late->fake;

	wait_for_completion_timeout(&fake->begun, 30 * HZ);
	complete(&fake->go_on);
	nullhz_mmu_batch_interval_remove(late->piece->interval);
	late->piece->interval = NULL;
	late->waited = READ_ONCE(fake->over);
}

struct leaving {
	struct work_struct work;
	struct piece *piece;
};

static void leave(struct work_struct *work)
{
	struct leaving *leaving = container_of(work, struct leaving, work);

	nullhz_mmu_batch_interval_remove(leaving->piece->interval);
	leaving->piece->interval = NULL;
}

/* What an interval that is being removed has zapped may still be in the TLB. */
static void expect_wait_for_removal(struct kunit *test, struct fake *fake)
{
	struct leaving leaving = { .piece = &fake->pieces[0] };

	fake->pieces[0].live = true;
	fake->slow = true;
	INIT_WORK_ONSTACK(&leaving.work, leave);
	schedule_work(&leaving.work);
	wait_for_completion(&fake->begun);
	complete(&fake->go_on);
	munmap_some(fake, 1);
	KUNIT_EXPECT_TRUE(test, READ_ONCE(fake->over));
	flush_work(&leaving.work);
	destroy_work_on_stack(&leaving.work);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
	fake_end(fake);
}

static void test_events_wait_for_removals(struct kunit *test)
{
	expect_wait_for_removal(test, fake_start(test, 0));
}

static void test_events_wait_for_removals_from_a_shared_notifier(struct kunit *test)
{
	expect_wait_for_removal(test, fake_start_sharing(test, 0));
}

/* What it has zapped is flushed for somebody else before this callback is over. */
static bool overtaken_start(void *driver, struct nullhz_mmu_batch_event *event)
{
	struct piece *piece = driver;
	struct fake *fake = piece->fake;
	struct fake_unmap unmap;

	nullhz_mmu_batch_event_lock(event);
	piece->zaps++;
	if (!nullhz_mmu_batch_event_zapped(event, piece->live))
		return true;
	piece->live = false;
	/* Of another space. */
	fake_unmap_init(fake, &unmap, true);
	KUNIT_EXPECT_EQ(fake->test, nullhz_mmu_batch_defer(fake->space, &unmap.unmap), 0);
	nullhz_mmu_batch_drain(fake->space, NULLHZ_MMU_BATCH_REUSE);
	KUNIT_EXPECT_EQ(fake->test, unmap.released_after, 1);
	return true;
}

static void overtaken_finish(void *driver, struct nullhz_mmu_batch_event *event)
{
	piece_flushed(driver, event);
}

static const struct nullhz_mmu_batch_interval_ops overtaken_ops = {
	.start = overtaken_start,
	.finish = overtaken_finish,
};

static void test_the_second_pass_comes_also_when_others_were_faster(struct kunit *test)
{
	struct fake *fake = fake_start(test, 0);
	struct piece piece = { .fake = fake, .live = true };
	struct nullhz_mmu_batch_interval *interval;
	struct nullhz_mmu_batch_space *space;

	space = nullhz_mmu_batch_space_create(fake->device, current->mm, TAG + 1);
	interval = nullhz_mmu_batch_interval_insert(space, fake->start + SIZE, SIZE,
						    &overtaken_ops, &piece);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, interval);
	KUNIT_EXPECT_EQ(test, vm_munmap(fake->start + SIZE, SIZE), 0);
	KUNIT_EXPECT_EQ(test, piece.zaps, 1);
	KUNIT_EXPECT_EQ(test, fake->flushes, 1);
	KUNIT_EXPECT_EQ(test, piece.flushed_after, 1);
	nullhz_mmu_batch_interval_remove(interval);
	nullhz_mmu_batch_space_destroy(space);
	fake_end(fake);
}

struct deferring {
	struct work_struct work;
	struct fake_unmap unmap;
};

static void defer(struct work_struct *work)
{
	struct deferring *deferring = container_of(work, struct deferring, work);

	nullhz_mmu_batch_defer(deferring->unmap.fake->space, &deferring->unmap.unmap);
}

static void start_deferring(struct fake *fake, struct deferring *deferring, u64 pages)
{
	fake_unmap_init(fake, &deferring->unmap, true);
	deferring->unmap.unmap.pages = pages;
	INIT_WORK_ONSTACK(&deferring->work, defer);
	schedule_work(&deferring->work);
}

static void finish_deferring(struct deferring *deferring)
{
	flush_work(&deferring->work);
	destroy_work_on_stack(&deferring->work);
}

/* Who drains for the size of what is kept sees to it that the rest is not forgotten. */
static void test_an_unmap_behind_a_big_one(struct kunit *test)
{
	struct fake *fake = fake_start(test, 0);
	struct deferring big, next;
	struct fake_unmap last;

	/* The first one is more than may be kept, and so are both, ... */
	fake->slow = true;
	start_deferring(fake, &big, SZ_1G / PAGE_SIZE);
	wait_for_completion(&fake->begun);
	fake->slow = true;
	start_deferring(fake, &next, 1);
	msleep(SLOW_MS);
	complete(&fake->go_on);
	/* ... but not the second and the third one, which comes too late for its flush. */
	wait_for_completion(&fake->begun);
	wait_for_completion(&big.unmap.released);
	fake_unmap_init(fake, &last, true);
	KUNIT_EXPECT_EQ(test, nullhz_mmu_batch_defer(fake->space, &last.unmap), 0);
	complete(&fake->go_on);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&last.released, 10 * HZ), 0);
	KUNIT_EXPECT_EQ(test, fake->flushes, 3);
	finish_deferring(&big);
	finish_deferring(&next);
	fake_end(fake);
}

/* What another one that overlaps it has zapped may still be in the TLB, too. */
static void test_removals_wait_for_overlapping_intervals(struct kunit *test)
{
	struct fake *fake = fake_start_sharing(test, 0);
	struct piece other = { .fake = fake, .live = true };
	struct late late = { .fake = fake, .piece = &fake->pieces[0] };
	struct nullhz_mmu_batch_interval *interval;

	interval = nullhz_mmu_batch_interval_insert(fake->space, fake->start, SIZE / 2,
						    &overlapping_ops, &other);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, interval);
	fake->slow = true;
	INIT_WORK_ONSTACK(&late.work, leave_late);
	schedule_work(&late.work);
	munmap_some(fake, 1);
	flush_work(&late.work);
	destroy_work_on_stack(&late.work);
	KUNIT_EXPECT_TRUE(test, late.waited);
	nullhz_mmu_batch_interval_remove(interval);
	fake_end(fake);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(test_bad_devices),
	KUNIT_CASE(test_bad_arguments),
	KUNIT_CASE(test_one_event_one_flush),
	KUNIT_CASE(test_nothing_live),
	KUNIT_CASE(test_spans),
	KUNIT_CASE(test_too_many_spans),
	KUNIT_CASE(test_a_device_that_does_not_answer),
	KUNIT_CASE(test_removal_zaps),
	KUNIT_CASE(test_drained_unmaps),
	KUNIT_CASE(test_unmaps_in_time),
	KUNIT_CASE(test_unmaps_of_nothing),
	KUNIT_CASE(test_events_wait_for_unmaps),
	KUNIT_CASE(test_a_space_drains_at_its_end),
	KUNIT_CASE(test_the_sequence),
	KUNIT_CASE(test_sequences_of_a_shared_notifier),
	KUNIT_CASE(test_one_event_of_a_shared_notifier),
	KUNIT_CASE(test_removal_from_a_shared_notifier),
	KUNIT_CASE(test_an_overlap),
	KUNIT_CASE(test_who_comes_late_to_a_shared_notifier),
	KUNIT_CASE(test_events_wait_for_removals),
	KUNIT_CASE(test_events_wait_for_removals_from_a_shared_notifier),
	KUNIT_CASE(test_removals_wait_for_overlapping_intervals),
	KUNIT_CASE(test_the_second_pass_comes_also_when_others_were_faster),
	KUNIT_CASE(test_an_unmap_behind_a_big_one),
	{}
};

static struct kunit_suite suite = {
	.name = "nullhz_mmu_batch_c",
	.test_cases = cases,
};

kunit_test_suite(suite);

MODULE_AUTHOR("nullhz");
MODULE_DESCRIPTION("Tests of nullhz_mmu_batch's C interface");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_LICENSE("GPL");
