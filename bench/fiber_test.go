package bench

import (
	"fmt"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"lwprt/asm"
	"lwprt/lwp"
	"lwprt/sched"
)

// fiberStack is the stack size of fibers in benchmarks, which need little.
const fiberStack = sched.MinStackSize

// onFibers is the body of a row whose operations are done by fibers: fn is the
// first of them, and the time is from its beginning to its end.
func onFibers[T any](b *testing.B, workers int, fn func(*T), arg *T) error {
	return onStacks(b, workers, fiberStack, fn, arg)
}

// onStacks is onFibers on stacks of another size.
func onStacks[T any](b *testing.B, workers, stack int, fn func(*T), arg *T) error {
	s, err := sched.New(sched.Config{Workers: workers, StackSize: stack})
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
//   - fcontext: Boost.Context's jump_fcontext, from C. It saves six registers
//     and the floating-point control words, and carries a pointer.
func BenchmarkSwitch(b *testing.B) { compare(b, switchRows) }

var switchRows = []row{
	{"impl=fiber", switchContexts},
	{"impl=iterpull", switchPull},
	{"impl=fcontext", inFcontext("switch")},
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
// one worker or P. A lap that touches the memory of all is not in the time; the
// making and the end of all is, so that each yields ten times at least.
//
//   - fiber: sched.Yield. Nobody preempts a fiber, and its stack does not grow.
//   - goroutine: runtime.Gosched, which also looks for work of other kinds: the
//     network, timers, the collector.
//   - fcontext: Boost.Context's contexts, on stacks of 2 KiB, that jump around in
//     a ring, from C: no queue and no scheduler. The time is without the making.
func BenchmarkYield(b *testing.B) { compare(b, yieldRows) }

var yieldRows = func() (rows []row) {
	for _, n := range []int{2, 100, 10_000} {
		rows = append(rows,
			row{fmt.Sprintf("impl=fiber/fibers=%d", n), func(b *testing.B) error { return yieldFibers(b, n) }},
			row{fmt.Sprintf("impl=goroutine/fibers=%d", n), withProcs(1, func(b *testing.B) error { return yieldGoroutines(b, n) })},
			row{fmt.Sprintf("impl=fcontext/fibers=%d", n), inFcontext(fmt.Sprint("yield-", n))})
	}
	return rows
}()

// yielders share n operations.
type yielders struct {
	n, each, extra int
	started, good  int
	failed         bool
}

// lapped times yields, after a lap in which the memory of all is touched.
func lapped(b *testing.B, n int, run func(*yielders) (done int, err error)) error {
	if _, err := run(newYielders(n, n)); err != nil {
		return err
	}
	ops := max(b.N, 10*n)
	b.ResetTimer()
	done, err := run(newYielders(ops, n))
	b.StopTimer()
	if err != nil {
		return err
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(ops), "ns/op")
	return did(done, ops)
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
	s, err := sched.New(sched.Config{Workers: 1, StackSize: fiberStack})
	if err != nil {
		return err
	}
	defer s.Close()
	return lapped(b, n, func(y *yielders) (int, error) {
		f, err := sched.Spawn(s, func(y *yielders) {
			for range y.n {
				if _, err := sched.GoAttr(yieldFiber, y, sched.Attr{Detached: true}); err != nil {
					y.failed = true
				}
			}
		}, y)
		if err != nil {
			return 0, err
		}
		if err := f.Join(); err != nil {
			return 0, err
		}
		if err := s.Wait(); err != nil {
			return 0, err
		}
		if y.failed {
			return 0, fmt.Errorf("a fiber was not spawned")
		}
		return y.good, nil
	})
}

func yieldFiber(y *yielders) {
	for range y.share() {
		sched.Yield()
		y.good++
	}
}

func yieldGoroutines(b *testing.B, n int) error {
	return lapped(b, n, func(y *yielders) (int, error) {
		var good atomic.Int64 // one that is preempted may be anywhere
		var wg sync.WaitGroup
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
		return int(good.Load()), nil
	})
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
