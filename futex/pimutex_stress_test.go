package futex_test

import (
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

func excludePI(w *world) {
	for i := range w.rounds {
		switch i % 3 {
		case 0:
			if w.prio.Lock() != nil {
				w.wrong()
			}
		case 1:
			for !w.prio.TryLock() {
				lwp.Yield()
			}
		case 2:
			for w.prio.LockFor(100*time.Microsecond) != nil {
			}
		}
		w.plain++
		w.prio.Unlock()
	}
}

func TestPIMutexExcludes(t *testing.T) {
	needPI(t)
	if !lwptest.Emulated() {
		lwptest.Collect(t)
	}
	play(t, 4, 3000, nil, excludePI, func(t *testing.T, w *world) {
		if w.plain != w.n*w.rounds {
			t.Errorf("%d, want %d", w.plain, w.n*w.rounds)
		}
	})
}

// A rank is a real-time thread of TestPIMutexExcludesPriorities.
type rank struct {
	w      *world
	deaths int
}

func excludeRank(r *rank) {
	for i := range r.w.rounds {
		switch r.w.prio.Lock() {
		case nil, futex.ErrOwnerDied:
		default:
			r.w.wrong()
			return
		}
		if !atomic.CompareAndSwapInt32(&r.w.inside, 0, 1) {
			r.w.wrong()
		}
		r.w.plain++
		if i%8 == 0 {
			busy(10 * time.Microsecond)
		}
		atomic.StoreInt32(&r.w.inside, 0)
		if r.deaths > 0 && i == r.deaths {
			lwp.Exit() // with the lock
		}
		r.w.prio.Unlock()
		if i%4 == 0 {
			lwp.Sleep(20 * time.Microsecond)
		}
	}
}

// TestPIMutexExcludesPriorities has threads of several priorities, some of
// which die with the lock, while the collector runs.
func TestPIMutexExcludesPriorities(t *testing.T) {
	needFIFO(t)
	needPI(t)
	lwptest.Leaks(t)
	lwptest.Collect(t)
	w := new(world)
	w.rounds = lwptest.Count(2000, 200)
	for round := range 3 {
		var threads []lwp.Thread
		for i := range 6 {
			r := &rank{w: w}
			if i%2 == 1 {
				r.deaths = 1 + (round*97+i*31)%w.rounds
			}
			th, err := lwp.StartAttr(excludeRank, r, lwp.Attr{Policy: lwp.PolicyFIFO, Priority: 1 + i})
			if err != nil {
				t.Fatal(err)
			}
			threads = append(threads, th)
		}
		within(t, "threads of six priorities", func() {
			for _, th := range threads {
				if err := th.Join(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if w.bad != 0 || w.plain < 9*w.rounds {
		t.Errorf("%d violations in %d sections", w.bad, w.plain)
	}
}
