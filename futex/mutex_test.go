package futex_test

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
)

func TestMutexTryLockTellsFreeFromHeld(t *testing.T) {
	var m futex.Mutex
	if !m.TryLock() {
		t.Error("TryLock of the zero Mutex failed")
	}
	if m.TryLock() || m.LockFor(time.Millisecond) {
		t.Error("took a held Mutex")
	}
	m.Unlock()
	if !m.LockFor(0) {
		t.Error("LockFor of a free Mutex failed")
	}
	m.Unlock()
}

// countInTurns adds to a plain word under the lock, which it takes in every way.
func countInTurns(w *world) {
	id := w.id()
	for i := range w.rounds {
		switch (i + id) % 4 {
		case 0:
			if !w.mu.TryLock() {
				w.mu.Lock()
			}
		case 1:
			for !w.mu.LockFor(10 * time.Microsecond) {
			}
		default:
			w.mu.Lock()
		}
		w.plain++
		w.mu.Unlock()
	}
}

func TestMutexLosesNoCountAndNoWaiter(t *testing.T) {
	for _, n := range []int{2, 8} {
		play(t, n, 200000/n, nil, countInTurns, func(t *testing.T, w *world) {
			if w.plain != w.n*w.rounds {
				t.Errorf("counted %d of %d", w.plain, w.n*w.rounds)
			}
			if s := *word(&w.mu, 0); s != 0 {
				t.Errorf("the free Mutex has state %#x", s)
			}
		})
	}
}

// holdLong makes spinning useless, so that everybody sleeps and starves.
func holdLong(w *world) {
	for range w.rounds {
		w.mu.Lock()
		w.plain++
		busy(20 * time.Microsecond)
		w.mu.Unlock()
	}
}

func TestMutexHeldLongStillPassesOn(t *testing.T) {
	play(t, 6, 300, nil, holdLong, func(t *testing.T, w *world) {
		if w.plain != w.n*w.rounds {
			t.Errorf("counted %d of %d", w.plain, w.n*w.rounds)
		}
	})
}

// locker is what the naive versions have in common with Mutex.
type locker interface {
	Lock()
	Unlock()
	word() *uint32
}

type realMutex struct{ futex.Mutex }

func (m *realMutex) word() *uint32 { return word(&m.Mutex, 0) }

// unmarkedMutex is the mutex whose woken waiter forgets that others sleep.
type unmarkedMutex struct{ state uint32 }

func (m *unmarkedMutex) word() *uint32 { return &m.state }

func (m *unmarkedMutex) Lock() {
	for !atomic.CompareAndSwapUint32(&m.state, 0, 1) {
		if atomic.LoadUint32(&m.state) == 2 || atomic.CompareAndSwapUint32(&m.state, 1, 2) {
			futex.Wait(&m.state, 2)
		}
	}
}

func (m *unmarkedMutex) Unlock() {
	if atomic.SwapUint32(&m.state, 0) == 2 {
		futex.Wake(&m.state, 1)
	}
}

// secondSleeper reports whether both of two sleepers get the lock.
func secondSleeper(t *testing.T, m locker, d time.Duration) bool {
	c := newCrew(t)
	var got atomic.Int32
	m.Lock()
	for i := range 2 {
		c.start(func() {
			m.Lock()
			got.Add(1)
			m.Unlock()
		})
		asleep(t, m.word(), i+1)
	}
	m.Unlock()
	eventually(t, "the first sleeper", func() bool { return got.Load() >= 1 })
	if comes(d, func() bool { return got.Load() == 2 }) {
		return true
	}
	futex.Wake(m.word(), futex.All)
	return false
}

func TestMutexWakesTheSecondSleeper(t *testing.T) {
	if !secondSleeper(t, new(realMutex), hang) {
		t.Error("the second sleeper sleeps beside a free lock")
	}
	if secondSleeper(t, new(unmarkedMutex), soon) {
		t.Error("the naive mutex passes: this schedule proves nothing")
	}
}

// starve makes the one sleeper on m lose races until it reserves the lock.
func starve(t *testing.T, m *futex.Mutex) {
	t.Helper()
	starved(t, m, nil)
}

// starved is starve for a sleeper whose time may be up before, which it then
// says in gone.
func starved(t *testing.T, m *futex.Mutex, gone chan bool) bool {
	t.Helper()
	state := word(m, 0)
	for range 100 {
		eventually(t, "a sleeper", func() bool {
			return atomic.LoadUint32(state) >= 4 || len(gone) > 0 || sleepers(state) == 1
		})
		switch {
		case atomic.LoadUint32(state) >= 4:
			return true
		case len(gone) > 0:
			return false
		}
		futex.Wake(state, 1) // stale: the lock is held
	}
	t.Fatalf("woken a hundred times for nothing, the waiter does not starve: %#x", atomic.LoadUint32(state))
	return false
}

// withStarver has a waiter with a time limit starve for a held m, and calls f
// in that time. Where f says that it was up too early, as starved can, it is
// doubled.
func withStarver(t *testing.T, f func(m *futex.Mutex, c *crew, given chan bool) (inTime bool)) {
	t.Helper()
	for d := 100 * time.Millisecond; ; d *= 2 {
		m := new(futex.Mutex)
		c := newCrew(t)
		given := make(chan bool, 1)
		m.Lock()
		c.start(func() { given <- m.LockFor(d) })
		if starved(t, m, given) && f(m, c, given) {
			return
		}
		if d > time.Minute {
			t.Fatal("the waiter's time is always up too early")
		}
	}
}

func TestMutexReservedForTheStarvingIsTakenByNobodyElse(t *testing.T) {
	for range 20 {
		m := new(futex.Mutex)
		c := newCrew(t)
		var got atomic.Bool
		m.Lock()
		c.start(func() {
			m.Lock()
			got.Store(true)
			m.Unlock()
		})
		starve(t, m)
		asleep(t, word(m, 0), 1)
		m.Unlock()
		for !got.Load() {
			if m.TryLock() {
				if !got.Load() {
					t.Error("taken before the waiter that it was reserved for")
				}
				m.Unlock()
				break
			}
		}
		m.Lock()
		if !got.Load() {
			t.Error("Lock overtook the waiter that it was reserved for")
		}
		m.Unlock()
	}
}

// The kernel's queue is in order of arrival: with all alike, Unlock would wake
// the sleeper that may not have the lock, and leave the one that it is reserved for.
func TestMutexReservedWakesTheStarvingAndNotTheFirst(t *testing.T) {
	m := new(futex.Mutex)
	state := word(m, 0)
	c := newCrew(t)
	m.Lock()
	c.start(func() { enter(m) })
	starve(t, m)
	asleep(t, state, 1)
	c.start(func() { enter(m) })
	asleep(t, state, 2)
	if n, _ := futex.Wake(state, 1); n != 1 { // the starving one goes to the end
		t.Error("nobody to wake")
	}
	asleep(t, state, 2)
	m.Unlock()
	within(t, "both sleepers", c.wg.Wait)
}

func TestMutexForgetsTheStarvingThatGaveUp(t *testing.T) {
	t.Parallel()
	withStarver(t, func(m *futex.Mutex, c *crew, given chan bool) bool {
		if <-given {
			t.Fatal("took a held lock")
		}
		if s := atomic.LoadUint32(word(m, 0)); s >= 4 {
			t.Errorf("state %#x still reserves", s)
		}
		m.Unlock()
		if !m.TryLock() {
			t.Error("the lock stays reserved for one who has left")
		}
		return true
	})
}

// The lock is free but reserved when the last of the starving gives up: those
// who sleep normally must hear of it.
func TestMutexWithdrawnReservationWakesTheOthers(t *testing.T) {
	t.Parallel()
	withStarver(t, func(m *futex.Mutex, c *crew, given chan bool) bool {
		state := word(m, 0)
		c.start(func() { enter(m) })
		eventually(t, "two sleepers", func() bool { return sleepers(state) == 2 || len(given) > 0 })
		// What Unlock does, without its wake: the starving waiter has missed it if
		// its time is up in that moment.
		for {
			s := atomic.LoadUint32(state)
			if s < 4 {
				m.Unlock()
				return false
			}
			if atomic.CompareAndSwapUint32(state, s, s&^1) {
				break
			}
		}
		if <-given {
			t.Fatal("woken by nobody, the waiter took the lock")
		}
		within(t, "the normal sleeper", c.wg.Wait)
		return true
	})
}

// hog takes the lock again as soon as it has given it up; whoever else wants
// it must be awake in that moment, or have it reserved.
func hog(w *world) {
	if w.id() == 0 {
		for atomic.LoadUint32(&w.stop) == 0 {
			w.mu.Lock()
			w.plain++
			busy(100 * time.Microsecond)
			w.mu.Unlock()
		}
		return
	}
	for range w.rounds {
		w.mu.Lock()
		w.plain2++
		w.mu.Unlock()
		busy(100 * time.Microsecond)
	}
	atomic.StoreUint32(&w.stop, 1)
}

func TestMutexHogDoesNotStarveTheOther(t *testing.T) {
	play(t, 2, 200, nil, hog, func(t *testing.T, w *world) {
		// A waiter is passed over 4 times after its first wake, and each wake-up
		// can take many turns of the hog to arrive where the CPUs have other work:
		// some hundred were seen. The limit is a second of turns for each Lock.
		if limit := 10_000 * w.rounds; w.plain > limit {
			t.Errorf("the hog had %d turns to the other's %d", w.plain, w.rounds)
		}
		if w.plain2 != w.rounds {
			t.Errorf("the other had %d turns of %d", w.plain2, w.rounds)
		}
	})
}

// Whoever brings the count of references to 0 under the lock may free the
// lock. An Unlock that touches its memory after the release dies here.
func TestMutexIsNotTouchedAfterItsRelease(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	type object struct {
		m    futex.Mutex
		refs int
	}
	const parties = 3
	for range rounds {
		mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			t.Fatal(err)
		}
		o := (*object)(unsafe.Pointer(unsafe.SliceData(mem)))
		o.refs = parties
		done := make(chan struct{}, parties)
		for range parties {
			go func() {
				o.m.Lock()
				o.refs--
				last := o.refs == 0
				o.m.Unlock()
				if last {
					unix.Munmap(mem)
				}
				done <- struct{}{}
			}()
		}
		within(t, "all parties", func() {
			for range parties {
				<-done
			}
		})
	}
}

func TestMutexUnlockOfUnlockedPanics(t *testing.T) {
	var m futex.Mutex
	const text = "futex: Unlock of an unlocked Mutex"
	mustPanic(t, text, m.Unlock)
	enter(&m)
	mustPanic(t, text, m.Unlock)
	if !m.TryLock() {
		t.Error("misuse has changed the Mutex")
	}
}
