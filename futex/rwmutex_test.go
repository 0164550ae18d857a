package futex_test

import (
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
)

func TestRWMutexTryTellsWhoIsIn(t *testing.T) {
	var rw futex.RWMutex
	for range 2 {
		if !rw.TryRLock() {
			t.Error("two readers do not fit")
		}
	}
	if rw.TryLock() {
		t.Error("a writer got in among readers")
	}
	rw.RUnlock()
	rw.RUnlock()
	if !rw.TryLock() {
		t.Error("the last reader left, and a writer does not fit")
	}
	if rw.TryLock() || rw.TryRLock() {
		t.Error("two writers, or a reader beside a writer")
	}
	rw.Unlock()
	if !rw.TryRLock() {
		t.Error("the writer left, and a reader does not fit")
	}
}

// readAndWrite writes two words under the lock that readers must see equal.
func readAndWrite(w *world) {
	id := w.id()
	for i := range w.rounds {
		if (i+id)%4 == 0 {
			if i%8 != 0 || !w.rw.TryLock() {
				w.rw.Lock()
			}
			if atomic.AddInt32(&w.inside, 1) != 1 {
				w.wrong()
			}
			w.plain++
			w.plain2++
			atomic.AddInt32(&w.inside, -1)
			w.rw.Unlock()
		} else {
			if i%8 != 1 || !w.rw.TryRLock() {
				w.rw.RLock()
			}
			if w.plain != w.plain2 || atomic.LoadInt32(&w.inside) != 0 {
				w.wrong()
			}
			w.rw.RUnlock()
		}
	}
}

func TestRWMutexKeepsReadersAndWritersApart(t *testing.T) {
	for _, n := range []int{2, 8} {
		play(t, n, 80000/n, nil, readAndWrite, func(t *testing.T, w *world) {
			if want := w.n * w.rounds / 4; w.plain != want {
				t.Errorf("%d writes, want %d", w.plain, want)
			}
		})
	}
}

// holdBoth holds the lock so long that all others sleep.
func holdBoth(w *world) {
	id := w.id()
	for i := range w.rounds {
		if (i+id)%3 == 0 {
			w.rw.Lock()
			w.plain++
			busy(15 * time.Microsecond)
			w.rw.Unlock()
		} else {
			w.rw.RLock()
			busy(15 * time.Microsecond)
			w.rw.RUnlock()
		}
	}
}

func TestRWMutexHeldLongStillPassesOn(t *testing.T) {
	play(t, 6, 600, nil, holdBoth, func(t *testing.T, w *world) {
		if want := w.n * w.rounds / 3; w.plain != want {
			t.Errorf("%d writes, want %d", w.plain, want)
		}
	})
}

// overlap keeps at least one reader inside at any time, so that a writer that
// waits for a moment without readers waits for ever.
func overlap(w *world) {
	id := w.id()
	if id == 0 {
		for range w.rounds {
			w.rw.Lock()
			w.plain++
			w.rw.Unlock()
			busy(50 * time.Microsecond)
		}
		atomic.StoreUint32(&w.stop, 1)
		return
	}
	for atomic.LoadUint32(&w.stop) == 0 {
		w.rw.RLock()
		busy(100 * time.Microsecond)
		w.rw.RUnlock()
	}
}

func TestRWMutexReadersDoNotStarveAWriter(t *testing.T) {
	play(t, 4, 100, nil, overlap, func(t *testing.T, w *world) {
		if w.plain != w.rounds {
			t.Errorf("%d writes of %d", w.plain, w.rounds)
		}
	})
}

// overlapWriters is the other way round: one reader among writers that follow
// each other at once.
func overlapWriters(w *world) {
	if w.id() == 0 {
		for range w.rounds {
			visit(&w.rw)
		}
		atomic.StoreUint32(&w.stop, 1)
		return
	}
	for atomic.LoadUint32(&w.stop) == 0 {
		w.rw.Lock()
		w.plain++
		busy(20 * time.Microsecond)
		w.rw.Unlock()
	}
}

func TestRWMutexWritersDoNotStarveAReader(t *testing.T) {
	play(t, 3, 100, nil, overlapWriters, func(t *testing.T, w *world) {})
}

func TestRWMutexWaitingWriterKeepsNewReadersOut(t *testing.T) {
	rw := new(futex.RWMutex)
	c := newCrew(t)
	rw.RLock()
	var wrote, read atomic.Bool
	c.start(func() {
		rw.Lock()
		if read.Load() {
			t.Error("a reader that came later was first")
		}
		wrote.Store(true)
		rw.Unlock()
	})
	asleep(t, word(rw, 5), 1) // drain
	if rw.TryRLock() {
		t.Error("TryRLock overtook a writer")
	}
	c.start(func() {
		rw.RLock()
		read.Store(true)
		if !wrote.Load() {
			t.Error("the reader did not wait for the writer before it")
		}
		rw.RUnlock()
	})
	asleep(t, word(rw, 4), 1) // phase
	rw.RUnlock()
	within(t, "writer and reader", c.wg.Wait)
}

// A reader that waits is let in by the writer that leaves, before the next one.
func TestRWMutexLetsWaitingReadersInBetweenWriters(t *testing.T) {
	rw := new(futex.RWMutex)
	c := newCrew(t)
	var readers atomic.Int32
	rw.Lock()
	for i := range 3 {
		c.start(func() {
			rw.RLock()
			readers.Add(1)
			rw.RUnlock()
		})
		asleep(t, word(rw, 4), i+1)
	}
	c.start(func() {
		rw.Lock()
		if n := readers.Load(); n != 3 {
			t.Errorf("the next writer came before %d of 3 readers", 3-n)
		}
		rw.Unlock()
	})
	asleep(t, word(rw, 0), 1)
	rw.Unlock()
	within(t, "readers and writer", c.wg.Wait)
}

// phases is how a reader learns that its writer has left: the naive one counts
// itself, and looks at the phase in a second step.
type phases struct {
	waiting, phase uint32
	gap            func()
}

func (p *phases) wait() {
	atomic.AddUint32(&p.waiting, 1)
	p.gap()
	phase := atomic.LoadUint32(&p.phase)
	for atomic.LoadUint32(&p.phase) == phase {
		if out, _ := futex.WaitFor(&p.phase, phase, 100*time.Millisecond); out == futex.TimedOut {
			return
		}
	}
}

func TestRWMutexReaderThatIsOvertakenByItsTurn(t *testing.T) {
	// The schedule that breaks the naive version: the writer leaves between
	// the two steps of the reader.
	p := new(phases)
	p.gap = func() { atomic.AddUint32(&p.phase, 1) }
	t0 := time.Now()
	if p.wait(); time.Since(t0) < 100*time.Millisecond {
		t.Error("the naive version passes: this schedule proves nothing")
	}
	// The real one, with a writer that leaves as the reader comes.
	rounds := 20000
	if testing.Short() {
		rounds = 2000
	}
	rw := new(futex.RWMutex)
	c := newCrew(t)
	for i := range 2 {
		c.start(func() {
			for range rounds {
				if i == 0 {
					enter(rw)
				} else {
					visit(rw)
				}
			}
		})
	}
	within(t, "every turn", c.wg.Wait)
}

func TestRWMutexMisusePanics(t *testing.T) {
	const runlock, unlock = "futex: RUnlock of an RWMutex that nobody reads", "futex: Unlock of an RWMutex that nobody writes"
	mustPanic(t, runlock, new(futex.RWMutex).RUnlock)
	mustPanic(t, unlock, new(futex.RWMutex).Unlock)
	rw := new(futex.RWMutex)
	rw.RLock()
	mustPanic(t, unlock, rw.Unlock)
	rw.RUnlock()
	rw.Lock()
	mustPanic(t, runlock, rw.RUnlock)
	// After a phase that kept a reader waiting the phase bit is set.
	rw = new(futex.RWMutex)
	c := newCrew(t)
	rw.Lock()
	c.start(func() { visit(rw) })
	asleep(t, word(rw, 4), 1)
	rw.Unlock()
	c.wg.Wait()
	if *word(rw, 3) != 1 {
		t.Errorf("state %#x, want the phase bit alone", *word(rw, 3))
	}
	mustPanic(t, runlock, rw.RUnlock)
}
