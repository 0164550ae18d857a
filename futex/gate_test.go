package futex_test

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
)

// Semaphore.

// bounded lets two inside at a time; each gives its permit back.
func bounded(w *world) {
	for i := range w.rounds {
		switch i % 3 {
		case 0:
			for !w.sem.AcquireFor(10 * time.Microsecond) {
			}
		default:
			w.sem.Acquire()
		}
		if atomic.AddInt32(&w.inside, 1) > 2 {
			w.wrong()
		}
		if i%16 == 0 {
			busy(5 * time.Microsecond)
		}
		atomic.AddInt32(&w.inside, -1)
		w.sem.Release(1)
	}
}

func TestSemaphoreAdmitsNoMoreThanItsPermits(t *testing.T) {
	play(t, 6, 20000, func(w *world) { w.sem.Release(2) }, bounded, func(t *testing.T, w *world) {
		left := 0
		for w.sem.TryAcquire() {
			left++
		}
		if left != 2 {
			t.Errorf("%d permits at the end, 2 at the beginning", left)
		}
		if n := *word(&w.sem, 1); n != 0 {
			t.Errorf("%d waiters counted where nobody waits", n)
		}
	})
}

// pingPong hands one permit back and forth: a lost wake-up stops both.
func pingPong(w *world) {
	if w.id() == 0 {
		for range w.rounds {
			w.sem.Release(1)
			w.items.Acquire()
			w.plain++
		}
	} else {
		for range w.rounds {
			w.sem.Acquire()
			w.plain++
			w.items.Release(1)
		}
	}
}

func TestSemaphorePingPong(t *testing.T) {
	play(t, 2, 20000, nil, pingPong, func(t *testing.T, w *world) {
		if w.plain != 2*w.rounds {
			t.Errorf("%d, want %d", w.plain, 2*w.rounds)
		}
	})
}

// semaphore is what the naive version has in common with Semaphore.
type semaphore interface {
	Acquire()
	releaseTwice()
	word() *uint32
}

type realSemaphore struct{ futex.Semaphore }

func (s *realSemaphore) word() *uint32 { return word(&s.Semaphore, 0) }
func (s *realSemaphore) releaseTwice() {
	s.Release(1)
	s.Release(1)
}

// firstSemaphore wakes only when it makes the first permit.
type firstSemaphore struct{ permits uint32 }

func (s *firstSemaphore) word() *uint32 { return &s.permits }

func (s *firstSemaphore) Acquire() {
	for {
		if v := atomic.LoadUint32(&s.permits); v == 0 {
			futex.Wait(&s.permits, 0)
		} else if atomic.CompareAndSwapUint32(&s.permits, v, v-1) {
			return
		}
	}
}

// releaseTwice is two releases of which the second comes before the first has
// woken anybody.
func (s *firstSemaphore) releaseTwice() {
	first, second := atomic.AddUint32(&s.permits, 1) == 1, atomic.AddUint32(&s.permits, 1) == 1
	for _, wakes := range []bool{first, second} {
		if wakes {
			futex.Wake(&s.permits, 1)
		}
	}
}

func bothAcquire(t *testing.T, s semaphore, d time.Duration) bool {
	c := newCrew(t)
	var got atomic.Int32
	for i := range 2 {
		c.start(func() { s.Acquire(); got.Add(1) })
		asleep(t, s.word(), i+1)
	}
	s.releaseTwice()
	if comes(d, func() bool { return got.Load() == 2 }) {
		return true
	}
	futex.Wake(s.word(), futex.All)
	return false
}

func TestSemaphoreTwoReleasesWakeTwo(t *testing.T) {
	if !bothAcquire(t, new(realSemaphore), hang) {
		t.Error("a waiter sleeps beside a permit")
	}
	if bothAcquire(t, new(firstSemaphore), soon) {
		t.Error("the naive semaphore passes: this schedule proves nothing")
	}
}

func TestSemaphoreReleaseOfManyWakesMany(t *testing.T) {
	s := new(futex.Semaphore)
	if s.AcquireFor(time.Millisecond) {
		t.Error("a permit out of nothing")
	}
	c := newCrew(t)
	for i := range 5 {
		c.start(s.Acquire)
		asleep(t, word(s, 0), i+1)
	}
	s.Release(0)
	if n := sleepers(word(s, 0)); n != 5 {
		t.Errorf("Release(0) has woken %d", 5-n)
	}
	s.Release(6)
	within(t, "five waiters", c.wg.Wait)
	if !s.TryAcquire() || s.TryAcquire() {
		t.Error("not one permit left of six")
	}
	if w := *word(s, 1); w != 0 {
		t.Errorf("%d waiters counted where nobody waits", w)
	}
}

func TestSemaphoreMisusePanics(t *testing.T) {
	const negative, many = "futex: negative Release of a Semaphore", "futex: more than MaxPermits in a Semaphore"
	s := new(futex.Semaphore)
	mustPanic(t, negative, func() { s.Release(-1) })
	mustPanic(t, negative, func() { s.Release(math.MinInt) })
	mustPanic(t, many, func() { s.Release(math.MaxInt) })
	s.Release(futex.MaxPermits)
	mustPanic(t, many, func() { s.Release(1) })
	mustPanic(t, negative, func() { s.Release(-1) })
	s.Release(0)
	if !s.TryAcquire() {
		t.Error("misuse has taken the permits")
	}
}

// Event.

// relay makes every participant wait for one that sets and resets in turn.
func relay(w *world) {
	if w.id() == 0 {
		for range w.rounds {
			for range w.n - 1 {
				w.items.Acquire() // everybody is about to wait
			}
			w.ev.Set()
			for range w.n - 1 {
				w.items.Acquire() // everybody has waited
			}
			w.ev.Reset()
			w.sem.Release(w.n - 1)
		}
		return
	}
	for range w.rounds {
		w.items.Release(1)
		w.ev.Wait()
		if !w.ev.IsSet() {
			w.wrong()
		}
		w.items.Release(1)
		w.sem.Acquire()
	}
}

func TestEventStampede(t *testing.T) {
	play(t, 9, 2000, nil, relay, func(t *testing.T, w *world) {})
}

func TestEventStaysSetUntilReset(t *testing.T) {
	var e futex.Event
	if e.IsSet() || e.WaitFor(0) {
		t.Error("the zero Event is set")
	}
	e.Set()
	e.Set()
	if !e.IsSet() || !e.WaitFor(0) {
		t.Error("not set after Set")
	}
	e.Wait()
	e.Reset()
	e.Reset()
	if e.IsSet() || e.WaitFor(0) {
		t.Error("set after Reset")
	}
}

type event interface {
	Wait()
	pulse()
	end()
	word() *uint32
}

type realEvent struct{ futex.Event }

func (e *realEvent) word() *uint32 { return word(&e.Event, 0) }
func (e *realEvent) end()          {}
func (e *realEvent) pulse() {
	e.Set()
	e.Reset()
}

// flagEvent has set and not set, and no memory of having been set.
type flagEvent struct {
	set  uint32
	quit atomic.Bool
}

func (e *flagEvent) word() *uint32 { return &e.set }
func (e *flagEvent) end()          { e.quit.Store(true) }
func (e *flagEvent) Wait() {
	for atomic.LoadUint32(&e.set) == 0 && !e.quit.Load() {
		futex.WaitFor(&e.set, 0, 10*time.Millisecond)
	}
}

// pulse resets before a waiter has come to look.
func (e *flagEvent) pulse() {
	atomic.StoreUint32(&e.set, 1)
	atomic.StoreUint32(&e.set, 0)
	futex.Wake(&e.set, futex.All)
}

func pulsed(t *testing.T, e event, d time.Duration) bool {
	c := newCrew(t)
	var got atomic.Int32
	for i := range 3 {
		c.start(func() { e.Wait(); got.Add(1) })
		asleep(t, e.word(), i+1)
	}
	e.pulse()
	defer e.end()
	return comes(d, func() bool { return got.Load() == 3 })
}

func TestEventSetAndResetAtOnceStillReleases(t *testing.T) {
	for range 20 {
		if !pulsed(t, new(realEvent), hang) {
			t.Fatal("who slept when Set was called sleeps on")
		}
	}
	if pulsed(t, new(flagEvent), soon) {
		t.Error("the naive event passes: this schedule proves nothing")
	}
}

// Once.

func TestOnceRunsOnceAndEverybodyWaitsForIt(t *testing.T) {
	rounds := 500
	if testing.Short() {
		rounds = 50
	}
	for i := range rounds {
		var once futex.Once
		var runs, ended atomic.Int32
		c := newCrew(t)
		for range 4 {
			c.start(func() {
				once.Do(func() {
					runs.Add(1)
					if i%2 == 0 {
						busy(50 * time.Microsecond)
					}
					ended.Add(1)
				})
				if ended.Load() != 1 {
					t.Error("Do returned before f had")
				}
			})
		}
		within(t, "every Do", c.wg.Wait)
		if runs.Load() != 1 {
			t.Fatalf("f ran %d times", runs.Load())
		}
	}
}

func TestOnceCallersSleepWhileItRuns(t *testing.T) {
	var once futex.Once
	var ev futex.Event
	c := newCrew(t)
	c.start(func() { once.Do(ev.Wait) })
	asleep(t, word(&ev, 0), 1)
	for i := range 3 {
		c.start(func() { once.Do(func() { t.Error("f ran again") }) })
		asleep(t, word(&once, 0), i+1)
	}
	ev.Set()
	within(t, "every Do", c.wg.Wait)
}

func TestOncePanicCountsAsDone(t *testing.T) {
	var once futex.Once
	mustPanic(t, "mine", func() { once.Do(func() { panic("mine") }) })
	once.Do(func() { t.Error("f ran after a panic") })
}
