package futex

import (
	"sync/atomic"
	"time"
)

// An Event is a condition that is announced once for all: a manual-reset
// event. The zero Event is not set.
//
// The word counts the calls of Set that changed something, so that a waiter
// can tell "still not set" from "set and reset again while I was waking up".
// With two states alone, Set followed at once by Reset would lose the waiters:
// each wakes, finds the event not set, and sleeps on.
//
//	word               meaning                    leaves it by
//	gen<<2             not set, nobody sleeps     Set; a waiter: sleepers
//	gen<<2|sleepers    not set, someone may sleep Set, which wakes all
//	gen<<2|set         set                        Reset
//
// Set: any -> (gen+1)<<2|set. Reset: set -> not set, the same gen. A waiter
// returns when it sees the set bit or a gen that is not the one it came with;
// one that sleeps for exactly a multiple of 2^30 calls of Set is not told.
type Event struct {
	_     noCopy
	state uint32
	share sharing
}

const (
	eventSet      = 1
	eventSleepers = 2
	eventGen      = 4
)

// Share makes e work between processes; see the package documentation.
func (e *Event) Share() { e.share.set(atomic.LoadUint32(&e.state)&eventSleepers == 0) }

// Set sets the event and lets every waiter go, the ones that sleep now even if
// Reset follows at once. It does nothing if the event is set.
//
// Context: goroutine or thread; it never sleeps.
// Ordering: Set synchronizes before the return of the waits it ends, and
// before an IsSet that reports true.
func (e *Event) Set() {
	scope := e.share.scope()
	for {
		s := atomic.LoadUint32(&e.state)
		if s&eventSet != 0 {
			return
		}
		if atomic.CompareAndSwapUint32(&e.state, s, (s+eventGen)&^eventSleepers|eventSet) {
			if s&eventSleepers != 0 {
				wake(scope, &e.state, All)
			}
			return
		}
	}
}

// Reset makes the event not set; later waits sleep.
func (e *Event) Reset() {
	for {
		s := atomic.LoadUint32(&e.state)
		if s&eventSet == 0 || atomic.CompareAndSwapUint32(&e.state, s, s&^eventSet) {
			return
		}
	}
}

// IsSet reports whether the event is set.
func (e *Event) IsSet() bool { return atomic.LoadUint32(&e.state)&eventSet != 0 }

// Wait returns when the event is set, at once if it is set already.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
func (e *Event) Wait() {
	if !e.IsSet() {
		e.wait(Deadline{})
	}
}

// WaitFor is Wait for at most d; it reports whether the event was set.
func (e *Event) WaitFor(d time.Duration) bool { return e.IsSet() || e.wait(After(d)) }

// WaitUntil is Wait until d at the latest; it reports whether the event was set.
func (e *Event) WaitUntil(d Deadline) bool { return e.IsSet() || e.wait(d) }

func (e *Event) wait(d Deadline) bool {
	first := atomic.LoadUint32(&e.state)
	spinWhile(&e.state, first)
	for out := Woken; ; {
		s := atomic.LoadUint32(&e.state)
		if s&eventSet != 0 || s/eventGen != first/eventGen {
			return true
		}
		if out == TimedOut {
			return false
		}
		if s&eventSleepers == 0 {
			if !atomic.CompareAndSwapUint32(&e.state, s, s|eventSleepers) {
				continue
			}
			s |= eventSleepers
		}
		out = sleep(e.share.scope(), &e.state, s, MatchAny, d)
	}
}
