package bench

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/sched"
)

// BenchmarkWake: one op is to wake one that sleeps on another CPU, and has had
// 50 us to fall asleep, by one that is busy and stays so. What is timed is from
// before the wake to when the other runs; ns/op is the median of that.
//
//   - lwp: futex.Wake and futex.Wait, on threads that are bound to a CPU each.
//   - fiber: Unpark and Park; each of two workers is bound to a CPU. The woken one
//     comes to the other worker by being stolen.
//   - goroutine: a channel, GOMAXPROCS=2. It comes to the other P by being stolen.
//   - lockedgoroutine: the same, by a goroutine that is locked to its thread.
//   - pthread: a semaphore, in C, on threads that are bound to a CPU each.
func BenchmarkWake(b *testing.B) { compare(b, wakeRows) }

var wakeRows = []row{
	{"impl=lwp", wakeThreads},
	{"impl=fiber", wakeFibers},
	{"impl=goroutine", func(b *testing.B) error { return wakeGoroutines(b, false) }},
	{"impl=lockedgoroutine", func(b *testing.B) error { return wakeGoroutines(b, true) }},
	{"impl=pthread", wakeC},
}

// wakes are b.N wakes of one by another.
type wakes struct {
	n, asleep int
	sent      int64
	turn      uint32
	sleeper   sched.Fiber
	failed    bool
	_         [64]byte
	took      int64
	done      uint32 // by the sleeper
	_         [64]byte
	delays
}

// rest waits until the sleeper has run i times, and for it to fall asleep.
func (w *wakes) rest(i int) {
	for atomic.LoadUint32(&w.done) != uint32(i) {
		asm.Relax()
	}
	if i > 0 {
		w.add(w.took)
	}
	for end := futex.Monotonic() + 50_000; futex.Monotonic() < end; {
		asm.Relax()
	}
}

// woken is what the sleeper does when it runs.
func (w *wakes) woken() {
	w.took = futex.Monotonic() - w.sent
	atomic.AddUint32(&w.done, 1)
}

func (w *wakes) conclude(b *testing.B) error {
	for i, p := range percentiles[:4] {
		ns := w.percentile(p / 100)
		reportPercentile(b, p, ns)
		if i == 0 {
			b.ReportMetric(ns, "ns/op")
		}
	}
	return did(int(w.done), b.N)
}

func wakeThreads(b *testing.B) error {
	first, second, err := twoSets()
	if err != nil {
		return err
	}
	w := &wakes{n: b.N}
	sleeper, err := lwp.StartAttr(func(w *wakes) {
		for i := range uint32(w.n) {
			for atomic.LoadUint32(&w.turn) == i {
				futex.Wait(&w.turn, i)
			}
			w.woken()
		}
	}, w, lwp.Attr{CPUs: second})
	if err != nil {
		return err
	}
	waker := func(w *wakes) {
		for i := range w.n {
			w.rest(i)
			w.sent = futex.Monotonic()
			atomic.AddUint32(&w.turn, 1)
			if n, _ := futex.Wake(&w.turn, 1); n > 0 {
				w.asleep++
			}
		}
		w.rest(w.n)
	}
	b.ResetTimer()
	t, err := lwp.StartAttr(waker, w, lwp.Attr{CPUs: first})
	if err != nil {
		waker(w) // or the sleeper would never end
	} else {
		err = t.Join()
	}
	if e := sleeper.Join(); err == nil {
		err = e
	}
	b.StopTimer()
	if err != nil {
		return err
	}
	if b.N > 1000 && w.asleep < b.N/2 {
		return fmt.Errorf("of %d wakes only %d found a sleeper", b.N, w.asleep)
	}
	return w.conclude(b)
}

// twoSets returns sets of one CPU each.
func twoSets() (first, second unix.CPUSet, err error) {
	if err := twoCPUs(); err != nil {
		return first, second, err
	}
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return first, second, err
	}
	for cpu := 0; second.Count() == 0; cpu++ {
		switch {
		case !all.IsSet(cpu):
		case first.Count() == 0:
			first.Set(cpu)
		default:
			second.Set(cpu)
		}
	}
	return first, second, nil
}

func wakeFibers(b *testing.B) error {
	if err := twoCPUs(); err != nil {
		return err
	}
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	s, err := sched.New(sched.Config{Workers: 2, CPUs: all})
	if err != nil {
		return err
	}
	defer s.Close()
	w := &wakes{n: b.N}
	sleeper, err := sched.Spawn(s, func(w *wakes) {
		for range w.n {
			sched.Park("a wake")
			w.woken()
		}
	}, w)
	if err != nil {
		return err
	}
	w.sleeper = sleeper
	b.ResetTimer()
	waker, err := sched.Spawn(s, func(w *wakes) {
		for i := range w.n {
			w.rest(i)
			w.sent = futex.Monotonic()
			if w.sleeper.Unpark() != nil {
				w.failed = true
				return
			}
		}
		w.rest(w.n)
	}, w)
	if err != nil {
		return err
	}
	err = waker.Join()
	if e := sleeper.Join(); err == nil {
		err = e
	}
	b.StopTimer()
	if err == nil && w.failed {
		err = fmt.Errorf("a fiber was not there to be woken")
	}
	if err != nil {
		return err
	}
	return w.conclude(b)
}

func wakeGoroutines(b *testing.B, locked bool) error {
	if err := twoCPUs(); err != nil {
		return err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	w := &wakes{n: b.N}
	c, done := make(chan struct{}), make(chan struct{})
	go func() {
		if locked {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		for range c {
			w.woken()
		}
		close(done)
	}()
	b.ResetTimer()
	for i := range w.n {
		w.rest(i)
		w.sent = futex.Monotonic()
		c <- struct{}{}
	}
	w.rest(w.n)
	b.StopTimer()
	close(c)
	<-done
	return w.conclude(b)
}

func wakeC(b *testing.B) error {
	if err := twoCPUs(); err != nil {
		return err
	}
	r, err := measureC(b, baseline, "wake")
	for i, p := range percentiles[:len(r.more)] {
		reportPercentile(b, p, float64(r.more[i]))
	}
	return err
}
