package futex

import (
	"sync/atomic"
	"time"

	"lwprt/asm"
)

// A Mutex is a mutual exclusion lock. The zero Mutex is free. It has no owner:
// who unlocks it need not be who locked it.
//
// The protocol is the three-state mutex of Drepper's "Futexes are tricky",
// with a count in the same word against starvation. state is free, locked, or locked
// with sleepers. Lock and Unlock are one compare-and-swap each while nobody
// sleeps. A waiter marks the word with mutexSleepers, in one step that fails
// if the lock has come free, and sleeps while the word is what it marked.
// Unlock clears the whole word and, where the mark was set, wakes one. It
// clears the mark although others may still sleep, so that those who lock and
// unlock before the woken one has arrived make no system calls. The woken one
// knows: it locks with the mark set, and so its own Unlock wakes the next.
//
// The naive version that loses a wake-up lets the woken waiter lock without
// the mark: of two sleepers the first wakes up, and unlocks a word that says
// that nobody sleeps; the second sleeps for ever beside a free lock.
//
// Whoever is awake may take a free lock before the one that was woken for it.
// That is what makes a busy Mutex fast, since a wake-up takes microseconds
// and a lock nanoseconds, but alone it lets a thread that locks in a loop
// starve a sleeper. So a waiter that has been woken and has lost four times
// (patience) adds mutexStarver to the word. While that count is not 0, Unlock
// leaves the lock free but reserved, and wakes one of the starving by their
// bit in the wait's bitset; nobody else takes it. The bound: the kernel's
// queue is first in, first out among equal priorities, so a sleeper is woken
// after those before it, and passed over four times at most after that. (A
// signal handler sends a sleeping goroutine to the end of the queue; our
// threads have none.) The trade: while the lock is reserved it stands idle
// until the starving waiter runs. sync.Mutex hands over after 1 ms instead;
// counting needs no clock, which is a system call here.
//
//	word                            state                 leaves it by
//	0                               free                  Lock: locked
//	locked                          held                  Unlock: free; a waiter: +sleepers
//	locked, sleepers                held, some may sleep  Unlock: free, wakes one
//	[locked,] [sleepers,] n starver n starve
//	    with locked                 held                  Unlock: -locked, wakes one that starves
//	    without                     reserved              one that starves: -starver +locked +sleepers
//	                                                      its time is up: -starver; the last: free, wakes one
//
// Ordering: every change of the word is a sequentially consistent atomic. The
// one that gives the lock up is the last access to the Mutex's memory; see
// the package documentation.
type Mutex struct {
	_     noCopy
	state uint32
	cut   uint32 // how often to halve the time to spin, 0 to maxCut
	share sharing
}

const (
	mutexLocked   = 1
	mutexSleepers = 2
	mutexStarver  = 4 // one, of the count in the bits from here up

	// Bitsets of those who sleep on state.
	wakeNormal  = 1
	wakeStarver = 2

	// patience is how many lost races make a waiter starve. Two and eight
	// contenders had the same throughput, within noise, with 1, 4 and 16: a
	// choice between a small bound and a lock that is seldom reserved.
	patience = 4
)

// How long Lock spins: up to mutexRounds looks at the word, mutexPauses hints
// before each. Measured on a 2-CPU AMD EPYC (Zen 5) guest, where PAUSE takes
// 30 ns: all of it is 6 us, about two sleeps and wake-ups across idle CPUs.
// Looking after every 1, 5, 10, 20 and 40 hints, two contenders with an empty
// critical section took 41, 30, 35, 21 and 18 ns an operation (medians of
// nine), and sync.Mutex 18 in the same run: a look takes the cache line from
// the holder, and the rarer, the longer the holder's run. With 40 a waiter is
// up to 1.2 us late. On arm64 YIELD is mostly shorter, and so is the spin.
//
// A spin that ends in sleep halves the next one, down to one look, and one
// that gets the lock doubles it: where the lock is held for long, spinning is
// lost.
const (
	mutexRounds = 10
	mutexPauses = 20
	maxCut      = 3
)

// Share makes m work between processes; see the package documentation.
func (m *Mutex) Share() { m.share.set(atomic.LoadUint32(&m.state) == 0) }

// Lock takes the lock, and waits until it can.
//
// Context: goroutine or thread; a goroutine holds no P while it sleeps.
// Ordering: every Unlock synchronizes before the return of the next Lock.
func (m *Mutex) Lock() {
	if !atomic.CompareAndSwapUint32(&m.state, 0, mutexLocked) {
		m.lockSlow()
	}
}

// TryLock takes the lock if it is free and nobody starves for it, and reports
// whether it did.
func (m *Mutex) TryLock() bool {
	return atomic.CompareAndSwapUint32(&m.state, 0, mutexLocked)
}

// LockFor is Lock for at most d; it reports whether it took the lock.
func (m *Mutex) LockFor(d time.Duration) bool {
	return m.TryLock() || m.acquire(After(d), mutexLocked)
}

// LockUntil is Lock until d at the latest; it reports whether it took the lock.
func (m *Mutex) LockUntil(d Deadline) bool {
	return m.TryLock() || m.acquire(d, mutexLocked)
}

// Unlock gives the lock up. It panics if the lock is not held.
//
// Context: goroutine or thread; it never sleeps.
func (m *Mutex) Unlock() {
	if !atomic.CompareAndSwapUint32(&m.state, mutexLocked, 0) {
		m.unlockSlow()
	}
}

//go:noinline // keeps the arguments of acquire out of every caller of Lock
func (m *Mutex) lockSlow() { m.acquire(Deadline{}, mutexLocked) }

// relock takes the lock for one behind whom others may sleep.
func (m *Mutex) relock() { m.acquire(Deadline{}, mutexLocked|mutexSleepers) }

// acquire takes the lock by setting the bits of hold, and reports whether it
// did before d.
func (m *Mutex) acquire(d Deadline, hold uint32) bool {
	bitset := uint32(wakeNormal)
	for lost := 0; ; {
		if bitset == wakeNormal && m.spin(hold) {
			return true
		}
		s := atomic.LoadUint32(&m.state)
		switch {
		case s&mutexLocked == 0 && bitset == wakeStarver:
			if atomic.CompareAndSwapUint32(&m.state, s, (s|hold)-mutexStarver) {
				return true
			}
			continue
		case s == 0:
			if atomic.CompareAndSwapUint32(&m.state, 0, hold) {
				return true
			}
			continue
		case lost == patience:
			lost, bitset = 0, wakeStarver
			atomic.AddUint32(&m.state, mutexStarver)
			continue
		case s&mutexSleepers == 0:
			if !atomic.CompareAndSwapUint32(&m.state, s, s|mutexSleepers) {
				continue
			}
			s |= mutexSleepers
		}
		switch sleep(m.share.scope(), &m.state, s, bitset, d) {
		case Woken:
			hold = mutexLocked | mutexSleepers
			if bitset == wakeNormal {
				lost++
			}
		case TimedOut:
			if bitset == wakeStarver {
				m.withdraw()
			}
			return false
		}
	}
}

// spin looks for a free lock for a while, and reports whether it took it.
func (m *Mutex) spin(hold uint32) bool {
	if !multi {
		return false
	}
	cut := atomic.LoadUint32(&m.cut)
	for range mutexRounds >> cut {
		for range mutexPauses {
			asm.Relax()
		}
		s := atomic.LoadUint32(&m.state)
		if s == 0 && atomic.CompareAndSwapUint32(&m.state, 0, hold) {
			if cut != 0 {
				atomic.StoreUint32(&m.cut, cut-1)
			}
			return true
		}
		if s >= mutexStarver {
			return false
		}
	}
	if cut < maxCut {
		atomic.StoreUint32(&m.cut, cut+1)
	}
	return false
}

// withdraw ends the wait of one that starves. If the lock is reserved, and for nobody
// else, then whoever sleeps normally has a claim again.
func (m *Mutex) withdraw() {
	scope := m.share.scope()
	for {
		s := atomic.LoadUint32(&m.state)
		next := s - mutexStarver
		free := next < mutexStarver && next&mutexLocked == 0
		if free {
			next = 0
		}
		if atomic.CompareAndSwapUint32(&m.state, s, next) {
			if free {
				wake(scope, &m.state, 1)
			}
			return
		}
	}
}

// unlockSlow is Unlock where the word is not just locked. Each way out is one
// compare-and-swap, after which the Mutex is not touched: its next owner can
// free it. A swap or an addition first and a correction later would not do.
func (m *Mutex) unlockSlow() {
	scope := m.share.scope()
	for {
		s := atomic.LoadUint32(&m.state)
		switch {
		case s&mutexLocked == 0:
			panic("futex: Unlock of an unlocked Mutex")
		case s >= mutexStarver:
			if atomic.CompareAndSwapUint32(&m.state, s, s&^mutexLocked) {
				wakeBitset(scope, &m.state, 1, wakeStarver)
				return
			}
		case atomic.CompareAndSwapUint32(&m.state, s, 0):
			if s&mutexSleepers != 0 {
				wake(scope, &m.state, 1)
			}
			return
		}
	}
}
