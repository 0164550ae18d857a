package bench

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/asm"
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
	perFiber := 0.0
	b.ResetTimer()
	for range crowds(b, n) {
		p.n, p.in = n, 0
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
	return crowded(b, n, p.woken)
}

// crowds returns how many crowds of n make b.N operations: whole ones, as their
// size is what is measured.
func crowds(b *testing.B, n int) int { return (b.N + n - 1) / n }

// crowded ends a row of whole crowds.
func crowded(b *testing.B, n, woken int) error {
	ops := crowds(b, n) * n
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(ops), "ns/op")
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
	perFiber := 0.0
	var woken atomic.Int64
	b.ResetTimer()
	for range crowds(b, n) {
		before := resident()
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
		perFiber = max(perFiber, float64(resident()-before)/float64(n))
		close(open)
		out.Wait()
	}
	b.StopTimer()
	b.ReportMetric(perFiber, "B/fiber")
	return crowded(b, n, int(woken.Load()))
}
