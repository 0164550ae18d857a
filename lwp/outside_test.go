package lwp_test

import (
	"runtime"
	"runtime/pprof"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/asm"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// A spinner counts without a pause, and without a call that could yield.
type spinner struct {
	n    atomic.Int64
	stop atomic.Bool
	_    [48]byte
}

func spin(s *spinner) {
	for !s.stop.Load() {
		s.n.Add(1)
		asm.Relax()
	}
}

// tick counts with naps in between: many of them fit on few CPUs.
func tick(s *spinner) {
	for !s.stop.Load() {
		s.n.Add(1)
		lwp.Sleep(time.Millisecond)
	}
}

// TestSchedulerDoesNotKnowThreads shows that 64 running threads are nothing to the
// Go scheduler: not goroutines, not threads of its own, and not in need of a P.
func TestSchedulerDoesNotKnowThreads(t *testing.T) {
	begin(t)
	const n = 64
	old := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(old)
	goroutines := runtime.NumGoroutine()
	created := pprof.Lookup("threadcreate").Count()

	var spinners [n]spinner
	var threads [n]lwp.Thread
	for i := range spinners {
		fn := tick
		if i == 0 {
			fn = spin
		}
		threads[i] = start(t, fn, &spinners[i])
	}
	if got := runtime.NumGoroutine(); got != goroutines {
		t.Errorf("%d goroutines with %d threads, %d before", got, n, goroutines)
	}
	// The runtime may want a thread or two itself meanwhile.
	if got := pprof.Lookup("threadcreate").Count(); got >= created+n/4 {
		t.Errorf("the runtime counts %d threads more", got-created)
	}
	if got := runtime.GOMAXPROCS(0); got != 1 {
		t.Errorf("GOMAXPROCS is %d", got)
	}
	// All of them run while this goroutine has the only P and does not let go of it
	// but by preemption, and goroutines run besides.
	var other atomic.Int64
	var done atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for !done.Load() {
			other.Add(1)
			runtime.Gosched()
		}
	}()
	for round := range 3 {
		var before [n]int64
		for i := range spinners {
			before[i] = spinners[i].n.Load()
		}
		goroutine := other.Load()
		for end := time.Now().Add(time.Minute); ; {
			advanced := 0
			for i := range spinners {
				if spinners[i].n.Load() > before[i] {
					advanced++
				}
			}
			if advanced == n && other.Load() > goroutine {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("round %d: %d of %d threads advance, the other goroutine by %d", round, advanced, n, other.Load()-goroutine)
			}
		}
	}
	done.Store(true)
	<-ended
	for i := range spinners {
		spinners[i].stop.Store(true)
		join(t, threads[i])
	}
	if got := runtime.NumGoroutine(); got != goroutines {
		t.Errorf("%d goroutines, %d before", got, goroutines)
	}
}

// TestSpinningThreadDoesNotDelayCollection collects while a thread spins that no
// signal can stop. A collector that waited for it would wait for ever.
func TestSpinningThreadDoesNotDelayCollection(t *testing.T) {
	begin(t)
	s := new(spinner)
	th := start(t, spin, s)
	lwptest.Eventually(t, "the thread to spin", func() bool { return s.n.Load() > 0 })
	lwptest.Within(t, "collections", func() {
		for range 20 {
			before := s.n.Load()
			runtime.GC()
			if s.stop.Load() {
				t.Error("the thread was told to stop")
			}
			// It spins on: neither was it stopped for the collection, nor after it.
			for s.n.Load() == before {
				lwp.Yield()
			}
		}
	})
	want(t, "TryJoin", th.TryJoin(), lwp.ErrRunning)
	s.stop.Store(true)
	join(t, th)
}
