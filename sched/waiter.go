package sched

import (
	"context"
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

// A waiter is a goroutine, or a thread that is no worker, that waits for one
// fiber or for all of them. It lies in the region, so that it has a link and a
// join word can name it.
type waiter struct {
	word uint32 // futex word: 0, then what has happened
	all  bool
	next uintptr // in core.waiters, under core.mu; or in the list of free ones
	gate uintptr // *lwp.Parker of a goroutine that waits in a channel operation; or 0
	node uintptr // *node to resume, where the one who waits does so by a wait; or 0
	_    [unit - 32]byte
}

// Values of waiter.word.
const (
	allEnded = 1 + iota // or the one fiber
	stuck               // nothing can run any more
	late                // the deadline has passed
)

var _ = [1]struct{}{}[unsafe.Sizeof(waiter{})-unit]

// blocks are units of the last span that are not in use.
var blocks struct {
	mu   futex.Mutex
	free uintptr // linked by waiter.next
}

// newBlock returns a zeroed unit of the last span.
func newBlock() (unsafe.Pointer, error) {
	blocks.mu.Lock()
	if blocks.free == 0 {
		k, errno := newChunk(loopClass, 0)
		if errno != 0 {
			blocks.mu.Unlock()
			return nil, errNoMemory
		}
		for i := range k.slots {
			b := (*waiter)(unsafe.Pointer(k.fiberAt(i)))
			b.next, blocks.free = blocks.free, uintptr(unsafe.Pointer(b))
		}
	}
	b := (*waiter)(pointer(blocks.free))
	blocks.free = b.next
	blocks.mu.Unlock()
	*b = waiter{}
	return unsafe.Pointer(b), nil
}

func freeBlock(p unsafe.Pointer) {
	b := (*waiter)(p)
	blocks.mu.Lock()
	b.next, blocks.free = blocks.free, uintptr(p)
	blocks.mu.Unlock()
}

// tell lets the one who waits go on. The block may serve another by the time
// of the wake, which is then spurious.
func (w *waiter) tell(what uint32) {
	gate, n := (*lwp.Parker)(pointer(w.gate)), nodeAt(w.node)
	if !atomic.CompareAndSwapUint32(&w.word, 0, what) {
		return
	}
	if n != nil {
		if me := self(); n.claimed(me) {
			n.resume(me)
		}
		return
	}
	if gate != nil {
		gate.Signal()
		return
	}
	futex.Wake(&w.word, futex.All)
}

// patience is how long to wait: until a deadline or, on a goroutine, at a gate until
// a context is done.
type patience struct {
	d    futex.Deadline
	ctx  context.Context
	gate *lwp.Gate
}

// await enters w, whose word is 0, in c's list and sleeps until it is told
// something or p is at its end.
func (c *core) await(w *waiter, p patience) uint32 {
	if p.gate != nil {
		w.gate = uintptr(unsafe.Pointer(p.gate.Parker))
	}
	c.enlist(w)
	if asm.Current() == nil {
		if p.gate != nil {
			w.awaitGate(p)
		}
	}
	for atomic.LoadUint32(&w.word) == 0 {
		if out, _ := futex.WaitUntil(&w.word, 0, p.d); out == futex.TimedOut {
			w.tell(late)
		}
	}
	c.delist(w)
	return atomic.SwapUint32(&w.word, 0)
}

// enlist has w told what becomes of the fibers.
func (c *core) enlist(w *waiter) {
	c.mu.Lock()
	w.next, c.waiters = c.waiters, uintptr(unsafe.Pointer(w))
	c.settle()
	c.mu.Unlock()
}

func (c *core) delist(w *waiter) {
	c.mu.Lock()
	for at := &c.waiters; *at != 0; at = &(*waiter)(pointer(*at)).next {
		if *at == uintptr(unsafe.Pointer(w)) {
			*at = w.next
			break
		}
	}
	c.mu.Unlock()
}

// awaitGate sleeps in a channel operation until w is told something.
func (w *waiter) awaitGate(p patience) {
	select {
	case <-p.gate.C:
	case <-p.ctx.Done():
		if !atomic.CompareAndSwapUint32(&w.word, 0, late) {
			<-p.gate.C
		}
	}
}
