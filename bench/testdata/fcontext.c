/*
 * Boost.Context's bare switch, which is what C++ fibers are built on, as
 * baseline.c measures: "OP N" lines in, "NS COUNT 0 0 0 0 0" or "error TEXT" out. It
 * saves all registers that C keeps across a call, and the floating-point
 * control words. The header that declares it is C++; what it declares is C.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef void *context;

struct transfer {
	context from;
	void *data;
};

struct transfer jump_fcontext(context to, void *data);
context make_fcontext(void *top, size_t size, void (*fn)(struct transfer));

static int64_t limit, count;

static int64_t now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static char *stacks(size_t size)
{
	char *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return mem;
}

/* Two contexts that switch to each other. */

static void hop(struct transfer t)
{
	for (;;) {
		if (count < limit)
			count++;
		t = jump_fcontext(t.from, NULL);
	}
}

static int64_t do_switch(void)
{
	const size_t size = 64 << 10;
	char *stack = stacks(size);
	struct transfer t = {make_fcontext(stack + size, size, hop), NULL};
	int64_t began = now();
	while (count < limit) {
		count++;
		t = jump_fcontext(t.from, NULL);
	}
	began = now() - began;
	munmap(stack, size);
	return began;
}

/* A context made, run to its end and left, on one stack. */

static void once(struct transfer t)
{
	count++;
	jump_fcontext(t.from, NULL);
}

static int64_t do_spawn(void)
{
	const size_t size = 64 << 10;
	char *stack = stacks(size);
	int64_t began = now();
	for (int64_t i = 0; i < limit; i++)
		jump_fcontext(make_fcontext(stack + size, size, once), NULL);
	began = now() - began;
	munmap(stack, size);
	return began;
}

/* So many contexts that switch in a ring, on stacks of 2 KiB. */

static struct {
	long n;
	context at[10000], out;
} ring;

static void member(struct transfer t)
{
	long i = (long)t.data, next = i + 1 == ring.n ? 0 : i + 1, before = (i == 0 ? ring.n : i) - 1;
	if (i == 0) {
		ring.out = t.from;
	} else {
		ring.at[before] = t.from;
	}
	for (;;) {
		if (count == limit)
			ring.out = jump_fcontext(ring.out, NULL).from;
		count++;
		t = jump_fcontext(ring.at[next], (void *)next);
		ring.at[before] = t.from;
	}
}

static int64_t do_yield(long n)
{
	const size_t size = 2048;
	char *mem = stacks(n * size);
	ring.n = n;
	for (long i = 0; i < n; i++)
		ring.at[i] = make_fcontext(mem + (i + 1) * size, size, member);
	/* A lap to touch all, then as many again as there are operations. */
	int64_t ops = limit;
	limit = n;
	struct transfer t = jump_fcontext(ring.at[0], 0);
	limit += ops;
	int64_t began = now();
	jump_fcontext(t.from, NULL);
	began = now() - began;
	count -= n;
	munmap(mem, n * size);
	return began;
}

int main(void)
{
	char op[32];
	long long n;
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (scanf("%31s %lld", op, &n) == 2) {
		int64_t ns;
		long members;
		limit = n;
		count = 0;
		if (strcmp(op, "switch") == 0) {
			ns = do_switch();
		} else if (strcmp(op, "spawn") == 0) {
			ns = do_spawn();
		} else if (sscanf(op, "yield-%ld", &members) == 1 && members > 1 && members <= 10000) {
			ns = do_yield(members);
		} else {
			printf("error no operation %s\n", op);
			continue;
		}
		printf("%lld %lld 0 0 0 0 0\n", (long long)ns, (long long)count);
	}
	return 0;
}
