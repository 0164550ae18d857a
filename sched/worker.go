package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/lwp"
)

// A worker is a thread that runs fibers. It lies off the Go heap.
type worker struct {
	// Written by the worker alone, all the time.
	current  uintptr // *fiber that runs, loop when none does
	top      uintptr // *fiber, the newest in the queue; or loop; nil while turning
	inside   uint32  // the worker is in its queue; see queue.go
	tick     uint32  // switches until the next poll
	loop     *fiber  // the worker's own context, and both ends of its queue
	loopLink link
	length   uint32  // ready fibers in the ring
	base     uintptr // region.base
	links    uint32  // region.loops - firstLink
	turning  uint32  // current is in the ring in place of loop; see queue.go
	free     cache   // of the default class
	shared   uintptr // &core.hungry
	batch    uint32  // batchOf(class)
	interval uint32  // what tick was after the last poll, less what hasten has taken off
	stats    counters
	core     *core
	class    int    // core.class
	clock    uint64 // ticks, as of the last poll
	slice    uint64 // ticks, when the head of the queue was last taken
	left     uint32 // what switches clear that have nothing to clear
	_        [60]byte

	// Written by others.
	claimed uint32 // see queue.go
	held    uint32 // a thief is in the queue
	_       [56]byte

	// Parking, under core.mu, but for wake.
	wake      uint32 // futex word: 1 when the worker is not to sleep
	parked    bool   // in core's list of idle workers
	searching bool   // counted in core.searching
	nextIdle  uintptr
	inbox     ref // fibers that are pinned to this worker and were made ready elsewhere, linked by next; newest first

	id      int
	bound   ref // ready fibers that are pinned here or have come due, linked by next, oldest first
	boundTo ref // the newest
	due     int // how many of them a timer has made ready

	boundsTurn bool
	caches     [classes]cache
	random     uint64
	now        clock
	thread     lwp.Thread
	_          [40]byte // to whole lines
}

// counters are a worker's part of Stats.
type counters struct {
	spawns, ends, switches, steals, stolen, wakes, idles, spins uint64
}

//go:nosplit // called where locks are held, which an overflow would keep
func (w *worker) running() *fiber { return (*fiber)(pointer(w.current)) }

//go:nosplit // as running
func (w *worker) setRunning(f *fiber) { w.current = uintptr(unsafe.Pointer(f)) }

// goesOn makes f, which was about to stop, the running fiber again.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) goesOn(f *fiber) {
	f.setState(runnable)
	w.setRunning(f)
}

// hasten has the next switch poll.
//
//go:nosplit // called where locks are held, which an overflow would keep
func (w *worker) hasten() { w.pollAfter(1) }

// pollAfter has the worker poll after n switches at the latest. It keeps the
// count of switches right, which poll makes for all of the interval in advance.
//
//go:nosplit // as hasten
func (w *worker) pollAfter(n uint32) {
	if w.tick > n {
		d := w.tick - n
		w.stats.switches -= uint64(d)
		w.tick = n
		atomic.StoreUint32(&w.interval, w.interval-d)
	}
}

// pollEarly polls before it is due, and reports whether the running fiber may say
// who runs next: otherwise it is others' turn, which next sees to.
func (w *worker) pollEarly() bool {
	if w.bound == 0 {
		w.call(pollFn, unsafe.Pointer(w))
	}
	if w.bound != 0 || w.clock-w.slice > slices {
		w.hasten()
		return false
	}
	return true
}

// counts counts, for a Join, the switch back: the end of a fiber that is waited
// for does not.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) counts() {
	if w.tick > 1 {
		w.tick--
	}
}

// idle says that the worker is in its own context.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) idle() bool { return w.current == uintptr(unsafe.Pointer(w.loop)) }

// A worker looks at what does not come to its queue by itself after pollInterval
// switches; or after longInterval, if the last ones took no more than quickSwitch
// ticks of the cycle counter each, and there is nothing to look for: who brings
// something then alerts it. A look takes some fifty nanoseconds, most of which is
// the reading of the cycle counter of a virtual machine, and mispredicted
// returns: a seventh of a Yield if it comes with each 128th.
const (
	pollInterval = 128
	longInterval = 1024
	quickSwitch  = 128
)

// main is the life of a worker.
func (w *worker) main() {
	asm.Current().Worker = uintptr(unsafe.Pointer(w))
	lwp.SetDomain(&domain)
	w.loop.Guard = asm.Current().G.StackGuard0
	w.setRunning(w.loop)
	for {
		f := w.find()
		if f == nil {
			break
		}
		w.runs(f)
	}
	w.flush()
}

// runs lets f run, and whatever comes after it, until there is nothing more
// in the queue.
func (w *worker) runs(f *fiber) {
	w.setRunning(f)
	asm.Switch(&w.loop.Context, &f.Context, &w.left)
}

// find returns a fiber to run, or nil when the scheduler is closed. The queue
// comes first, then what poll finds, then others' queues; then the worker
// spins, then parks.
func (w *worker) find() *fiber {
	c := w.core
	for {
		w.poll()
		w.enter()
		f := w.newest()
		w.leave()
		if f != w.loop {
			if w.searching {
				c.found(w)
			}
			return f
		}
		if w.bound != 0 {
			if w.searching {
				c.found(w)
			}
			return w.nextBound()
		}
		if w.stealAny() {
			continue
		}
		if w.spin() {
			continue
		}
		if !c.park(w) {
			return nil
		}
	}
}

// stealAny tries every other worker once, from a random one on.
func (w *worker) stealAny() bool {
	c := w.core
	n := len(c.workers)
	if n == 1 {
		return false
	}
	w.random ^= w.random << 13
	w.random ^= w.random >> 7
	w.random ^= w.random << 17
	at := int(w.random % uint64(n))
	for i := range n {
		v := c.workers[(at+i)%n]
		if v != w && w.steal(v) > 0 {
			return true
		}
	}
	return false
}

// spinRounds bounds the search before a worker parks: about ten microseconds,
// twice what a wake by futex takes from one CPU to another.
const spinRounds = 40

// spin looks for work for a while, if no other worker does and there is more
// than one CPU: on one, whoever would bring work does not run meanwhile.
func (w *worker) spin() bool {
	c := w.core
	if !c.spins || !w.searching && !c.search(w) {
		return false
	}
	for range spinRounds {
		for range 8 {
			asm.Relax()
		}
		w.stats.spins++
		if c.injected.Load() != 0 || atomic.LoadUint32(&w.claimed)&attention != 0 {
			return true
		}
		for _, v := range c.workers {
			if v != w && v.any() {
				return true
			}
		}
	}
	return false
}

// poll looks at what does not come to the queue by itself: the inbox, fibers
// from outside, timers. It runs on the worker's own stack.
func (w *worker) poll() {
	c := w.core
	now := asm.Cycles()
	w.setInterval(now-w.clock <= uint64(w.interval-w.tick)*quickSwitch)
	w.clock = now
	if atomic.LoadUint32(&w.claimed)&attention != 0 {
		w.openInbox()
	}
	if c.injected.Load() != 0 {
		w.takeInjected()
	}
	if c.timers.first.Load() != 0 {
		c.timers.expire(w)
	}
	if w.bound != 0 {
		w.hasten()
	}
}

// setInterval begins an interval. Who brings what poll looks for stores that and
// then loads interval, which is stored here before the last look at it.
func (w *worker) setInterval(quick bool) {
	n := uint32(pollInterval)
	if quick && w.core.quiet() {
		n = longInterval
	}
	w.stats.switches += uint64(n) - uint64(w.tick)
	w.tick = n
	atomic.StoreUint32(&w.interval, n)
	if n > pollInterval && !w.core.quiet() {
		w.pollAfter(pollInterval)
	}
}

// quiet says that there is nothing that a worker would have to look for.
func (c *core) quiet() bool { return c.injected.Load() == 0 && c.timers.first.Load() == 0 }

// alert has the workers that do not look at what has come for long look for it soon.
func (c *core) alert(me *worker) {
	for _, w := range c.workers {
		switch {
		case w == me:
			w.pollAfter(pollInterval)
		case atomic.LoadUint32(&w.interval) > pollInterval:
			atomic.OrUint32(&w.claimed, attention)
		}
	}
}

// call calls fn(arg) on the worker's own stack, which has room for system
// calls and locks where the smallest fiber has a kilobyte. fn does not switch.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) call(fn func(unsafe.Pointer), arg unsafe.Pointer) {
	var here byte
	if uintptr(unsafe.Pointer(&here))-region.base < spans*region.span {
		asm.CallOn(&w.loop.Context, fn, arg)
	} else {
		fn(arg)
	}
}

var pollFn = func(w unsafe.Pointer) { (*worker)(w).poll() }

// slices is how long, in ticks of the cycle counter, the newest fibers may keep
// the oldest waiting: a third of a millisecond to a millisecond on amd64, at
// most forty on arm64, whose counter is slower.
const slices = 1 << 20

// next takes the fiber that is to follow one that stops, or loop, and makes it
// the running one.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) next() *fiber {
	old := false
	if w.tick--; w.tick == 0 {
		w.call(pollFn, unsafe.Pointer(w))
		if w.bound != 0 {
			// In turns with the queue, if there is anything in it.
			if w.boundsTurn = !w.boundsTurn || !w.any(); w.boundsTurn {
				w.stopTurning()
				f := w.nextBound()
				w.setRunning(f)
				return f
			}
		}
		if w.clock-w.slice > slices {
			w.slice, old = w.clock, true
		}
	}
	w.enter()
	var f *fiber
	if old {
		f = w.oldest()
	} else {
		f = w.newest()
	}
	w.leave()
	w.setRunning(f)
	if old {
		w.feeds()
	}
	return f
}

// putBack undoes next, which has taken f.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) putBack(f *fiber) {
	if f == w.loop {
		return
	}
	if f.flags&pinned != 0 {
		f.next, w.bound = w.bound, f.ref()
		if f.next == 0 {
			w.boundTo = w.bound
		}
		w.hasten()
		return
	}
	w.enter()
	w.push(f)
	w.leave()
}

// nextBound takes the oldest of the fibers in bound.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) nextBound() *fiber {
	f := w.bound.fiber()
	if w.bound = f.next; w.bound == 0 {
		w.boundTo = 0
	}
	if f.flags&isDue != 0 {
		f.flags &^= isDue
		w.due--
	}
	return f
}

// bind adds a ready fiber that is pinned here, or has come due.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) bind(f *fiber) {
	f.next = 0
	f.setState(runnable)
	if w.bound == 0 {
		w.bound = f.ref()
	} else {
		w.boundTo.fiber().next = f.ref()
	}
	w.boundTo = f.ref()
	w.hasten()
}

// openInbox moves what is in the inbox to bound.
func (w *worker) openInbox() {
	c := w.core
	c.mu.Lock()
	atomic.AndUint32(&w.claimed, ^uint32(attention))
	l := w.inbox
	w.inbox = 0
	c.mu.Unlock()
	var list ref
	for l != 0 { // the newest is first
		f := l.fiber()
		l, f.next, list = f.next, list, l
	}
	for list != 0 {
		f := list.fiber()
		list = f.next
		w.bind(f)
	}
}

// readies makes f, which belongs to the caller, ready on w, the worker that the
// caller runs on.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) readies(f *fiber) {
	w.stats.wakes++
	if f.flags&pinned != 0 {
		if f.worker == w.loopLink {
			w.bind(f)
			return
		}
		w.call(deliverFn, unsafe.Pointer(f))
		return
	}
	f.worker = w.loopLink
	w.enter()
	f.setState(runnable)
	w.lower() // as push
	w.top = uintptr(unsafe.Pointer(f))
	w.leave()
	w.feeds()
}

// feeds wakes a worker if one may have seen nothing to do; after any step that adds
// to the queue, or moves in it what is on top.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) feeds() {
	if w.core.hungry.Load() != 0 {
		w.call(feedFn, unsafe.Pointer(w.core))
	}
}

var (
	deliverFn = func(f unsafe.Pointer) { (*fiber)(f).deliver() }
	feedFn    = func(c unsafe.Pointer) { (*core)(c).feed() }
)

// deliver makes f, which belongs to the caller, ready from outside its worker.
func (f *fiber) deliver() {
	c := f.core()
	if f.flags&pinned == 0 {
		c.inject(f)
		return
	}
	c.mu.Lock()
	v := f.deliverLocked()
	c.mu.Unlock()
	v.rouse()
}

// deliverLocked is deliver under the core's mu; the caller rouses the result after mu.
func (f *fiber) deliverLocked() *worker {
	w := f.on()
	f.setState(runnable)
	f.next = w.inbox
	w.inbox = f.ref()
	atomic.OrUint32(&w.claimed, attention)
	if !w.core.unpark(w) {
		return nil
	}
	return w
}
