/*
 * The second part of baseline.c: threads that wait.
 */
#include <semaphore.h>

/*
 * A semaphore wakes a thread on another CPU, which has had time to fall asleep.
 * MORE are the 50th, 90th, 99th and 99.9th percentile of the time from before
 * the post to after the wait.
 */

static struct {
	sem_t sem;
	int64_t n, sent, *took;
	int64_t done __attribute__((aligned(64)));
} waking;

static void *sleeper(void *arg)
{
	for (int64_t i = 0; i < waking.n; i++) {
		while (sem_wait(&waking.sem) != 0)
			;
		waking.took[i] = now() - waking.sent;
		__atomic_store_n(&waking.done, i + 1, __ATOMIC_RELEASE);
	}
	return arg;
}

/* bind_to binds the caller to the i-th CPU that the process may use. */
static void bind_to(const cpu_set_t *allowed, int i)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, allowed) && i-- == 0)
			CPU_SET(cpu, &one);
	check(pthread_setaffinity_np(pthread_self(), sizeof one, &one), "pthread_setaffinity_np");
}

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void wake(int64_t n, struct result *r)
{
	cpu_set_t allowed;
	pthread_t th;
	check(pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed), "pthread_getaffinity_np");
	waking.n = n;
	waking.done = 0;
	waking.took = calloc(n, sizeof *waking.took);
	if (!waking.took)
		check(ENOMEM, "calloc");
	sem_init(&waking.sem, 0, 0);
	bind_to(&allowed, 1);
	check(pthread_create(&th, NULL, sleeper, NULL), "pthread_create");
	bind_to(&allowed, 0);
	for (int64_t i = 0; i < n; i++) {
		while (__atomic_load_n(&waking.done, __ATOMIC_ACQUIRE) != i)
			;
		for (int64_t rest = now() + 50000; now() < rest;)
			;
		waking.sent = now();
		sem_post(&waking.sem);
	}
	check(pthread_join(th, NULL), "pthread_join");
	check(pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed), "pthread_setaffinity_np");
	r->count = waking.done;
	qsort(waking.took, n, sizeof *waking.took, by_size);
	const double at[4] = {0.5, 0.9, 0.99, 0.999};
	for (int i = 0; i < 4; i++)
		r->more[i] = waking.took[(int64_t)(at[i] * (n - 1))];
	r->ns = n * r->more[0];
	free(waking.took);
}

/*
 * So many threads that wait, at once. MORE are the memory that the process and
 * the kernel have for all of them.
 */

static int64_t kernel_memory(void)
{
	char line[128];
	long long kb, sum = 0;
	FILE *f = fopen("/proc/meminfo", "r");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "KernelStack: %lld", &kb) == 1 || sscanf(line, "PageTables: %lld", &kb) == 1 ||
		    sscanf(line, "SUnreclaim: %lld", &kb) == 1)
			sum += kb;
	if (f)
		fclose(f);
	return sum * 1024;
}

static int64_t resident_memory(void)
{
	long total = 0, res = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	if (f && fscanf(f, "%ld %ld", &total, &res) != 2)
		res = 0;
	if (f)
		fclose(f);
	return res * sysconf(_SC_PAGESIZE);
}

static uint32_t parked_in, parked_open;

static void *park(void *arg)
{
	__atomic_fetch_add(&parked_in, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&parked_open, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &parked_open, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	return arg;
}

static void parked_10000(int64_t n, struct result *r)
{
	enum { crowd = 10000 };
	static pthread_t th[crowd];
	static int64_t most[2]; /* in general the first time: stacks are kept */
	int64_t whole = (n + crowd - 1) / crowd * crowd;
	memset(th, 1, sizeof th); /* touched, so that it does not count */
	int64_t t = now();
	while (r->count < whole) {
		parked_in = parked_open = 0;
		int64_t user = resident_memory(), kernel = kernel_memory();
		for (int i = 0; i < crowd; i++)
			check(pthread_create(&th[i], NULL, park, NULL), "pthread_create");
		while (__atomic_load_n(&parked_in, __ATOMIC_ACQUIRE) < crowd)
			sched_yield();
		user = resident_memory() - user;
		kernel = kernel_memory() - kernel;
		most[0] = user > most[0] ? user : most[0];
		most[1] = kernel > most[1] ? kernel : most[1];
		__atomic_store_n(&parked_open, 1, __ATOMIC_RELEASE);
		syscall(SYS_futex, &parked_open, FUTEX_WAKE_PRIVATE, crowd, NULL, NULL, 0);
		for (int i = 0; i < crowd; i++) {
			check(pthread_join(th[i], NULL), "pthread_join");
			r->count++;
		}
	}
	memcpy(r->more, most, sizeof most);
	r->ns = (now() - t) * n / whole;
	r->count = n;
}
