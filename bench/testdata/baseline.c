/*
 * The C side of the benchmarks: one process that reads "OP N" lines, does N
 * operations, and answers "NS COUNT TURNS MORE..." or "error TEXT". NS is the
 * time of the operations alone, on the monotonic clock. COUNT is what the
 * operations themselves have counted; the reader compares it with N. TURNS is
 * how often a contended lock changed hands, else 0. MORE are four numbers that
 * an operation has to say more with. End of input ends it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct result {
	int64_t ns, count, turns, more[4];
};

static int64_t now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static void check(int err, const char *what)
{
	if (err) {
		printf("error %s: %s\n", what, strerror(err));
		exit(1);
	}
}

/* pthread_create and pthread_join, default attributes. */

static void *count_one(void *arg)
{
	++*(int64_t *)arg;
	return NULL;
}

static void spawn_pthread(int64_t n, struct result *r)
{
	int64_t t = now();
	for (int64_t i = 0; i < n; i++) {
		pthread_t th;
		check(pthread_create(&th, NULL, count_one, &r->count), "pthread_create");
		check(pthread_join(th, NULL), "pthread_join");
	}
	r->ns = now() - t;
}

/*
 * clone(2) and the join, with nothing around them: one stack used again and
 * again, no change of the signal mask, a child of five instructions.
 *
 * long floor_clone(flags, stack, tid, tls, tid, int64_t *count)
 *
 * The arguments stand in arm64's order, tls before the child's tid; x86-64
 * has the two exchanged.
 */
long floor_clone(long flags, void *stack, uint32_t *ptid, void *tls, uint32_t *ctid, int64_t *count);

#if defined(__x86_64__)
__asm__(
	".text\n"
	".globl floor_clone\n"
	".type floor_clone, @function\n"
	"floor_clone:\n"
	"	mov %r8, %r10\n"	/* child tid */
	"	mov %rcx, %r8\n"	/* tls */
	"	mov $56, %eax\n"
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jz 1f\n"
	"	ret\n"
	"1:	incq (%r9)\n"
	"	xor %edi, %edi\n"
	"	mov $60, %eax\n"
	"	syscall\n"
	"	hlt\n"
	".size floor_clone, . - floor_clone\n");
#elif defined(__aarch64__)
__asm__(
	".text\n"
	".globl floor_clone\n"
	".type floor_clone, %function\n"
	"floor_clone:\n"
	"	mov x8, #220\n"
	"	svc #0\n"
	"	cbz x0, 1f\n"
	"	ret\n"
	"1:	ldr x1, [x5]\n"
	"	add x1, x1, #1\n"
	"	str x1, [x5]\n"
	"	mov x0, #0\n"
	"	mov x8, #93\n"
	"	svc #0\n"
	"	brk #0\n"
	".size floor_clone, . - floor_clone\n");
#else
#error "no floor_clone for this architecture"
#endif

static void spawn_clonefloor(int64_t n, struct result *r)
{
	const size_t size = 64 << 10;
	const long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
		CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
	static uint64_t tls[64];
	static uint32_t tid;
	char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		check(errno, "mmap");

	int64_t t = now();
	for (int64_t i = 0; i < n; i++) {
		long ret = floor_clone(flags, stack + size - 64, &tid, tls, &tid, &r->count);
		if (ret < 0)
			check(-ret, "clone");
		uint32_t v;
		/* Not a private wait: the kernel's wake is none. */
		while ((v = __atomic_load_n(&tid, __ATOMIC_ACQUIRE)) != 0)
			syscall(SYS_futex, &tid, FUTEX_WAIT, v, NULL, NULL, 0);
	}
	r->ns = now() - t;
	munmap(stack, size);
}

/* pthread_mutex_t of the default kind, and what it protects, in one cache line. */

static struct {
	pthread_mutex_t mu;
	int64_t count, limit;
	uint32_t turns, last;
} __attribute__((aligned(64))) shared;

static pthread_barrier_t gate;

static void *wait_at_gate(void *arg)
{
	pthread_barrier_wait(&gate);
	return arg;
}

static void mutex_0(int64_t n, struct result *r)
{
	/* glibc leaves out atomic instructions while there is one thread. */
	pthread_t other;
	check(pthread_barrier_init(&gate, NULL, 2), "pthread_barrier_init");
	check(pthread_create(&other, NULL, wait_at_gate, NULL), "pthread_create");

	pthread_mutex_init(&shared.mu, NULL);
	shared.count = 0;
	int64_t t = now();
	for (int64_t i = 0; i < n; i++) {
		pthread_mutex_lock(&shared.mu);
		shared.count++;
		pthread_mutex_unlock(&shared.mu);
	}
	r->ns = now() - t;
	r->count = shared.count;

	pthread_barrier_wait(&gate);
	check(pthread_join(other, NULL), "pthread_join");
	pthread_barrier_destroy(&gate);
}

struct contender {
	pthread_t th;
	uint32_t id;
	int64_t own;
};

static void *contend(void *arg)
{
	struct contender *c = arg;
	int64_t own = 0;
	int more = 1;
	pthread_barrier_wait(&gate);
	while (more) {
		pthread_mutex_lock(&shared.mu);
		if (shared.count == shared.limit) {
			more = 0;
		} else {
			shared.count++;
			own++;
			if (shared.last != c->id) {
				shared.last = c->id;
				shared.turns++;
			}
		}
		pthread_mutex_unlock(&shared.mu);
	}
	c->own = own;
	return NULL;
}

static void mutex_2(int64_t n, struct result *r)
{
	struct contender c[2] = {{.id = 1}, {.id = 2}};
	check(pthread_barrier_init(&gate, NULL, 3), "pthread_barrier_init");
	pthread_mutex_init(&shared.mu, NULL);
	shared.count = shared.turns = shared.last = 0;
	shared.limit = n;
	for (int i = 0; i < 2; i++)
		check(pthread_create(&c[i].th, NULL, contend, &c[i]), "pthread_create");
	pthread_barrier_wait(&gate);
	int64_t t = now();
	for (int i = 0; i < 2; i++)
		check(pthread_join(c[i].th, NULL), "pthread_join");
	r->ns = now() - t;
	r->count = c[0].own + c[1].own;
	r->turns = shared.turns;
	pthread_barrier_destroy(&gate);
}

/* pthread_getspecific; the value is 1. */

static void tls_get(int64_t n, struct result *r)
{
	static int64_t one = 1;
	pthread_key_t key;
	check(pthread_key_create(&key, NULL), "pthread_key_create");
	check(pthread_setspecific(key, &one), "pthread_setspecific");
	int64_t t = now();
	for (int64_t i = 0; i < n; i++)
		r->count += *(int64_t *)pthread_getspecific(key);
	r->ns = now() - t;
	pthread_key_delete(key);
}

/* getppid(2). */

static void syscall_getppid(int64_t n, struct result *r)
{
	long parent = getppid();
	int64_t t = now();
	for (int64_t i = 0; i < n; i++)
		r->count += syscall(SYS_getppid) == parent;
	r->ns = now() - t;
}

/*
 * Processes. The children end at once, or run the program that is named by the
 * environment variable PROCESS_PROGRAM_<name>. With "-1g" in the operation's
 * name this program has 1 GiB of memory touched, page by page, else not.
 */

static void resident(int big)
{
	static char *mem;
	const size_t size = (size_t)1 << 30;
	if (big && !mem) {
		mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (mem == MAP_FAILED)
			check(errno, "mmap");
		madvise(mem, size, MADV_NOHUGEPAGE);
		for (size_t i = 0; i < size; i += 4096)
			mem[i] = 1;
	}
	if (!big && mem) {
		munmap(mem, size);
		mem = NULL;
	}
}

static void reap(pid_t pid, struct result *r, int code)
{
	int status;
	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR)
			check(errno, "waitpid");
	r->count += WIFEXITED(status) && WEXITSTATUS(status) == code;
}

static void process_fork(int64_t n, struct result *r)
{
	int64_t t = now();
	for (int64_t i = 0; i < n; i++) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(7);
		if (pid < 0)
			check(errno, "fork");
		reap(pid, r, 7);
	}
	r->ns = now() - t;
}

static void process_vfork(int64_t n, struct result *r)
{
	int64_t t = now();
	for (int64_t i = 0; i < n; i++) {
		pid_t pid = vfork();
		if (pid == 0)
			_exit(7);
		if (pid < 0)
			check(errno, "vfork");
		reap(pid, r, 7);
	}
	r->ns = now() - t;
}

static int clone_child(void *arg)
{
	return *(int *)arg;
}

static void process_clonevm(int64_t n, struct result *r)
{
	static char stack[64 << 10] __attribute__((aligned(16)));
	static int seven = 7;
	int64_t t = now();
	for (int64_t i = 0; i < n; i++) {
		pid_t pid = clone(clone_child, stack + sizeof stack, CLONE_VM | SIGCHLD, &seven);
		if (pid < 0)
			check(errno, "clone");
		reap(pid, r, 7);
	}
	r->ns = now() - t;
}

static void process_posixspawn(int64_t n, struct result *r, const char *program)
{
	char *argv[] = {(char *)program, NULL}, *env[] = {NULL};
	int64_t t = now();
	for (int64_t i = 0; i < n; i++) {
		pid_t pid;
		int err = posix_spawn(&pid, program, NULL, NULL, argv, env);
		if (err == ENOENT && strcmp(program, "/nonexistent") == 0) {
			r->count++;
			continue;
		}
		check(err, "posix_spawn");
		reap(pid, r, 0);
	}
	r->ns = now() - t;
}

static void posixspawn_none(int64_t n, struct result *r) { process_posixspawn(n, r, "/nonexistent"); }
static void posixspawn_tiny(int64_t n, struct result *r) { process_posixspawn(n, r, getenv("PROCESS_PROGRAM_tiny")); }
static void posixspawn_true(int64_t n, struct result *r) { process_posixspawn(n, r, "/bin/true"); }

/* These are in waiting.c, which is compiled as the second part of this file. */
static void wake(int64_t n, struct result *r);
static void parked_10000(int64_t n, struct result *r);

static const struct {
	const char *name;
	void (*run)(int64_t, struct result *);
} ops[] = {
	{"spawn-pthread", spawn_pthread},
	{"spawn-clonefloor", spawn_clonefloor},
	{"mutex-0", mutex_0},
	{"mutex-2", mutex_2},
	{"tls", tls_get},
	{"syscall", syscall_getppid},
	{"wake", wake},
	{"parked-10000", parked_10000},
	{"process-fork", process_fork},
	{"process-vfork", process_vfork},
	{"process-clonevm", process_clonevm},
	{"process-posixspawn-none", posixspawn_none},
	{"process-posixspawn-tiny", posixspawn_tiny},
	{"process-posixspawn-true", posixspawn_true},
};

int main(void)
{
	char name[32];
	long long n;
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (scanf("%31s %lld", name, &n) == 2) {
		struct result r = {0};
		size_t i = 0;
		size_t len = strlen(name);
		int big = len > 3 && strcmp(name + len - 3, "-1g") == 0;
		if (big)
			name[len - 3] = '\0';
		resident(big);
		while (i < sizeof ops / sizeof *ops && strcmp(ops[i].name, name) != 0)
			i++;
		if (i == sizeof ops / sizeof *ops) {
			printf("error no operation %s\n", name);
			continue;
		}
		ops[i].run(n, &r);
		printf("%lld %lld %lld", (long long)r.ns, (long long)r.count, (long long)r.turns);
		for (i = 0; i < 4; i++)
			printf(" %lld", (long long)r.more[i]);
		printf("\n");
	}
	return 0;
}
