package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/futex"
)

// A waiter is a goroutine, or a thread that is no worker, that waits for one
// fiber or for all of them. It lies in the region, so that it has a link and a
// join word can name it.
type waiter struct {
	word uint32 // futex word: 0, then what has happened
	all  bool
	next uintptr // in core.waiters, under core.mu; or in the list of free ones
	node uintptr // *node to resume, where the one who waits does so by a wait; or 0
	_    [unit - 24]byte
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
	if atomic.CompareAndSwapUint32(&w.word, 0, what) {
		if n := nodeAt(w.node); n == nil {
			futex.Wake(&w.word, futex.All)
		} else if me := self(); n.claimed(me) {
			n.resume(me)
		}
	}
}

// await enters w, whose word is 0, in c's list and sleeps until it is told
// something or the deadline has passed.
func (c *core) await(w *waiter, d futex.Deadline) uint32 {
	c.enlist(w)
	for atomic.LoadUint32(&w.word) == 0 {
		if out, _ := futex.WaitUntil(&w.word, 0, d); out == futex.TimedOut {
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
