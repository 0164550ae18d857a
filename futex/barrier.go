package futex

import (
	"math"
	"sync/atomic"
)

// A Barrier lets callers go on in groups of n: Wait returns when n of them
// have called it. It is ready for the next group at once. A Barrier needs its
// count, by NewBarrier or Init; Wait on the zero Barrier panics.
//
// The word is 64 bits, and the kernel looks at its high half:
//
//	bits 0-31   arrived: callers of this generation so far, 0 to n-1
//	bits 32-63  generation
//
//	arrival, not the last  (g, a) -> (g, a+1); sleep while the generation is g
//	the last arrival       (g, n-1) -> (g+1, 0); wake all; it is the serial caller
//
// The naive barrier, which counts arrivals in one word and generations in another,
// has a choice of two failures. An arrival that counts itself first and then
// reads the generation can read the one after, if the last arrival was quick,
// and sleeps through its release. One that reads first can count itself into
// the next group while the last arrival is about to clear the count. Here one
// step gives both. Sleepers watch the half that only the last arrival changes,
// so later arrivals do not disturb them, and one that is slow to wake finds the
// generation changed however many have arrived for the next.
type Barrier struct {
	_     noCopy
	state uint64
	n     uint32
	share sharing
}

const barrierGen = 1 << 32

// NewBarrier returns a Barrier for groups of n. It panics if n is not positive.
//
// Context: goroutine; it allocates.
func NewBarrier(n int) *Barrier {
	b := new(Barrier)
	b.Init(n)
	return b
}

// Init makes b a Barrier for groups of n, wherever b is. It panics if n is not
// positive. Nobody may be using b.
func (b *Barrier) Init(n int) {
	if n <= 0 || n > math.MaxInt32 {
		panic("futex: Barrier of 0")
	}
	b.n = uint32(n)
	atomic.StoreUint64(&b.state, 0)
}

// Share makes b work between processes, after Init by one of them; see the
// package documentation.
func (b *Barrier) Share() { b.share.set(uint32(atomic.LoadUint64(&b.state)) == 0) }

// Wait waits until n callers have arrived. It returns true for exactly one of
// them, the last to arrive.
//
// Context: goroutine or thread; a goroutine holds no P while it waits.
// Ordering: every arrival of a group synchronizes before every return of it.
func (b *Barrier) Wait() (serial bool) {
	n, scope := b.n, b.share.scope()
	if n == 0 {
		panic("futex: Barrier of 0")
	}
	for {
		v := atomic.LoadUint64(&b.state)
		if uint32(v) == n-1 {
			if atomic.CompareAndSwapUint64(&b.state, v, v-uint64(n-1)+barrierGen) {
				if n > 1 {
					wake(scope, high(&b.state), All)
				}
				return true
			}
		} else if atomic.CompareAndSwapUint64(&b.state, v, v+1) {
			b.wait(scope, uint32(v>>32))
			return false
		}
	}
}

// wait returns when the generation is not gen any more.
func (b *Barrier) wait(scope Scope, gen uint32) {
	spinWhile(high(&b.state), gen)
	// The whole word, because the race detector knows it by its address.
	for uint32(atomic.LoadUint64(&b.state)>>32) == gen {
		sleep(scope, high(&b.state), gen, MatchAny, Deadline{})
	}
}
