package futex

import (
	"math"
	"sync/atomic"
	"time"
)

// A Semaphore is a count of permits. The zero Semaphore has none; Release
// makes the first ones too.
//
// The word is 64 bits, and the kernel looks at its low half:
//
//	bits 0-31   permits, at most MaxPermits
//	bits 32-63  waiters: those who sleep, or are about to, or have just woken
//
//	Acquire, TryAcquire  permits > 0: permits-1
//	Acquire, slow        waiters+1; sleep while permits == 0;
//	                     then in one step permits-1, waiters-1
//	time is up           waiters-1
//	Release              permits+n; if waiters > 0 then, wake n
//
// Why one word: a release that adds and then looks at a separate count of
// waiters touches the semaphore after the new owner can have freed it. Why
// Release wakes whenever there are waiters, and not only if permits were 0: of
// two releases in a row the second would find 1 permit, wake nobody, and leave
// a second sleeper asleep beside a permit.
//
// No wake-up is lost: a waiter is counted before the kernel compares permits
// with 0. A Release before the comparison makes it fail; a Release after it
// sees the waiter counted.
//
// A caller that does not sleep may overtake the woken, so that a permit never
// waits for a wake-up to arrive; how long a waiter can be overtaken is not bounded.
type Semaphore struct {
	_     noCopy
	state uint64
	share sharing
}

// MaxPermits is the largest number of permits a Semaphore can hold.
const MaxPermits = math.MaxInt32

const semWaiter = 1 << 32

// Share makes s work between processes; see the package documentation.
func (s *Semaphore) Share() { s.share.set(atomic.LoadUint64(&s.state) == 0) }

// TryAcquire takes a permit if there is one, and reports whether it did.
func (s *Semaphore) TryAcquire() bool {
	for {
		v := atomic.LoadUint64(&s.state)
		if uint32(v) == 0 {
			return false
		}
		if atomic.CompareAndSwapUint64(&s.state, v, v-1) {
			return true
		}
	}
}

// Acquire takes a permit, and waits until there is one.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
// Ordering: the Release of n permits synchronizes before the return of the
// calls that take them.
func (s *Semaphore) Acquire() {
	if !s.TryAcquire() {
		s.acquire(Deadline{})
	}
}

// AcquireFor is Acquire for at most d; it reports whether it took a permit.
func (s *Semaphore) AcquireFor(d time.Duration) bool { return s.TryAcquire() || s.acquire(After(d)) }

// AcquireUntil is Acquire until d at the latest; it reports whether it took a permit.
func (s *Semaphore) AcquireUntil(d Deadline) bool { return s.TryAcquire() || s.acquire(d) }

func (s *Semaphore) acquire(d Deadline) bool {
	if spinWhile(low(&s.state), 0) && s.TryAcquire() {
		return true
	}
	atomic.AddUint64(&s.state, semWaiter)
	for out := Woken; ; {
		v := atomic.LoadUint64(&s.state)
		switch {
		case uint32(v) != 0:
			if atomic.CompareAndSwapUint64(&s.state, v, v-semWaiter-1) {
				return true
			}
		case out == TimedOut:
			if atomic.CompareAndSwapUint64(&s.state, v, v-semWaiter) {
				return false
			}
		default:
			out = sleep(s.share.scope(), low(&s.state), 0, MatchAny, d)
		}
	}
}

// Release adds n permits and wakes as many waiters. It panics if n is negative
// or the permits would be more than MaxPermits.
//
// Context: goroutine or thread; it never sleeps.
func (s *Semaphore) Release(n int) {
	scope := s.share.scope()
	for {
		v := atomic.LoadUint64(&s.state)
		if uint(n) > MaxPermits-uint(uint32(v)) {
			panicRelease(n)
		}
		if n == 0 {
			return
		}
		if atomic.CompareAndSwapUint64(&s.state, v, v+uint64(n)) {
			if v >= semWaiter {
				wake(scope, low(&s.state), n)
			}
			return
		}
	}
}

func panicRelease(n int) {
	if n < 0 {
		panic("futex: negative Release of a Semaphore")
	}
	panic("futex: more than MaxPermits in a Semaphore")
}
