package sched

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// A worker's queue of ready fibers is a ring of descriptors, linked both ways,
// that begins and ends at the worker's own context, loop: whoever takes from an
// empty ring gets loop, and goes to look for work there, without a test.
//
// The newest fiber is kept beside the ring, in top: it is the next one to run
// when the running one stops, ends or joins it, and then has never been linked.
// Where nothing is there top is loop.
//
// While fibers do nothing but Yield, the running one stays in the ring, at the
// place of loop, which is not in it: the worker is turning, and a Yield only goes
// on to the next; top is nil. Whoever takes the lock for anything else puts loop
// back first. The running fiber's next and prev are the ring's meanwhile.
//
// The lock belongs to the worker. The worker takes it some ten million times a
// second and others take it when they steal, so the worker pays two plain
// stores and a load for it, and a thief an inter-processor interrupt:
//
//	worker: inside = 1; if claimed == 0, the ring is its own; ... inside = 0
//	thief:  claimed = 1 by compare-and-swap; Fence; now both:
//	        worker: inside = 1 by exchange; if held == 0, the ring is its own;
//	                else inside = 0, wait for held == 0, again; ... inside = 0
//	        thief:  held = 1 by exchange; if inside == 0, the ring is its own;
//	                else held = 0, again; ... held = 0; claimed = 0
//
// After the thief's Fence the worker's earlier store to inside is visible, and
// every later load of claimed finds it set (package asm, Fence). From then on
// each side has a full fence between its store and its load, and one of the two
// sees the other. The worker does not wait while the thief is in its Fence, a
// few microseconds, only while the thief is in the ring; when it did, a worker
// that spawned small fibers beside an idle thief made one in six microseconds.
// A thief gives up if the worker stays inside, because it does not run.
// Rejected: a Chase-Lev deque, whose owner needs a full fence or a locked
// instruction for each take, about what a whole Yield takes,
// and from which nothing can be taken in the middle, as Join does; and private
// queues that are shared on request, where a fiber that computes would keep the
// rest of its worker's queue from everybody.
//
// Newly ready fibers go to the tail. Yield takes from the head: everybody's
// turn comes. A fiber that stops or ends is followed by the newest, at the
// tail, whose stack is in the cache and whose children, in a tree of fibers,
// are few; the oldest, at the head, are what thieves take. So that the newest
// do not keep the oldest waiting for ever, the head is taken once in a slice.

// enter takes the lock of w's queue. The caller runs on w.
//
//go:nosplit // an overflow must not keep the lock
func (w *worker) enter() {
	asm.StoreRelease(&w.inside, 1)
	if atomic.LoadUint32(&w.claimed)|w.turning != 0 {
		w.enterSlow()
	}
}

// enterSlow is enter while the worker turns, or not alone.
//
//go:nosplit // as enter
func (w *worker) enterSlow() {
	if atomic.LoadUint32(&w.claimed) != 0 {
		w.contend()
	}
	if w.turning != 0 {
		w.endTurns()
	}
}

// enterTurning is enter which leaves the running fiber in the ring.
//
//go:nosplit // as enter
func (w *worker) enterTurning() {
	asm.StoreRelease(&w.inside, 1)
	if atomic.LoadUint32(&w.claimed) != 0 {
		w.contend()
	}
}

// contend takes the lock while there is a thief, or something in the inbox.
//
//go:nosplit // as enter
func (w *worker) contend() {
	for i := 0; ; i++ {
		atomic.SwapUint32(&w.inside, 1)
		if atomic.LoadUint32(&w.claimed)&attention != 0 {
			w.hasten() // have a look at the next chance
		}
		if atomic.LoadUint32(&w.held) == 0 {
			return
		}
		asm.StoreRelease(&w.inside, 0)
		for atomic.LoadUint32(&w.held) != 0 {
			if i++; i < 200 {
				asm.Relax()
			} else { // the thief does not run
				w.call(osYieldFn, nil)
			}
		}
	}
}

var osYieldFn = func(unsafe.Pointer) { unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// leave gives the lock back.
//
//go:nosplit // as enter
func (w *worker) leave() { asm.StoreRelease(&w.inside, 0) }

// push adds f as the newest; under the lock.
//
//go:nosplit // as enter
func (w *worker) push(f *fiber) {
	w.lower()
	w.top = uintptr(unsafe.Pointer(f))
}

// lower puts what is on top into the ring; under the lock. What is on top then is
// for the caller to say.
//
//go:nosplit // as enter
func (w *worker) lower() {
	if f := (*fiber)(pointer(w.top)); f != w.loop {
		w.link(f)
	}
}

// link adds f, which is on top, at the tail of the ring; under the lock.
//
//go:nosplit // as enter
func (w *worker) link(f *fiber) {
	loop := w.loop
	last := loop.prev
	f.next, f.prev = loop.ref(), last
	last.fiber().next = f.ref()
	loop.prev = f.link()
	w.length++
}

// newest takes the newest fiber, or loop; under the lock.
//
//go:nosplit // as enter
func (w *worker) newest() *fiber {
	f := (*fiber)(pointer(w.top))
	if f == w.loop {
		return w.tail()
	}
	w.top = uintptr(unsafe.Pointer(w.loop))
	return f
}

// tail is newest of what is in the ring.
//
//go:nosplit // as enter
func (w *worker) tail() *fiber {
	loop := w.loop
	f := loop.prev.fiber()
	p := f.prev
	loop.prev = p
	p.fiber().next = loop.ref()
	if f != loop {
		w.length--
	}
	return f
}

// oldest takes the oldest fiber, or loop; under the lock.
//
//go:nosplit // as enter
func (w *worker) oldest() *fiber {
	w.lower()
	loop := w.loop
	w.top = uintptr(unsafe.Pointer(loop))
	f := loop.next.fiber()
	n := f.next
	loop.next = n
	n.fiber().prev = w.loopLink
	if f != loop {
		w.length--
	}
	return f
}

// turn makes f, which runs, the newest, and returns the oldest, which runs then
// and is in the ring too; f if there is no other. It is under the lock taken by
// enterTurning.
//
//go:nosplit // as enter
func (w *worker) turn(f *fiber) *fiber {
	if w.turning != 0 {
		return f.next.fiber()
	}
	w.lower()
	loop := w.loop
	w.top = uintptr(unsafe.Pointer(loop))
	if loop.next.fiber() == loop {
		return f
	}
	f.next, f.prev = loop.next, loop.prev
	f.next.fiber().prev = f.link()
	f.prev.fiber().next = f.ref()
	w.turning, w.top = 1, 0
	return f.next.fiber()
}

// endTurns puts loop into the ring, in place of the running fiber; under the lock.
//
//go:nosplit // as enter
func (w *worker) endTurns() {
	f, loop := w.running(), w.loop
	loop.next, loop.prev = f.next, f.prev
	loop.next.fiber().prev = w.loopLink
	loop.prev.fiber().next = loop.ref()
	w.top = uintptr(unsafe.Pointer(loop))
	asm.StoreRelease(&w.turning, 0) // see stopTurning
}

// stopTurning ends turns: the running fiber's next and prev are its own then. Nobody
// but w begins turns, so it sees with a look that there are none.
//
//go:nosplit // as enter
func (w *worker) stopTurning() {
	if atomic.LoadUint32(&w.turning) != 0 {
		w.enter()
		w.leave()
	}
}

// remove takes f, which is in the queue; under the lock.
//
//go:nosplit // as enter
func (w *worker) remove(f *fiber) {
	if w.top == uintptr(unsafe.Pointer(f)) {
		w.top = uintptr(unsafe.Pointer(w.loop))
		return
	}
	w.length--
	f.next.fiber().prev = f.prev
	f.prev.fiber().next = f.next
}

// any says whether a fiber is in the queue. Without the lock it can miss one that
// is moved meanwhile: see feeds.
//
//go:nosplit // as enter
func (w *worker) any() bool {
	if atomic.LoadUint32(&w.length) != 0 {
		return true
	}
	top := atomic.LoadUintptr(&w.top)
	return top != 0 && top != uintptr(unsafe.Pointer(w.loop))
}

// claim takes the lock of v's queue for somebody else than v. It fails when
// another has it, or when v holds it for long.
func (v *worker) claim() bool {
	c := atomic.LoadUint32(&v.claimed)
	if c&stealing != 0 || !atomic.CompareAndSwapUint32(&v.claimed, c, c|stealing) {
		return false
	}
	asm.Fence()
	for range 1000 {
		if atomic.LoadUint32(&v.inside) == 0 {
			atomic.SwapUint32(&v.held, 1)
			if atomic.LoadUint32(&v.inside) == 0 {
				if v.turning != 0 {
					v.endTurns()
				}
				return true
			}
			asm.StoreRelease(&v.held, 0)
		}
		asm.Relax()
	}
	v.unclaim()
	return false
}

func (v *worker) unclaim() {
	asm.StoreRelease(&v.held, 0)
	atomic.AndUint32(&v.claimed, ^uint32(stealing))
}

// Bits of worker.claimed.
const (
	stealing  = 1 << iota // somebody else wants the queue's lock, or has it
	attention             // somebody has put something in the inbox
	unfenced              // always, where Fence does not work: the worker pays for it
)

// maxSteal bounds how long a thief keeps the worker from its queue: it walks
// over what it takes.
const maxSteal = 64

// steal moves the older half of v's queue, up to maxSteal, to w's, and returns
// how many those are.
func (w *worker) steal(v *worker) int {
	if !v.any() || !v.claim() {
		return 0
	}
	v.lower() // found, or feeds, has another see what is left
	v.top = uintptr(unsafe.Pointer(v.loop))
	n := int(min((v.length+1)/2, maxSteal))
	if n == 0 {
		v.unclaim()
		return 0
	}
	first := v.loop.next
	last := first.fiber()
	for i := 1; ; i++ {
		last.worker = w.loopLink
		if i == n {
			break
		}
		last = last.next.fiber()
	}
	rest := last.next
	v.loop.next = rest
	rest.fiber().prev = v.loopLink
	v.length -= uint32(n)
	v.unclaim()

	w.enter()
	tail := w.loop.prev
	tail.fiber().next = first
	first.fiber().prev = tail
	last.next = w.loop.ref()
	w.loop.prev = last.link()
	w.length += uint32(n)
	w.leave()
	w.feeds()
	w.stats.steals++
	w.stats.stolen += uint64(n)
	return n
}
