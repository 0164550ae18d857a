package sched_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A timerRun is a stress run of Timers: every firing goes to one Wait, none comes early.
type timerRun struct {
	over   atomic.Bool
	timers [8]struct {
		t     sched.Timer
		sets  atomic.Int64
		kept  atomic.Int64 // Resets taken back, as Stop says
		taken atomic.Int64
	}
	early atomic.Int64
	seeds atomic.Uint64
	funcs atomic.Int64
	runs  atomic.Int64
}

func (r *timerRun) waits() {
	x := r.seeds.Add(1)
	for !r.over.Load() {
		m := &r.timers[random(&x)%uint64(len(r.timers))]
		d := time.Duration(random(&x) % 100_000)
		switch random(&x) % 7 {
		case 0:
			d = -1
			fallthrough
		case 1:
			m.t.Reset(d)
			m.sets.Add(1)
		case 2:
			if m.t.Stop() {
				m.kept.Add(1)
			}
		case 3: // one that nobody else knows
			at := futex.Monotonic() + int64(d)
			own := sched.After(d)
			if own.WaitWithin(sched.For(d/2*3)) == nil && futex.Monotonic() < at {
				r.early.Add(1)
			}
		default:
			if m.t.WaitWithin(sched.For(d)) == nil {
				m.taken.Add(1)
			}
		}
	}
}

// TestTimerStress has fibers of two schedulers, goroutines and threads set,
// stop and wait for the same Timers.
func TestTimerStress(t *testing.T) {
	s := begin(t, 8)
	s2 := begin(t, 1)
	lwptest.Collect(t)
	r := &timerRun{}
	var fs []sched.Fiber
	for range 40 {
		fs = append(fs, spawn(t, s, func(r *timerRun) { r.waits() }, r))
	}
	for range 10 {
		fs = append(fs, spawn(t, s2, func(r *timerRun) { r.waits() }, r))
	}
	// Functions that come due, or do not, while the rest goes on.
	fs = append(fs, spawn(t, s, func(r *timerRun) {
		var ts [16]sched.Timer
		x := r.seeds.Add(1)
		for !r.over.Load() {
			for i := range ts {
				if sched.AfterFunc(&ts[i], time.Duration(random(&x)%50_000), count, &r.runs) == nil {
					r.funcs.Add(1)
				}
			}
			sched.Sleep(time.Duration(random(&x) % 50_000))
			for i := range ts {
				if ts[i].Stop() {
					r.funcs.Add(-1)
				}
			}
		}
	}, r))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(r.waits)
	}
	wg.Go(func() {
		lwptest.OnThread(t, func(r *timerRun) { r.waits() }, r)
	})
	time.Sleep(stressTime(700 * time.Millisecond))
	r.over.Store(true)
	lwptest.Within(t, "the end", func() {
		for _, f := range fs {
			if err := f.Join(); err != nil {
				t.Error("Join: ", err)
			}
		}
		wg.Wait()
		s.Wait()
	})
	if r.early.Load() != 0 {
		t.Errorf("%d times early", r.early.Load())
	}
	if r.funcs.Load() != r.runs.Load() || r.runs.Load() == 0 {
		t.Errorf("%d functions ran, want %d", r.runs.Load(), r.funcs.Load())
	}
	for i := range r.timers {
		m := &r.timers[i]
		if m.taken.Load()+m.kept.Load() > m.sets.Load() || m.taken.Load() == 0 {
			t.Errorf("set %d times, stopped %d, taken %d", m.sets.Load(), m.kept.Load(), m.taken.Load())
		}
	}
	runtime.KeepAlive(r)
}
