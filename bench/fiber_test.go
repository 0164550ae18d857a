package bench

import (
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/lwp"
	"lwprt/sched"
)

// fiberStack is the stack size of fibers in benchmarks, which need little.
const fiberStack = sched.MinStackSize

// onFibers is the body of a row whose operations are done by fibers: fn is the
// first of them, and the time is from its beginning to its end.
func onFibers[T any](b *testing.B, workers int, fn func(*T), arg *T) error {
	s, err := sched.New(sched.Config{Workers: workers, StackSize: fiberStack})
	if err != nil {
		return err
	}
	defer s.Close()
	b.ResetTimer()
	f, err := sched.Spawn(s, fn, arg)
	if err != nil {
		return err
	}
	err = f.Join()
	b.StopTimer()
	return err
}

// needCPUs skips a row for more workers than there are CPUs.
func needCPUs(n int) error {
	if runtime.NumCPU() < n {
		return skip(fmt.Sprintf("%d CPUs are allowed here", runtime.NumCPU()))
	}
	return nil
}

// withProcs runs a row of goroutines on n Ps.
func withProcs(n int, body func(b *testing.B) error) func(b *testing.B) error {
	return func(b *testing.B) error {
		if err := needCPUs(n); err != nil {
			return err
		}
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
		return body(b)
	}
}

// BenchmarkSwitch: one op is a bare switch from one context to another, without
// a queue, and to count it.
//
//   - fiber: asm.Switch between two contexts on one thread. It saves the stack
//     and frame pointers and the return address: no other register, no
//     floating-point control word, no signal mask. The time includes the
//     start and the end of the thread.
//   - iterpull: iter.Pull's next, which is two switches between goroutines;
//     one op is half a next. It carries a value and can be preempted.
func BenchmarkSwitch(b *testing.B) { compare(b, switchRows) }

var switchRows = []row{
	{"impl=fiber", switchContexts},
	{"impl=iterpull", switchPull},
}

type pair struct {
	a, b     asm.Context
	n, count int
	free     uint32
	stack    [4096]byte
}

func switchContexts(b *testing.B) error {
	arena := new(lwp.Arena)
	defer arena.Close()
	q, err := lwp.New[pair](arena)
	if err != nil {
		return err
	}
	q.n = b.N
	b.ResetTimer()
	t, err := lwp.Start(pingPong, q)
	if err != nil {
		return err
	}
	if err := t.Join(); err != nil {
		return err
	}
	b.StopTimer()
	return did(q.count, b.N)
}

// pingPong starts the other context, and both switch to each other.
func pingPong(p *pair) {
	p.a.Guard = asm.Current().G.StackGuard0
	p.b.Guard = uintptr(unsafe.Pointer(&p.stack)) + 1024
	hi := (uintptr(unsafe.Pointer(&p.stack)) + unsafe.Sizeof(p.stack)) &^ 15
	p.b.Init(hi, *(*uintptr)(unsafe.Pointer(&pongFn)), uintptr(unsafe.Pointer(p)))
	p.hop(&p.a, &p.b)
}

var pongFn = func(p *pair) { p.hop(&p.b, &p.a) }

// hop switches to and fro: both contexts from one place, as two that yield do.
//
//go:noinline
func (p *pair) hop(from, to *asm.Context) {
	for p.count < p.n {
		p.count++
		asm.Switch(from, to, &p.free)
	}
	if from != &p.a {
		asm.Switch(from, &p.a, &p.free) // the thread ends in its own context
	}
}

func switchPull(b *testing.B) error {
	n := 0
	next, stop := iter.Pull(iter.Seq[int](func(yield func(int) bool) {
		for i := 0; yield(i); i++ {
		}
	}))
	defer stop()
	for i := 0; i < b.N; i += 2 {
		if v, ok := next(); ok && v == i/2 {
			n += 2
		}
	}
	return did(min(n, b.N), b.N)
}

// BenchmarkYield: one op is to yield and to come again, with so many ready on
// one worker or P. The time includes the making and the end of all.
//
//   - fiber: sched.Yield. Nobody preempts a fiber, and its stack does not grow.
//   - goroutine: runtime.Gosched, which also looks for work of other kinds: the
//     network, timers, the collector.
func BenchmarkYield(b *testing.B) { compare(b, yieldRows) }

var yieldRows = func() (rows []row) {
	for _, n := range []int{2, 100, 10_000} {
		rows = append(rows,
			row{fmt.Sprintf("impl=fiber/fibers=%d", n), func(b *testing.B) error { return yieldFibers(b, n) }},
			row{fmt.Sprintf("impl=goroutine/fibers=%d", n), withProcs(1, func(b *testing.B) error { return yieldGoroutines(b, n) })})
	}
	return rows
}()

// yielders share n operations.
type yielders struct {
	n, each, extra int
	started, good  int
	failed         bool
}

// share returns how many of the operations the next one does.
func (y *yielders) share() int {
	n := y.each
	if y.started < y.extra {
		n++
	}
	y.started++
	return n
}

func newYielders(ops, n int) *yielders {
	return &yielders{n: n, each: ops / n, extra: ops % n}
}

func yieldFibers(b *testing.B, n int) error {
	y := newYielders(b.N, n)
	s, err := sched.New(sched.Config{Workers: 1, StackSize: fiberStack})
	if err != nil {
		return err
	}
	defer s.Close()
	b.ResetTimer()
	f, err := sched.Spawn(s, func(y *yielders) {
		for range y.n {
			if _, err := sched.GoAttr(yieldFiber, y, sched.Attr{Detached: true}); err != nil {
				y.failed = true
			}
		}
	}, y)
	if err != nil {
		return err
	}
	if err := f.Join(); err != nil {
		return err
	}
	if err := s.Wait(); err != nil {
		return err
	}
	b.StopTimer()
	if y.failed {
		return fmt.Errorf("a fiber was not spawned")
	}
	return did(y.good, b.N)
}

func yieldFiber(y *yielders) {
	for range y.share() {
		sched.Yield()
		y.good++
	}
}

func yieldGoroutines(b *testing.B, n int) error {
	y := newYielders(b.N, n)
	var good atomic.Int64 // one that is preempted may be anywhere
	var wg sync.WaitGroup
	b.ResetTimer()
	for range n {
		share := y.share()
		wg.Go(func() {
			done := 0
			for range share {
				runtime.Gosched()
				done++
			}
			good.Add(int64(done))
		})
	}
	wg.Wait()
	b.StopTimer()
	return did(good.Load(), int64(b.N))
}

// spawnFiber is SpawnJoin's row: Go and Join on a fiber, one worker.
func spawnFiber(b *testing.B) error {
	c := &counter{}
	j := &fiberJob{n: b.N, c: c}
	if err := onFibers(b, 1, func(j *fiberJob) {
		for range j.n {
			f, err := sched.Go(count, j.c)
			if err != nil || f.Join() != nil {
				return
			}
		}
	}, j); err != nil {
		return err
	}
	return did(c.n, b.N)
}

type fiberJob struct {
	n int
	c *counter
}

// BenchmarkSpawnBatch: one op is one of a thousand that are spawned, then all
// joined. The body counts itself.
//
//   - fiber: Go and Join on a fiber, one worker, stacks of 2 KiB. Join runs the
//     child that is next. Nothing is allocated, and no one but the joiner can
//     wait for a fiber.
//   - goroutine: go and WaitGroup. One closure for each is allocated; the body
//     counts atomically, as it can be preempted, and the stack can grow.
func BenchmarkSpawnBatch(b *testing.B) { compare(b, batchRows) }

var batchRows = []row{
	{"impl=fiber/fibers=1000", batchFibers},
	{"impl=goroutine/fibers=1000", withProcs(1, batchGoroutines)},
}

type batchJob struct {
	n int
	c counter
	f [1000]sched.Fiber
}

func batchFibers(b *testing.B) error {
	j := &batchJob{n: b.N}
	if err := onFibers(b, 1, func(j *batchJob) {
		for left := j.n; left > 0; {
			k := min(left, len(j.f))
			left -= k
			for i := range k {
				j.f[i], _ = sched.Go(count, &j.c)
			}
			for i := range k {
				j.f[i].Join()
			}
		}
	}, j); err != nil {
		return err
	}
	return did(j.c.n, b.N)
}

func batchGoroutines(b *testing.B) error {
	var n atomic.Int64
	b.ResetTimer()
	for left := b.N; left > 0; {
		k := min(left, 1000)
		left -= k
		var wg sync.WaitGroup
		wg.Add(k)
		for range k {
			go func() {
				n.Add(1)
				wg.Done()
			}()
		}
		wg.Wait()
	}
	return did(n.Load(), int64(b.N))
}

// BenchmarkParkUnpark: one op is to unpark another and to park, by two that do
// so in turns.
//
//   - fiber: Park and Unpark, one worker. They carry no value.
//   - goroutine: unbuffered channels of empty structs, GOMAXPROCS=1. There is
//     nothing closer that goroutines have for use.
func BenchmarkParkUnpark(b *testing.B) { compare(b, parkRows) }

var parkRows = []row{
	{"impl=fiber", func(b *testing.B) error { return ringFibers(b, 2) }},
	{"impl=goroutine", withProcs(1, func(b *testing.B) error { return ringGoroutines(b, 2) })},
}

// BenchmarkRing: one op is one hop of a token around 503 members, each of whom
// waits for it; by the means of BenchmarkParkUnpark. The time includes the
// making and the end of the members.
func BenchmarkRing(b *testing.B) { compare(b, ringRows) }

var ringRows = []row{
	{"impl=fiber", func(b *testing.B) error { return ringFibers(b, 503) }},
	{"impl=goroutine", withProcs(1, func(b *testing.B) error { return ringGoroutines(b, 503) })},
}

type ring struct {
	hops, good int
	members    int
	m          [503]member
}

type member struct {
	r    *ring
	f    sched.Fiber
	next *member
}

func ringFibers(b *testing.B, n int) error {
	r := &ring{hops: b.N, members: n}
	for i := range n {
		r.m[i].r, r.m[i].next = r, &r.m[(i+1)%n]
	}
	if err := onFibers(b, 1, runRing, r); err != nil {
		return err
	}
	return did(r.good, b.N)
}

func runRing(r *ring) {
	for i := range r.members {
		r.m[i].f, _ = sched.Go((*member).pass, &r.m[i])
	}
	r.m[0].f.Unpark()
	for i := range r.members {
		r.m[i].f.Join()
	}
}

// pass hands the token on until it has made its hops.
func (m *member) pass() {
	r := m.r
	for {
		sched.Park("token")
		if r.good == r.hops {
			m.next.f.Unpark()
			return
		}
		r.good++
		m.next.f.Unpark()
	}
}

func ringGoroutines(b *testing.B, n int) error {
	good := 0
	c := make([]chan struct{}, n)
	for i := range c {
		c[i] = make(chan struct{})
	}
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range n {
		wg.Go(func() {
			for range c[i] {
				if good == b.N {
					break
				}
				good++
				c[(i+1)%n] <- struct{}{}
			}
			close(c[(i+1)%n])
			for range c[i] {
			}
		})
	}
	c[0] <- struct{}{}
	wg.Wait()
	b.StopTimer()
	return did(good, b.N)
}

// BenchmarkSkynet: one op is one node of a tree in which each has up to ten
// children, that many at once, and waits for them to add up what they return.
//
//   - fiber: Go and Join. Children work on their parent's stack frame; stacks of
//     2 KiB.
//   - goroutine: go and WaitGroup, of the same shape. What children share with
//     their parent is allocated.
//
// workers= is the number of workers, or GOMAXPROCS.
func BenchmarkSkynet(b *testing.B) { compare(b, skynetRows) }

// BenchmarkFib: one op is one spawn of a recursive Fibonacci function, which
// spawns one of its two calls and makes the other itself; by the means of
// BenchmarkSkynet, but that fibers have the default stack, since half of the
// calls are plain ones and as deep as they come.
func BenchmarkFib(b *testing.B) { compare(b, fibRows) }

// joinRows are the rows of a tree program, on one and two workers.
func joinRows(fiber func(b *testing.B, workers int) error, goroutine func(b *testing.B) error) (rows []row) {
	for _, n := range []int{1, 2} {
		rows = append(rows,
			row{fmt.Sprintf("impl=fiber/op=join/workers=%d", n), func(b *testing.B) error {
				if err := needCPUs(n); err != nil {
					return err
				}
				return fiber(b, n)
			}},
			row{fmt.Sprintf("impl=goroutine/op=join/workers=%d", n), withProcs(n, goroutine)})
	}
	return rows
}

var (
	skynetRows = joinRows(skynetFibers, skynetGoroutines)
	fibRows    = joinRows(fibFibers, fibGoroutines)
)

// A node is the root of n nodes, numbered from first on; it adds up their numbers.
type node struct {
	first, n, sum int
	failed        bool
}

// kids fills in the children of nd and returns how many those are.
func (nd *node) kids(kids *[10]node) int {
	rest := nd.n - 1
	k := min(rest, len(kids))
	at := nd.first + 1
	for i := range k {
		n := rest / (k - i)
		kids[i] = node{first: at, n: n}
		at += n
		rest -= n
	}
	return k
}

func skynetFibers(b *testing.B, workers int) error {
	nd := &node{n: b.N}
	if err := onFibers(b, workers, skynet, nd); err != nil {
		return err
	}
	if nd.failed {
		return fmt.Errorf("a fiber was not spawned or joined")
	}
	return did(nd.sum, b.N*(b.N-1)/2)
}

func skynet(nd *node) {
	nd.sum = nd.first
	if nd.n == 1 {
		return
	}
	var kids [10]node
	var f [10]sched.Fiber
	k := nd.kids(&kids)
	for i := range k {
		var err error
		if f[i], err = sched.Go(skynet, &kids[i]); err != nil {
			nd.failed = true
		}
	}
	for i := range k {
		if f[i].Join() != nil || kids[i].failed {
			nd.failed = true
		}
		nd.sum += kids[i].sum
	}
}

func skynetGoroutines(b *testing.B) error {
	nd := &node{n: b.N}
	b.ResetTimer()
	var wg sync.WaitGroup
	wg.Add(1)
	go skynetGoroutine(nd, &wg)
	wg.Wait()
	b.StopTimer()
	return did(nd.sum, b.N*(b.N-1)/2)
}

func skynetGoroutine(nd *node, parent *sync.WaitGroup) {
	defer parent.Done()
	nd.sum = nd.first
	if nd.n == 1 {
		return
	}
	var kids [10]node
	var wg sync.WaitGroup
	k := nd.kids(&kids)
	wg.Add(k)
	for i := range k {
		go skynetGoroutine(&kids[i], &wg)
	}
	wg.Wait()
	for i := range k {
		nd.sum += kids[i].sum
	}
}

// A fib is a call of the Fibonacci function; it counts the spawns below it.
type fib struct {
	n, value, spawns int
	failed           bool
}

// fibTrees has run make b.N spawns, by as many calls as it takes. A call for n
// makes one spawn less than the number at index n.
func fibTrees(b *testing.B, run func(n int) (spawns int)) error {
	numbers := []int{1, 1}
	for numbers[len(numbers)-1] <= b.N {
		numbers = append(numbers, numbers[len(numbers)-1]+numbers[len(numbers)-2])
	}
	done := 0
	for n := len(numbers) - 1; done < b.N; {
		if numbers[n]-1 > b.N-done {
			n--
			continue
		}
		done += run(n)
	}
	return did(done, b.N)
}

func fibFibers(b *testing.B, workers int) error {
	s, err := sched.New(sched.Config{Workers: workers}) // a stack that the recursion fits on
	if err != nil {
		return err
	}
	defer s.Close()
	b.ResetTimer()
	err = fibTrees(b, func(n int) int {
		c := &fib{n: n}
		if f, err := sched.Spawn(s, fibFiber, c); err != nil || f.Join() != nil || c.failed {
			return b.N + 1
		}
		return c.spawns
	})
	b.StopTimer()
	return err
}

func fibFiber(c *fib) {
	if c.n < 2 {
		c.value = c.n
		return
	}
	x, y := fib{n: c.n - 1}, fib{n: c.n - 2}
	f, err := sched.Go(fibFiber, &x)
	if err != nil {
		c.failed = true
		return
	}
	fibFiber(&y)
	if f.Join() != nil || x.failed || y.failed {
		c.failed = true
	}
	c.value = x.value + y.value
	c.spawns = x.spawns + y.spawns + 1
}

func fibGoroutines(b *testing.B) error {
	return fibTrees(b, func(n int) int {
		c := &fib{n: n}
		fibGoroutine(c)
		return c.spawns
	})
}

func fibGoroutine(c *fib) {
	if c.n < 2 {
		c.value = c.n
		return
	}
	x, y := fib{n: c.n - 1}, fib{n: c.n - 2}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		fibGoroutine(&x)
		wg.Done()
	}()
	fibGoroutine(&y)
	wg.Wait()
	c.value = x.value + y.value
	c.spawns = x.spawns + y.spawns + 1
}

// BenchmarkParked: one op is to spawn one of a million, let it park, wake it
// and join it. B/fiber is what resident memory has grown by for each while all
// were parked; fewer than a million were if the run had fewer operations.
//
//   - fiber: Park, on stacks of 2 KiB that do not grow; one Unpark for each.
//   - goroutine: a receive from one channel, whose close wakes all; each counts
//     atomically.
func BenchmarkParked(b *testing.B) { compare(b, parkedRows) }

var parkedRows = rowsParked(1_000_000)

func rowsParked(n int) []row {
	return []row{
		{fmt.Sprintf("impl=fiber/fibers=%d", n), func(b *testing.B) error { return parkedFibers(b, n) }},
		{fmt.Sprintf("impl=goroutine/fibers=%d", n), withProcs(1, func(b *testing.B) error { return parkedGoroutines(b, n) })},
	}
}

// resident returns the process's resident memory in bytes.
func resident() int {
	var total, res int
	if f, err := unix.Open("/proc/self/statm", unix.O_RDONLY, 0); err == nil {
		var buf [128]byte
		n, _ := unix.Read(f, buf[:])
		unix.Close(f)
		fmt.Sscan(string(buf[:max(n, 0)]), &total, &res)
	}
	return res * unix.Getpagesize()
}

type parking struct {
	n     int
	f     []sched.Fiber
	woken int
}

func parkedFibers(b *testing.B, n int) error {
	s, err := sched.New(sched.Config{Workers: 1, StackSize: sched.MinStackSize})
	if err != nil {
		return err
	}
	defer s.Close()
	p := &parking{f: make([]sched.Fiber, n)}
	for i := range p.f {
		p.f[i] = sched.Fiber{} // touched, so that it does not count
	}
	perFiber := 0.0
	b.ResetTimer()
	for left := b.N; left > 0; left -= p.n {
		p.n = min(left, n)
		before := resident()
		f, err := sched.Spawn(s, (*parking).fill, p)
		if err != nil {
			return err
		}
		if err := f.Join(); err != nil {
			return err
		}
		perFiber = max(perFiber, float64(resident()-before)/float64(p.n))
		if f, err = sched.Spawn(s, (*parking).empty, p); err != nil {
			return err
		}
		if err := f.Join(); err != nil {
			return err
		}
	}
	b.StopTimer()
	b.ReportMetric(perFiber, "B/fiber")
	return did(p.woken, b.N)
}

// fill spawns the fibers and lets them park.
func (p *parking) fill() {
	for i := range p.n {
		p.f[i], _ = sched.Go((*parking).wait, p)
	}
	sched.Yield() // all are ahead in the queue
}

func (p *parking) wait() {
	sched.Park("the end")
	p.woken++
}

func (p *parking) empty() {
	for i := range p.n {
		p.f[i].Unpark()
	}
	for i := range p.n {
		p.f[i].Join()
	}
}

func parkedGoroutines(b *testing.B, n int) error {
	perFiber := 0.0
	var woken atomic.Int64
	b.ResetTimer()
	for left := b.N; left > 0; {
		k := min(left, n)
		left -= k
		before := resident()
		open := make(chan struct{})
		var in, out sync.WaitGroup
		in.Add(k)
		for range k {
			out.Go(func() {
				in.Done()
				<-open
				woken.Add(1)
			})
		}
		in.Wait()
		perFiber = max(perFiber, float64(resident()-before)/float64(k))
		close(open)
		out.Wait()
	}
	b.StopTimer()
	b.ReportMetric(perFiber, "B/fiber")
	return did(woken.Load(), int64(b.N))
}
