package lwp

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// A threadEnd is what a thread leaves behind, as its last act, for a goroutine
// to close the channel of Done: a block off the Go heap that its record refers
// to. record.done:
//
//	0           -> a threadEnd by Done; noDone by the thread, or the end of the run
//	a threadEnd -> noDone by the thread, who posts it
//	noDone      for good
type threadEnd struct {
	Parker // byEnd
	t      Thread
}

const noDone = 1

// dones are the channels of threads that have not ended.
var dones struct {
	mu sync.Mutex
	of map[Thread]chan struct{}
}

var doneAlready = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Done returns a channel that is closed when t has exited, and Join will not
// wait. All calls return the same. Nothing waits meanwhile: the thread's last
// act wakes a goroutine that serves all threads.
//
// Context: goroutine. For a handle that is of no thread, or of one that was
// joined, the channel is closed already; so it is in a program without memory
// for it. On a thread it returns nil.
// Ordering: t's exit synchronizes before the close.
func (t Thread) Done() <-chan struct{} {
	if asm.Current() != nil {
		return nil
	}
	r, err := t.hold()
	if err != nil {
		return doneAlready
	}
	defer r.drop(t.index(), 1)
	startHost()
	dones.mu.Lock()
	defer dones.mu.Unlock()
	if c := dones.of[t]; c != nil {
		return c
	}
	if atomic.LoadUintptr(&r.done) == 0 {
		e := (*threadEnd)(newBlock(unsafe.Sizeof(threadEnd{})))
		if e == nil {
			return doneAlready
		}
		e.kind, e.t = byEnd, t
		if atomic.CompareAndSwapUintptr(&r.done, 0, uintptr(unsafe.Pointer(e))) {
			if dones.of == nil {
				dones.of = map[Thread]chan struct{}{}
			}
			c := make(chan struct{})
			dones.of[t] = c
			return c
		}
		freeBlock(unsafe.Pointer(e), unsafe.Sizeof(*e))
	}
	// It is ending, and nobody has asked before.
	if atomic.LoadUint32(&r.exit) == 0 {
		return doneAlready
	}
	c := make(chan struct{})
	go func() {
		t.awaitExit()
		close(c)
	}()
	return c
}

// ends says, on the thread itself, that nothing can keep it from its end.
func (r *record) ends() {
	if e := atomic.SwapUintptr(&r.done, noDone); e > noDone {
		asm.Headroom()
		postFn(pointer(e))
	}
}

// announce closes the channel of a thread that is about to exit, once it has.
func (e *threadEnd) announce() {
	t := e.t
	freeBlock(unsafe.Pointer(e), unsafe.Sizeof(*e))
	if t.gone() {
		t.closeDone()
		return
	}
	go func() { // it may take long: the thread can have the lowest priority
		t.awaitExit()
		t.closeDone()
	}()
}

func (t Thread) closeDone() {
	dones.mu.Lock()
	c := dones.of[t]
	delete(dones.of, t)
	dones.mu.Unlock()
	close(c)
}

// gone says whether t has exited.
func (t Thread) gone() bool {
	r, err := t.hold()
	if err != nil {
		return true
	}
	gone := atomic.LoadUint32(&r.exit) == 0
	r.drop(t.index(), 1)
	return gone
}

// awaitExit waits for t, which is on its way out, first without a thread of Go's.
func (t Thread) awaitExit() {
	for pause := 10 * time.Microsecond; pause < time.Millisecond; pause *= 2 {
		if t.gone() {
			return
		}
		time.Sleep(pause)
	}
	if r, err := t.hold(); err == nil {
		r.wait(futex.Never)
		r.passOn(1)
		r.drop(t.index(), 1)
	}
}
