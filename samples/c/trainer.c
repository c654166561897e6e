// SPDX-License-Identifier: GPL-2.0
/*
 * trainer [STEPS [CHECKPOINT]] - a training job with heartbeats, to copy from
 *
 * Fits a line through noisy points by stochastic gradient descent: small, but
 * with all that a real job has: steps, evaluation, checkpoints that survive a
 * crash, and resuming from them. What is there for the watchdog is marked (*).
 */
#include "nullhz_heartbeat.h"

#include <inttypes.h>
#include <stdlib.h>

#define WEIGHTS		256
#define BATCH		64
#define EVAL_EVERY	500
#define CHECKPOINT_EVERY 2000

/* All that a run needs to go on where it was, bit for bit. */
struct model {
	uint64_t step;
	uint64_t random;
	double weights[WEIGHTS];
};

/* A number in -1..1: xorshift64*, so that a resumed run draws the same ones. */
static double draw(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (double)(*state * 2685821657736338717u >> 11) / (1ull << 52) - 1;
}

/* An example: its inputs; returns the output that is to be learned. */
static double example(uint64_t *random, double inputs[WEIGHTS])
{
	double output = 0.1 * draw(random);
	int i;

	for (i = 0; i < WEIGHTS; i++) {
		inputs[i] = draw(random);
		output += inputs[i] * ((double)i / WEIGHTS - 0.5);
	}
	return output;
}

static double error_of(const struct model *model, const double inputs[WEIGHTS], double output)
{
	int i;

	for (i = 0; i < WEIGHTS; i++)
		output -= inputs[i] * model->weights[i];
	return output;
}

static void train_step(struct model *model)
{
	double gradient[WEIGHTS] = { 0 }, inputs[WEIGHTS];
	int i, n;

	for (n = 0; n < BATCH; n++) {
		double output = example(&model->random, inputs);
		double error = error_of(model, inputs, output);

		for (i = 0; i < WEIGHTS; i++)
			gradient[i] += error * inputs[i];
	}
	for (i = 0; i < WEIGHTS; i++)
		model->weights[i] += 0.01 * gradient[i] / BATCH;
	model->step++;
}

static double evaluate(const struct model *model, struct nullhz_heartbeat *hb)
{
	double inputs[WEIGHTS], sum = 0;
	uint64_t random = 42;
	int n;

	for (n = 0; n < 4 * BATCH; n++) {
		double output = example(&random, inputs);
		double error = error_of(model, inputs, output);

		sum += error * error;
		nullhz_progress(hb, n);		/* (*) alive within a long phase */
	}
	return sum / (4 * BATCH);
}

static int write_all(int fd, const void *data, size_t size)
{
	const char *from = (const char *)data;

	while (size) {
		ssize_t written = write(fd, from, size);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return -1;
		from += written;
		size -= written;
	}
	return 0;
}

/*
 * On disk, under its name, or not at all: a new file, fsync(), rename(), and
 * fsync() of the folder.
 */
static int save(const struct model *model, const char *path)
{
	char folder[4096], temporary[4096];
	char *slash;
	int fd, bad;

	snprintf(temporary, sizeof(temporary), "%s.new", path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -1;
	bad = write_all(fd, model, sizeof(*model)) || fsync(fd);
	if (close(fd) || bad || rename(temporary, path))
		return -1;
	snprintf(folder, sizeof(folder), "%s", path);
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder] = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	bad = fsync(fd);
	close(fd);
	return bad;
}

/* Continues a former run, if there is one. */
static void load(struct model *model, const char *path)
{
	struct model saved;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (read(fd, &saved, sizeof(saved)) == (ssize_t)sizeof(saved)) {
		*model = saved;
		printf("resuming after step %" PRIu64 "\n", model->step);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	uint64_t steps = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000;
	const char *path = argc > 2 ? argv[2] : "trainer.checkpoint";
	struct model model = { .random = 1 };
	struct nullhz_stall_register rank;
	struct nullhz_heartbeat hb;
	uint32_t wanted;

	/* (*) This process is rank 0 of the job "trainer"; a checkpoint takes 30 s at most. */
	rank = nullhz_rank(0, "trainer");
	rank.deadline_ms[NULLHZ_STALL_PHASE_CHECKPOINT] = 30000;
	if (nullhz_register(&hb, &rank))
		fprintf(stderr, "trainer: no stall watchdog: %s\n", hb.error);

	load(&model, path);

	nullhz_phase(&hb, NULLHZ_STALL_PHASE_STEP);		/* (*) */
	while (model.step < steps) {
		train_step(&model);
		nullhz_beat(&hb, model.step);			/* (*) the heartbeat */

		if (model.step % EVAL_EVERY == 0) {
			nullhz_phase(&hb, NULLHZ_STALL_PHASE_EVAL);	/* (*) */
			printf("step %" PRIu64 ": loss %.6f\n", model.step, evaluate(&model, &hb));
			nullhz_phase(&hb, NULLHZ_STALL_PHASE_STEP);	/* (*) */
		}

		wanted = nullhz_checkpoint_wanted(&hb);		/* (*) the node may fail soon */
		if (wanted || model.step % CHECKPOINT_EVERY == 0) {
			nullhz_phase(&hb, NULLHZ_STALL_PHASE_CHECKPOINT);	/* (*) */
			if (save(&model, path))
				fprintf(stderr, "trainer: %s: %s\n", path, strerror(errno));
			else if (wanted)
				nullhz_checkpoint_done(&hb, wanted);		/* (*) */
			nullhz_phase(&hb, NULLHZ_STALL_PHASE_STEP);		/* (*) */
		}
	}
	if (save(&model, path)) {
		/* Without nullhz_leave(): the watchdog is to report a crash. */
		fprintf(stderr, "trainer: %s: %s\n", path, strerror(errno));
		return 1;
	}
	nullhz_leave(&hb);					/* (*) a clean end */
	return 0;
}
