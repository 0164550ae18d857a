package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/lwp"
	"lwprt/sched"
)

// BenchmarkSteal: one op is to spawn a fiber that the other of two workers runs:
// the one that spawned a thousand of them holds on to its own until all have
// run. fibers/steal says how many are taken at a time.
func BenchmarkSteal(b *testing.B) { compare(b, stealRows) }

var stealRows = []row{{"impl=fiber/workers=2", stealFibers}}

type loot struct {
	n   int
	ran atomic.Int64
}

func stealFibers(b *testing.B) error {
	if err := needCPUs(2); err != nil {
		return err
	}
	s, err := sched.New(sched.Config{Workers: 2, StackSize: fiberStack})
	if err != nil {
		return err
	}
	defer s.Close()
	l := &loot{n: b.N}
	b.ResetTimer()
	f, err := sched.Spawn(s, func(l *loot) {
		done := 0
		for left := l.n; left > 0; {
			k := min(left, 1000)
			left -= k
			for range k {
				if _, err := sched.GoAttr(func(l *loot) { l.ran.Add(1) }, l, sched.Attr{Detached: true}); err != nil {
					return
				}
			}
			for done += k; int(l.ran.Load()) < done; {
				asm.Relax()
			}
		}
	}, l)
	if err != nil {
		return err
	}
	if err := f.Join(); err != nil {
		return err
	}
	b.StopTimer()
	st := s.Stats()
	if st.Steals > 0 {
		b.ReportMetric(float64(st.Stolen)/float64(st.Steals), "fibers/steal")
	}
	return did(int(l.ran.Load()), b.N)
}

// BenchmarkParked: one op is to spawn one of so many, let it park, wake it
// and join it; of whole crowds, as their size is what is measured. B/fiber is
// what the process's resident memory has grown by for each while all were
// parked, and kernel-B/fiber what the kernel's has, for stacks, page tables and
// objects, by its account of the whole machine. first-ns/op is the time for the
// process's first crowd, which has to touch its memory for the first time.
//
//   - fiber: Park, on stacks of 2 KiB that do not grow; one Unpark for each.
//   - goroutine: a receive from one channel, whose close wakes all; each counts
//     atomically.
//   - lwp: threads with default attributes in futex.Wait, woken by one call.
//   - pthread: the same in C. The C library keeps some stacks of those that end.
func BenchmarkParked(b *testing.B) {
	compare(b, rowsParked(10_000))
	compare(b, threadsParked(10_000))
	compare(b, rowsParked(1_000_000))
}

func rowsParked(n int) []row {
	return []row{
		{fmt.Sprintf("impl=fiber/fibers=%d", n), func(b *testing.B) error { return parkedFibers(b, n) }},
		{fmt.Sprintf("impl=goroutine/fibers=%d", n), withProcs(1, func(b *testing.B) error { return parkedGoroutines(b, n) })},
	}
}

func threadsParked(n int) []row {
	return []row{
		{fmt.Sprintf("impl=lwp/fibers=%d", n), func(b *testing.B) error { return parkedThreads(b, n) }},
		{"impl=pthread/fibers=10000", func(b *testing.B) error {
			r, err := measureC(b, baseline, "parked-10000")
			b.ReportMetric(float64(r.more[0])/10_000, "B/fiber")
			b.ReportMetric(float64(r.more[1])/10_000, "kernel-B/fiber")
			return err
		}},
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

// kernelMemory returns what the machine's kernel uses for tasks, in bytes.
func kernelMemory() (n int) {
	text, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(text)) {
		switch key, value, _ := strings.Cut(line, ":"); key {
		case "KernelStack", "PageTables", "SUnreclaim":
			kb := 0
			fmt.Sscan(value, &kb)
			n += kb << 10
		}
	}
	return n
}

// A weight is what a crowd has added to the memory in use, at most: the first
// of a row, in general, as stacks are kept for those that follow.
type weight struct{ user, kernel, grown, kernelGrown int }

var weights = map[string]*weight{}

func weightOf(b *testing.B) *weight {
	w := weights[b.Name()]
	if w == nil {
		w = &weight{}
		weights[b.Name()] = w
		debug.FreeOSMemory() // or what the heap has free would not count
	}
	return w
}

func (w *weight) before() { w.user, w.kernel = resident(), kernelMemory() }

// firstCrowd is the time for each of the first crowd of a row.
var firstCrowd = map[string]float64{}

func (w *weight) after() {
	w.grown = max(w.grown, resident()-w.user)
	w.kernelGrown = max(w.kernelGrown, kernelMemory()-w.kernel)
}

func (w *weight) report(b *testing.B, n int) {
	b.ReportMetric(float64(w.grown)/float64(n), "B/fiber")
	b.ReportMetric(float64(w.kernelGrown)/float64(n), "kernel-B/fiber")
}

type parking struct {
	n     int
	f     []sched.Fiber
	in    int
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
	mem := weightOf(b)
	b.ResetTimer()
	for range crowds(b, n) {
		p.n, p.in = n, 0
		mem.before()
		f, err := sched.Spawn(s, (*parking).fill, p)
		if err != nil {
			return err
		}
		if err := f.Join(); err != nil {
			return err
		}
		mem.after()
		if f, err = sched.Spawn(s, (*parking).empty, p); err != nil {
			return err
		}
		if err := f.Join(); err != nil {
			return err
		}
	}
	b.StopTimer()
	mem.report(b, n)
	return crowded(b, n, p.woken)
}

// crowds returns how many crowds of n make b.N operations: whole ones, as their
// size is what is measured.
func crowds(b *testing.B, n int) int { return (b.N + n - 1) / n }

// crowded ends a row of whole crowds.
func crowded(b *testing.B, n, woken int) error {
	ops := crowds(b, n) * n
	each := float64(b.Elapsed().Nanoseconds()) / float64(ops)
	if _, ok := firstCrowd[b.Name()]; !ok {
		firstCrowd[b.Name()] = each
	}
	b.ReportMetric(each, "ns/op")
	b.ReportMetric(firstCrowd[b.Name()], "first-ns/op")
	return did(woken, ops)
}

// fill spawns the fibers and lets them park.
func (p *parking) fill() {
	for i := range p.n {
		p.f[i], _ = sched.Go((*parking).wait, p)
	}
	for p.in < p.n {
		sched.Yield()
	}
}

func (p *parking) wait() {
	p.in++
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
	mem := weightOf(b)
	var woken atomic.Int64
	b.ResetTimer()
	for range crowds(b, n) {
		mem.before()
		open := make(chan struct{})
		var in, out sync.WaitGroup
		in.Add(n)
		for range n {
			out.Go(func() {
				in.Done()
				<-open
				woken.Add(1)
			})
		}
		in.Wait()
		mem.after()
		close(open)
		out.Wait()
	}
	b.StopTimer()
	mem.report(b, n)
	return crowded(b, n, int(woken.Load()))
}

// A crowd is of threads that wait.
type crowd struct {
	gate
	woken uint32
}

func parkedThreads(b *testing.B, n int) error {
	threads := make([]lwp.Thread, n)
	for i := range threads {
		threads[i] = lwp.Thread{} // touched, so that it does not count
	}
	mem := weightOf(b)
	woken := 0
	b.ResetTimer()
	for range crowds(b, n) {
		c := &crowd{}
		mem.before()
		started := 0
		var failed error
		for ; started < n && failed == nil; started++ {
			threads[started], failed = lwp.Start(func(c *crowd) {
				c.pass()
				atomic.AddUint32(&c.woken, 1)
			}, c)
		}
		if failed != nil {
			started--
		}
		c.wait(uint32(started))
		mem.after()
		c.release()
		for _, t := range threads[:started] {
			if err := t.Join(); failed == nil {
				failed = err
			}
		}
		if errors.Is(failed, unix.EAGAIN) {
			return skip(fmt.Sprintf("no more than %d threads here: %v", started, failed))
		}
		if failed != nil {
			return failed
		}
		woken += int(c.woken)
	}
	b.StopTimer()
	mem.report(b, n)
	return crowded(b, n, woken)
}
