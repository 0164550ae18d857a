package futex

import (
	"math"
	"sync/atomic"
	"time"
)

// A WaitGroup waits for a number of tasks to be done. The zero WaitGroup
// counts none.
//
// The word is 64 bits, and the kernel looks at its high half:
//
//	bits 0-30   count
//	bit 31      sleepers: somebody waits for the count to reach 0
//	bits 32-63  generation: how often it did so with sleepers
//
//	Add              count+delta, if that is not 0 or nobody sleeps
//	Add, reaching 0  with sleepers: (g, sleepers, c) -> (g+1, -, 0); wake all
//	Wait             count > 0: set sleepers; sleep while the generation is g
//
// The naive group sleeps while the count is not 0. It loses the waiter that
// is slow to wake when the group is used again: the count is no longer 0 by
// the time it looks. The generation tells it that its own round is over.
type WaitGroup struct {
	_     noCopy
	state uint64
	share sharing
}

const (
	groupSleepers = 1 << 31
	groupGen      = 1 << 32
)

// Share makes g work between processes; see the package documentation.
func (g *WaitGroup) Share() { g.share.set(atomic.LoadUint64(&g.state)&groupSleepers == 0) }

// Add adds delta, which may be negative, to the count, and lets the waiters go
// if that makes it 0. It panics if the count would be negative or above
// math.MaxInt32. An Add from 0 must happen before the Wait that is to see it.
//
// Context: goroutine or thread; it never sleeps.
// Ordering: a call that brings the count down synchronizes before the return
// of the waits that its group ends.
func (g *WaitGroup) Add(delta int) {
	scope := g.share.scope()
	for {
		v := atomic.LoadUint64(&g.state)
		count := int(v&(groupSleepers-1)) + delta
		if count < 0 || count > math.MaxInt32 {
			panicCount(delta)
		}
		next := v&^(groupSleepers-1) | uint64(count)
		if count == 0 && v&groupSleepers != 0 {
			next = (v | (groupGen - 1)) + 1
		}
		if atomic.CompareAndSwapUint64(&g.state, v, next) {
			if count == 0 && v&groupSleepers != 0 {
				wake(scope, high(&g.state), All)
			}
			return
		}
	}
}

func panicCount(delta int) {
	if delta < 0 {
		panic("futex: negative WaitGroup counter")
	}
	panic("futex: WaitGroup counter too large")
}

// Done is Add(-1).
func (g *WaitGroup) Done() { g.Add(-1) }

// Wait returns when the count is 0, or has been since the call.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
func (g *WaitGroup) Wait() {
	if !g.idle() {
		g.wait(Deadline{})
	}
}

func (g *WaitGroup) idle() bool { return atomic.LoadUint64(&g.state)&(groupSleepers-1) == 0 }

// WaitFor is Wait for at most d; it reports whether the count was 0.
func (g *WaitGroup) WaitFor(d time.Duration) bool { return g.idle() || g.wait(After(d)) }

// WaitUntil is Wait until d at the latest; it reports whether the count was 0.
func (g *WaitGroup) WaitUntil(d Deadline) bool { return g.idle() || g.wait(d) }

func (g *WaitGroup) wait(d Deadline) bool {
	var gen uint32
	for {
		v := atomic.LoadUint64(&g.state)
		if v&(groupSleepers-1) == 0 {
			return true
		}
		if v&groupSleepers != 0 || atomic.CompareAndSwapUint64(&g.state, v, v|groupSleepers) {
			gen = uint32(v >> 32)
			break
		}
	}
	spinWhile(high(&g.state), gen)
	for out := Woken; ; {
		// The whole word, because the race detector knows it by its address.
		if uint32(atomic.LoadUint64(&g.state)>>32) != gen {
			return true
		}
		if out == TimedOut {
			return false
		}
		out = sleep(g.share.scope(), high(&g.state), gen, MatchAny, d)
	}
}
