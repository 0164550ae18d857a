package lwp_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// A duel is a Parker between one who waits, with deadlines, and one who signals
// when it finds the Parker published.
type duel struct {
	n       int
	p       lwp.Parker
	open    atomic.Uint32 // 1: published, 2: found, 0: taken back
	over    atomic.Bool
	came    int
	late    int
	signals int
}

func (d *duel) wait() {
	for i := range d.n {
		d.p.Init()
		d.open.Store(1)
		if d.p.Await(futex.After(time.Duration(i%50)*time.Microsecond), "the duel") {
			d.came++
			continue
		}
		if d.open.CompareAndSwap(1, 0) {
			d.p.Cancel()
			d.late++
			continue
		}
		d.p.Await(futex.Never, "the duel") // it has been found
		d.came++
	}
	d.over.Store(true)
}

func (d *duel) signal() {
	for i := 0; !d.over.Load(); i++ {
		if i%3 == 0 {
			lwp.Sleep(time.Duration(i%40) * time.Microsecond)
		}
		if d.open.CompareAndSwap(1, 2) {
			d.signals++
			d.p.Signal()
		} else {
			lwp.Yield()
		}
	}
}

// TestParkerSignalsAreNeitherLostNorLate: one that comes as the time is up is
// waited for, and ends no later wait.
func TestParkerSignalsAreNeitherLostNorLate(t *testing.T) {
	begin(t)
	for _, threads := range []int{0, 1, 2, 3} {
		d := &duel{n: lwptest.Soak(1000, 200)}
		var wg sync.WaitGroup
		run := func(onThread bool, fn func(*duel)) {
			if !onThread {
				wg.Go(func() { fn(d) })
				return
			}
			th := start(t, fn, d)
			wg.Go(func() { th.Join() })
		}
		run(threads&1 != 0, (*duel).wait)
		run(threads&2 != 0, (*duel).signal)
		lwptest.Within(t, "the duel", wg.Wait)
		// On one CPU the waiter can be ahead all the time.
		if d.came != d.signals || d.came+d.late != d.n || d.came == 0 && runtime.NumCPU() > 1 && d.n > 100 {
			t.Errorf("%d signals, %d came, %d of %d were late", d.signals, d.came, d.late, d.n)
		}
	}
}

// TestGateIsOneOfASelect: signals by threads and goroutines.
func TestGateIsOneOfASelect(t *testing.T) {
	begin(t)
	for i := range 20 {
		g, err := lwp.NewGate()
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-g.C:
			t.Error("open before the signal")
		case <-time.After(10 * time.Microsecond):
		}
		var th lwp.Thread
		if i%2 == 0 {
			th = start(t, (*lwp.Parker).Signal, g.Parker)
		} else {
			g.Signal()
		}
		select {
		case <-g.C:
		case <-time.After(time.Minute):
			t.Error("not open after the signal")
		}
		if i%2 == 0 {
			join(t, th)
		}
		g.Free()
	}
	type x struct{ err bool }
	a := &x{}
	lwptest.OnThread(t, func(a *x) {
		_, err := lwp.NewGate()
		a.err = err == lwp.ErrHosted
	}, a)
	if !a.err {
		t.Error("a gate on a thread")
	}
}
