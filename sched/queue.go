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
// instruction for each take, about half of what a whole Yield takes,
// and from which nothing can be taken in the middle, as Join does; and private
// queues that are shared on request, where a fiber that computes would keep the
// rest of its worker's queue from everybody.
//
// Newly ready fibers go to the tail. Yield takes from the head: everybody's
// turn comes. A fiber that stops or ends is followed by the newest, at the
// tail, whose stack is in the cache and whose children, in a tree of fibers,
// are few; the oldest, at the head, are what thieves take. So that the newest
// do not keep the oldest waiting for ever, the head is taken once in a slice.

// asm.Yield does the same as yield, so assembly knows the places of what it needs.
var (
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.current)-unsafe.Offsetof(asm.Runner{}.Current)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.top)-unsafe.Offsetof(asm.Runner{}.Top)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.loop)-unsafe.Offsetof(asm.Runner{}.Loop)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.base)-unsafe.Offsetof(asm.Runner{}.Base)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.loopLink)-unsafe.Offsetof(asm.Runner{}.Link)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.inside)-unsafe.Offsetof(asm.Runner{}.Inside)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.tick)-unsafe.Offsetof(asm.Runner{}.Tick)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.claimed)-unsafe.Offsetof(asm.Runner{}.Claimed)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.next)-unsafe.Offsetof(asm.Runnable{}.Next)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.prev)-unsafe.Offsetof(asm.Runnable{}.Prev)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.flags)-unsafe.Offsetof(asm.Runnable{}.Flags)]
	_ = [1]struct{}{}[linkShift-asm.LinkShift]
	_ = [1]struct{}{}[(pinned|isLoop)-asm.Stays]
)

// enter takes the lock of w's queue. The caller runs on w.
//
//go:nosplit // an overflow must not keep the lock
func (w *worker) enter() {
	asm.StoreRelease(&w.inside, 1)
	if atomic.LoadUint32(&w.claimed) != 0 {
		w.enterSlow()
	}
}

// enterSlow is enter while there is a thief, or something in the inbox.
//
//go:nosplit // as enter
func (w *worker) enterSlow() {
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
	w.length++
}

// lower puts what is on top into the ring; under the lock.
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
	l := f.link()
	last := loop.prev
	f.next, f.prev = w.loopLink, last
	last.fiber().next = l
	loop.prev = l
	w.top = uintptr(unsafe.Pointer(loop))
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
	w.length--
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
	p.fiber().next = w.loopLink
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
	f := loop.next.fiber()
	n := f.next
	loop.next = n
	n.fiber().prev = w.loopLink
	if f != loop {
		w.length--
	}
	return f
}

// turn adds f as the newest and takes the oldest, maybe f; under the lock.
//
//go:nosplit // as enter
func (w *worker) turn(f *fiber) *fiber {
	w.lower()
	loop, end, l := w.loop, w.loopLink, f.link()
	last := loop.prev
	to := loop.next.fiber()
	if to == loop {
		return f
	}
	f.next, f.prev = end, last
	last.fiber().next = l
	loop.prev = l
	n := to.next
	loop.next = n
	n.fiber().prev = end
	return to
}

// remove takes f, which is in the queue; under the lock.
//
//go:nosplit // as enter
func (w *worker) remove(f *fiber) {
	w.length--
	if w.top == uintptr(unsafe.Pointer(f)) {
		w.top = uintptr(unsafe.Pointer(w.loop))
		return
	}
	f.next.fiber().prev = f.prev
	f.prev.fiber().next = f.next
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
	if atomic.LoadUint32(&v.length) == 0 || !v.claim() {
		return 0
	}
	v.lower()
	n := int(min((v.length+1)/2, maxSteal))
	if n == 0 {
		v.unclaim()
		return 0
	}
	first := v.loop.next
	last := first.fiber()
	for i := 1; ; i++ {
		last.worker = uintptr(unsafe.Pointer(w))
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
	last.next = w.loopLink
	w.loop.prev = last.link()
	w.length += uint32(n)
	w.leave()
	w.stats.steals++
	w.stats.stolen += uint64(n)
	return n
}
