package sched_test

import (
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A handoff is a fiber that spawns another and does not let go of its worker
// until that has run elsewhere.
type handoff struct {
	n    int
	done atomic.Int64
	lost atomic.Bool
	// patience is how long it waits, in ns.
	patience int64
}

func handOff(h *handoff) {
	for range h.n {
		was := h.done.Load()
		f, err := sched.Go(count, &h.done)
		if err != nil {
			h.lost.Store(true)
			return
		}
		for spins := 0; h.done.Load() == was; spins++ {
			if spins == 1000 {
				spins = 0
				unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			}
			if spins == 0 && futex.Monotonic() > h.patience {
				h.lost.Store(true)
				f.Join()
				return
			}
		}
		f.Join()
		if h.n&1 == 0 { // let the other worker go to sleep now and then
			for end := futex.Monotonic() + h.done.Load()%16*10_000; futex.Monotonic() < end; {
			}
		}
	}
}

// TestWakeupIsNotLost: a worker that goes to sleep while another gets a fiber
// that it does not run itself.
func TestWakeupIsNotLost(t *testing.T) {
	for _, wide := range []bool{false, true} {
		s := begin(t, 2)
		if wide {
			s.Widen(false)
		}
		h := &handoff{n: lwptest.Count(10_000, 1000), patience: futex.Monotonic() + int64(5*time.Minute)}
		run(t, s, handOff, h)
		if h.lost.Load() || h.done.Load() != int64(h.n) {
			t.Errorf("%d of %d ran elsewhere", h.done.Load(), h.n)
		}
	}
}

// TestNaiveParkingLosesWakeups runs the same on workers that do not look once
// more before they sleep, to show that the look is needed and the test finds it.
func TestNaiveParkingLosesWakeups(t *testing.T) {
	lwptest.NotEmulated(t, "the timing of two threads")
	if runtime.NumCPU() < 2 {
		t.Skip("one CPU: nobody adds a fiber while a worker is on its way to sleep")
	}
	s := begin(t, 2)
	s.Widen(true)
	for round := range 100 {
		h := &handoff{n: 1000, patience: futex.Monotonic() + int64(time.Second)/int64(lwptest.Count(1, 4))}
		f := spawn(t, s, handOff, h)
		within(t, "Join", f.Join)
		if h.lost.Load() {
			t.Logf("lost after %d in round %d", h.done.Load(), round)
			return
		}
	}
	t.Error("no wake-up was lost")
}

// TestIdleWorkersCostNothing measures the CPU time of a process whose workers
// have nothing to do.
func TestIdleWorkersCostNothing(t *testing.T) {
	lwptest.NotEmulated(t, "CPU times of threads in /proc")
	s := begin(t, 4)
	s.Hold()
	var fs []sched.Fiber
	for range 100 {
		fs = append(fs, spawn(t, s, func(*int) { sched.Park("the test") }, nil))
	}
	time.Sleep(50 * time.Millisecond)
	ids := s.Threads()
	before := ticks(t, ids)
	stats := s.Stats()
	length := time.Second / time.Duration(lwptest.Count(1, 3))
	time.Sleep(length)
	if d := ticks(t, ids) - before; d > 20*time.Millisecond {
		t.Errorf("idle workers took %v of CPU time in %v", d, length)
	}
	if now := s.Stats(); now.Switches != stats.Switches || now.Spins > stats.Spins+1000 {
		t.Errorf("idle workers did something: %+v, then %+v", stats, now)
	}
	for _, f := range fs {
		want(t, "Unpark", f.Unpark(), nil)
		within(t, "Join", f.Join)
	}
	s.Release()
}

// ticks returns the CPU time of threads of this process.
func ticks(t *testing.T, ids []int) (sum time.Duration) {
	for _, id := range ids {
		sum += lwptest.CPUTime(t, id)
	}
	return sum
}

// TestSpinningFiberStopsNobody: fibers behind one that computes are taken by
// the other worker, and those that wait for timers and the injector too.
func TestSpinningFiberStopsNobody(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("one CPU: the thread that computes has it")
	}
	s := begin(t, 2)
	type hog struct {
		over atomic.Bool
		ran  atomic.Int64
		n    int
	}
	h := &hog{n: 1000}
	f := spawn(t, s, func(h *hog) {
		for i := range h.n {
			var err error
			if i%2 == 0 {
				_, err = sched.GoAttr(count, &h.ran, sched.Attr{Detached: true})
			} else {
				_, err = sched.GoAttr(func(n *atomic.Int64) {
					sched.Sleep(time.Millisecond)
					n.Add(1)
				}, &h.ran, sched.Attr{Detached: true})
			}
			if err != nil {
				return
			}
		}
		for !h.over.Load() {
		}
	}, h)
	for range 100 {
		spawnAttr(t, s, count, &h.ran, sched.Attr{Detached: true})
	}
	lwptest.Eventually(t, "the others to run", func() bool { return h.ran.Load() == int64(h.n+100) })
	h.over.Store(true)
	within(t, "Join", f.Join)
}

// TestBlockingStopsNobody has more fibers in system calls than there are workers.
func TestBlockingStopsNobody(t *testing.T) {
	s := begin(t, 1)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	type reader struct {
		fd  int
		got atomic.Int64
		err note
	}
	r := &reader{fd: p[0]}
	const n = 20
	var fs []sched.Fiber
	for range n {
		fs = append(fs, spawn(t, s, func(r *reader) {
			if err := sched.Blocking(func(r *reader) {
				var b [1]byte
				if n, _, _ := unix.RawSyscall(unix.SYS_READ, uintptr(r.fd), lwptest.Addr(&b[0]), 1); n == 1 {
					r.got.Add(1)
				}
			}, r); err != nil {
				r.err = noteOf(err)
			}
		}, r))
	}
	ran := new(atomic.Int64)
	for range 1000 {
		run(t, s, count, ran)
	}
	if r.got.Load() != 0 {
		t.Error("a read of an empty pipe has returned")
	}
	if _, err := unix.Write(p[1], make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	for _, f := range fs {
		within(t, "Join", f.Join)
	}
	if r.got.Load() != n || r.err != 0 || ran.Load() != 1000 {
		t.Errorf("%d of %d read, %v; %d others ran", r.got.Load(), n, r.err.err(), ran.Load())
	}
}

// TestWakeFromAGoroutineIsCheap compares the time from an Unpark on a goroutine
// until the fiber runs, on a worker that sleeps, with that of a bare futex
// wake, in turns: the worker may take twice as long.
func TestWakeFromAGoroutineIsCheap(t *testing.T) {
	lwptest.NotEmulated(t, "the timing of two threads")
	if runtime.NumCPU() < 2 {
		t.Skip("one CPU: what is measured is the kernel's choice of who runs")
	}
	// One CPU wakes the other in both cases: where the kernel puts the one who
	// is woken makes ten times the difference, on a virtual machine.
	here, there := apart(t)
	s := beginWith(t, sched.Config{Workers: 1, CPUs: there})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := errors.Join(unix.SchedGetaffinity(0, &before), unix.SchedSetaffinity(0, &here)); err != nil {
		t.Skip("no CPU of one's own: ", err)
	}
	defer unix.SchedSetaffinity(0, &before)
	s.Hold()
	defer s.Release()
	w := &wakes{n: 50}
	f := spawn(t, s, func(w *wakes) {
		for w.over.Load() == 0 {
			sched.Park("the goroutine")
			w.at.Store(futex.Monotonic())
		}
	}, w)
	th, err := lwp.StartAttr(func(w *wakes) {
		for v := uint32(0); w.over.Load() == 0; v = atomic.LoadUint32(&w.word) {
			for atomic.LoadUint32(&w.word) == v {
				futex.Wait(&w.word, v)
			}
			w.at.Store(futex.Monotonic())
		}
	}, w, lwp.Attr{CPUs: there})
	if err != nil {
		t.Fatal(err)
	}
	bare := func() {
		atomic.AddUint32(&w.word, 1)
		futex.Wake(&w.word, 1)
	}
	unpark := func() { f.Unpark() }
	ratio := 0.0
	for range 50 { // the machine has other things to do as well
		fiber, thread := w.medians(unpark, bare)
		t.Logf("a fiber %v, a thread %v", fiber, thread)
		if ratio = float64(fiber) / float64(thread); ratio <= 2 {
			break
		}
	}
	if ratio > 2 {
		t.Errorf("the wake of a worker takes %.1f times as long as that of a thread", ratio)
	}
	w.over.Store(1)
	unpark()
	bare()
	within(t, "Join", f.Join)
	within(t, "Join", th.Join)
}

// apart returns two sets of one CPU each, of those that are allowed here.
func apart(t *testing.T) (a, b unix.CPUSet) {
	t.Helper()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Skip("sched_getaffinity: ", err)
	}
	for cpu, n := 0, 0; n < 2; cpu++ {
		if all.IsSet(cpu) {
			if n == 0 {
				a.Set(cpu)
			} else {
				b.Set(cpu)
			}
			n++
		}
	}
	return a, b
}

type wakes struct {
	n    int
	word uint32
	at   atomic.Int64
	over atomic.Uint32
}

// medians returns how long the two take until w.at is set, the caller asleep
// between the two.
func (w *wakes) medians(a, b func()) (ma, mb time.Duration) {
	var times [2][]time.Duration
	for i := range 2 * w.n {
		time.Sleep(200 * time.Microsecond) // the one who waits sleeps by then
		w.at.Store(0)
		start := futex.Monotonic()
		if i%2 == 0 {
			a()
		} else {
			b()
		}
		for w.at.Load() == 0 {
		}
		times[i%2] = append(times[i%2], time.Duration(w.at.Load()-start))
	}
	for i := range times {
		slices.Sort(times[i])
	}
	return times[0][w.n/2], times[1][w.n/2]
}

// TestAlertedWorkerLooksSoon: a worker that has switched quickly, with nothing to
// look for, looks after few switches when a goroutine brings something, also if
// they have become slow by then.
func TestAlertedWorkerLooksSoon(t *testing.T) {
	s := begin(t, 1)
	type pair struct {
		slow, ran atomic.Bool
		switches  atomic.Int64 // once slow, until ran
		yields    atomic.Int64
	}
	for round := range 5 {
		p := new(pair)
		work := func(p *pair) {
			for !p.ran.Load() {
				p.yields.Add(1)
				if p.slow.Load() {
					p.switches.Add(1)
					for end := futex.Monotonic() + 20_000; futex.Monotonic() < end; {
					}
				}
				sched.Yield()
			}
		}
		fs := []sched.Fiber{spawn(t, s, work, p), spawn(t, s, work, p)}
		lwptest.Eventually(t, "many quick switches", func() bool { return p.yields.Load() > 100_000 })
		p.slow.Store(true)
		f := spawn(t, s, func(p *pair) { p.ran.Store(true) }, p)
		within(t, "Join", f.Join)
		for _, f := range fs {
			within(t, "Join", f.Join)
		}
		if n := p.switches.Load(); n > 256 {
			t.Errorf("round %d: %d switches until what a goroutine spawned had run", round, n)
		}
	}
}
