// SPDX-License-Identifier: GPL-2.0
/*
 * fuzz SEED SECONDS [ROUNDS] - calls the devices in all ways that it can think of
 *
 * Knows the ABI: commands with arguments that make sense, most of the time, in
 * sequences that mean something, and bytes, addresses and sizes that do not.
 * Each round is a process of its own, of one to four threads that share files
 * and memory, with children that inherit both; it ends by itself or is killed.
 * A round depends on SEED and its number only: `fuzz ROUND 1 1`, with the number
 * that a finding has, repeats one, as far as threads and times can be repeated.
 *
 * What a call may return is judged where a round has one thread, and what is
 * left when all have ended. Everything else is the kernel's to find: KASAN,
 * lockdep, hung tasks.
 *
 * Prints a line for each hundred rounds, and then JSON: what was done, and the
 * first finding. Status 1 if there is one; 2: a process cannot be killed.
 */
#include "fuzz.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#define MAX_THREADS 4
/* The longest that a killed process may take to be gone, s: a debug kernel is slow. */
#define PATIENCE 120

struct counts *counts;
bool alone;
uint64_t round_seed;
__thread uint64_t random_state;
static bool in_a_round = true;

void found(const char *format, ...)
{
	char text[300];
	va_list arguments;
	static char none;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (__sync_bool_compare_and_swap(&counts->finding[0], none, '!'))
		snprintf(counts->finding, sizeof(counts->finding), "%s %llu: %s",
			 in_a_round ? "round" : "after round", (unsigned long long)round_seed, text);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void handle(int number)
{
	(void)number;
}

/* --- A round ------------------------------------------------------------------- */

static void act(void)
{
	struct slot *slot = any_slot();

	count(&counts->calls);
	switch (below(32)) {
	case 0 ... 16:
		if (slot->fd < 0)
			open_device(slot);
		else
			call_command(slot);
		break;
	case 17 ... 21:
		call_file();
		break;
	case 22 ... 26:
		churn_memory();
		break;
	case 27 ... 28:
		write_pages();
		break;
	case 29 ... 30:
		call_attribute();
		break;
	default:
		if (one_in(8))
			usleep(below(20000));
		else
			sched_yield();
	}
}

/*
 * What comes next depends on its number only: how many random numbers it took
 * so far depends on what calls have returned, and that may be a matter of time.
 */
static void begin(uint64_t base, uint64_t number)
{
	random_state = base ^ number * 0xd1342543de82ef95;
	(void)any();
}

/* Calls that block are interrupted again and again. */
static void start_timer(void)
{
	struct itimerval often = { { 0, 10000 }, { 0, 10000 } };

	setitimer(ITIMER_REAL, &often, NULL);
}

/* A child that has the same files, and copies of the memory. */
static void breed(int calls)
{
	uint64_t base = any();
	pid_t child = fork();

	if (child)
		return;
	count(&counts->forks);
	alone = false;
	if (one_in(8))
		execl("/bin/true", "true", NULL);
	start_timer();
	while (calls--) {
		begin(base, calls);
		act();
	}
	_exit(0);
}

static void *work(void *argument)
{
	uint64_t base = (uintptr_t)argument;
	int calls;

	begin(base, 0);
	calls = 200 + below(800);
	while (calls--) {
		begin(base, 2 * calls + 2);
		act();
		begin(base, 2 * calls + 1);
		if (one_in(alone ? 400 : 150))
			breed(below(60));
		/* As soon as a thread ends, its registration has lost whom it is about. */
		if (!alone && one_in(600))
			break;
	}
	return NULL;
}

static void __attribute__((noreturn)) one_round(uint64_t seed)
{
	struct sigaction action = { .sa_handler = handle };
	pthread_t threads[MAX_THREADS];
	int i, number;

	random_state = round_seed = seed;
	setpgid(0, 0);
	theme = below(DEVICES);
	alone = one_in(2);
	number = alone ? 1 : 2 + below(MAX_THREADS - 1);
	/* No SA_RESTART. */
	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGIO, &action, NULL);
	for (i = SIGRTMIN; i <= SIGRTMAX; i++)
		sigaction(i, &action, NULL);
	action = (struct sigaction){ .sa_handler = handle_fault, .sa_flags = SA_NODEFER };
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	start_timer();
	files_init();
	memory_init();
	mmap((void *)ARENA, ARENA_SIZE / 2, PROT_READ | PROT_WRITE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	for (i = 0; i < 4; i++)
		open_device(&slots[i]);
	if (number == 1) {
		work((void *)(uintptr_t)any());
	} else {
		for (i = 0; i < number; i++)
			if (pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)any()))
				_exit(1);
		for (i = 0; i < number; i++)
			pthread_join(threads[i], NULL);
	}
	/* The way out: by the kernel, or file by file. */
	if (one_in(2))
		_exit(0);
	for (i = 0; i < SLOTS; i++)
		if (slots[i].fd >= 0)
			close(slots[i].fd);
	_exit(0);
}

/* --- All rounds ------------------------------------------------------------------ */

static void show_stacks(void)
{
	fflush(stdout);
	(void)!system("for t in /proc/[0-9]*/task/*; do case $(cat $t/comm) in fuzz*) "
		      "echo $t $(cat $t/stat | cut -d' ' -f3); cat $t/stack; esac; done >&2");
}

/* Waits until all processes of a round are gone, which are a group; kills them at `end`. */
static void wait_for_all(pid_t group, double end)
{
	double last = 0;
	bool killed = false;

	for (;;) {
		int status;
		pid_t gone = waitpid(-1, &status, WNOHANG);

		if (gone < 0)
			return;
		if (gone) {
			if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV ||
						    WTERMSIG(status) == SIGBUS))
				found("a process died of signal %d", WTERMSIG(status));
			continue;
		}
		if (now() > end && now() - last > 1) {
			kill(-group, SIGKILL);
			count(&counts->killed);
			last = now();
			killed = true;
		}
		if (killed && now() > end + PATIENCE) {
			found("a process cannot be killed");
			show_stacks();
			printf("{\"finding\": \"%s\"}\n", counts->finding);
			exit(2);
		}
		usleep(1000);
	}
}

static void report(uint64_t seed, uint64_t rounds)
{
	enum device device;
	unsigned int i;
	char *c;

	for (c = counts->finding; *c; c++)
		if (*c == '"' || *c == '\\' || *c < ' ')
			*c = '?';
	printf("{\"seed\": %llu, \"rounds\": %llu, \"calls\": %llu, \"forks\": %llu, \"killed\": %llu, "
	       "\"written\": %llu, \"records\": %llu, \"mapped\": %llu, \"commands\": {",
	       (unsigned long long)seed, (unsigned long long)rounds,
	       (unsigned long long)counts->calls, (unsigned long long)counts->forks,
	       (unsigned long long)counts->killed, (unsigned long long)counts->written,
	       (unsigned long long)counts->records, (unsigned long long)counts->mapped);
	for (device = 0; device < DEVICES; device++)
		for (i = 0; command_name(device, i); i++)
			printf("%s\"%s %s\": [%llu, %llu]", device || i ? ", " : "",
			       strrchr(device_path[device], '/') + 1, command_name(device, i),
			       (unsigned long long)counts->tried[device][i],
			       (unsigned long long)counts->done[device][i]);
	printf("}, \"finding\": \"%s\"}\n", counts->finding);
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	double begun = now(), seconds = argc > 2 ? atof(argv[2]) : 5;
	uint64_t most = argc > 3 ? strtoull(argv[3], NULL, 0) : ~0ull, rounds = 0;
	/* A round that is to be repeated has the time that it needs. */
	double limit = argc > 3 ? 30 : 2;

	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	attributes_init();
	aperture_init();
	/* Whose parent has ended is this one's. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	while (rounds < most && now() - begun < seconds && !counts->finding[0]) {
		uint64_t round = seed + rounds++;
		pid_t child = fork();

		if (child < 0) {
			found("fork: %s", strerror(errno));
			break;
		}
		if (!child)
			one_round(round);
		setpgid(child, child);
		random_state = round_seed = round;
		/* Mostly it has its time, and sometimes none. */
		wait_for_all(child, now() + (one_in(3) ? below(200) / 1e3 : limit));
		if (rounds % 100 == 0) {
			printf("%llu rounds, %llu calls\n", (unsigned long long)rounds,
			       (unsigned long long)counts->calls);
			fflush(stdout);
		}
	}
	in_a_round = false;
	check_devices();
	report(seed, rounds);
	return counts->finding[0] ? 1 : 0;
}
