package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// # How fibers, threads and goroutines wait at a primitive
//
// A primitive has a queue of nodes, guarded by its latch. Who has to wait makes
// a wait, which says how it is woken, and a node for each queue that it waits
// in: one, or one for each case of a Select, and one more for the Token that
// can cancel it. They lie on the waiter's stack, which stays in place; for a
// goroutine, whose stack does not, on the Go heap.
//
//	waiter                                    waker
//	latch; look; node into the queue; unlatch
//	                                          latch; take a node; unlatch
//	suspend                                   what the waiter gets into the node; resume
//	goes on
//
// A node out of its queue belongs to whoever took it, who resumes its waiter,
// once; after that the node is gone. The resumption is remembered if it comes
// before the waiter is suspended (granted in the fiber's word, or the futex
// word). It is the last thing that the waker does: the waiter may free the
// primitive, in whose memory the waker has then no more business. So resume
// follows unlatch, never the other way round.
//
// Where more than one can end a wait (several nodes, a deadline), they compete
// for its claim, by compare-and-swap from 0: a waker that does not get it drops
// the node and takes the next one. A waiter whose time is up competes as well;
// if somebody else has the claim, his resumption is on its way, and waited for.
// Then the waiter takes its other nodes out of their queues, which must be
// there as long. A naive version takes the end of the time for the end of the
// wait: what the waker meant for it is lost, and the late resumption ends some
// later wait.
//
// A waiter can be a fiber of another scheduler, which Close may be ending just
// now, in a deadlock. Whoever takes its node holds that scheduler (fiber.hold)
// from then on until it has resumed the fiber. Close takes the nodes of the
// fibers that it ends out of their queues, under the latches (fiber.abandon);
// whoever finds one before that cannot hold the scheduler, and drops the node.
// That is the last it does to it: a node that is in no queue can be given up.

// A queue is the part of a primitive where waiters are, first come first.
type queue struct {
	latch latch
	timed bool    // it is that of a Timer
	first uintptr // *node
	last  uintptr
}

// A node is a waiter's place in one queue.
type node struct {
	next, prev uintptr // *node; next also links those that were taken together
	queue      uintptr
	whose      uintptr // *wait
	value      uintptr // where the value is that is sent, or goes that is received
	index      uint32  // from 1; what the claim becomes
	queued     bool    // under the latch
	ok         bool    // what the waker says
	kind       uint8   // what the waiter wants, if there are several things
	own        bool    // it is the fiber's own node
}

// A wait is what its nodes have in common.
type wait struct {
	nodes uintptr // *node, the first of n in a row; 0 if there is one node, right after the wait
	token uintptr // *node, in the queue of a Token; or 0
	n     uint32
	claim uint32 // 0, then what ended the wait, where many can
	word  uint32 // futex word of one that is no fiber: 1 when it has been resumed

	fiber uintptr // *fiber; 0 for a thread or goroutine. A fiber's own wait begins here
	core  uintptr // the fiber's scheduler
	going uint32  // not 0 while the fiber may still be on its stack,
	off   bool    // or, unless this is set, always
	many  bool
}

// Values of wait.claim beside the indexes of nodes.
const (
	claimTimeout  = 1<<31 + iota // the deadline has passed
	claimCanceled                // the index of the Token's node
)

// A single is a wait in one queue.
type single struct {
	wait
	node
}

// A fiber's own single lies between its stack and its descriptor, but for what
// only other waits need. It is for waits that have no other end, and whose fiber
// is off its stack when the node can be found. What is the same each time is there
// from the first use of the slot on.
const (
	ownFrom = unsafe.Offsetof(wait{}.fiber)
	ownNode = unsafe.Offsetof(single{}.node) - ownFrom
	ownRoom = (unsafe.Sizeof(single{}) - ownFrom + 15) &^ 15 // keeps the stack aligned
)

var _ = [1]struct{}{}[ownRoom-ownNode-unsafe.Offsetof(node{}.ok)-asm.ResultAt]

//go:nosplit // as node.of
func (f *fiber) own() *single {
	return (*single)(pointer(uintptr(unsafe.Pointer(f)) - ownRoom - ownFrom))
}

// owner returns the fiber whose own node n is.
//
//go:nosplit // as node.of
func (n *node) owner() *fiber { return (*fiber)(unsafe.Add(unsafe.Pointer(n), ownRoom-ownNode)) }

// settle prepares f's own single; c is the scheduler that has the slot.
func (f *fiber) settle(c *core) {
	s := f.own()
	s.fiber, s.core, s.off = uintptr(unsafe.Pointer(f)), uintptr(unsafe.Pointer(c)), true
	s.whose, s.index, s.node.own = uintptr(unsafe.Pointer(&s.wait)), 1, true
}

// A bounded is a wait in one queue, and maybe in a Token's.
type bounded struct {
	single
	cancel node
}

// newBounded returns a bounded for a goroutine that waits at the primitive at p.
//
//go:noinline // it must not be put on the stack
func newBounded(p unsafe.Pointer) *bounded {
	checkPlace(p)
	return new(bounded)
}

// checkPlace panics if p, what a goroutine is about to wait at or to give others
// to use, is on its own stack: that can move meanwhile. What anybody else knows
// is not there.
//
//go:nocheckptr // a G here is larger than the runtime's
func checkPlace(p unsafe.Pointer) {
	if g := (*asm.G)(pointer(asm.Getg())); uintptr(p)-g.StackLo < g.StackHi-g.StackLo {
		panic("sched: a goroutine waits at, or with, what lies on its own stack, which moves")
	}
}

// Reasons of waits, as reports have them.
type why uint32

const (
	whyMutex why = iota
	whySemaphore
	whyRead
	whyWrite
	whyCond
	whyWaitGroup
	whyBarrier
	whyOnce
	whyEvent
	whySend
	whyRecv
	whySendNil
	whyRecvNil
	whySelect
	whyTimer
	whyTicker
	whyGroup
	whySleep
	whyJoin
)

var whyNames = [...]string{
	whyMutex: "mutex", whySemaphore: "semaphore", whyRead: "read lock", whyWrite: "write lock", whyCond: "cond",
	whyWaitGroup: "wait group", whyBarrier: "barrier", whyOnce: "once", whyEvent: "event",
	whySend: "chan send", whyRecv: "chan receive", whySendNil: "chan send (nil chan)", whyRecvNil: "chan receive (nil chan)",
	whySelect: "select", whyTimer: "timer", whyTicker: "ticker", whyGroup: "group", whySleep: "sleep", whyJoin: "join",
}

//go:nosplit // a stack that runs out must not do so here: see latch
func (n *node) of() *wait { return (*wait)(pointer(n.whose)) }

//go:nosplit // as node.of
func nodeAt(addr uintptr) *node { return (*node)(pointer(addr)) }

// here returns the worker and the fiber that the caller runs on; without a
// fiber, none.
//
//go:nosplit // as node.of
func here() (*worker, *fiber) {
	me := self()
	if me == nil || me.idle() {
		return nil, nil
	}
	return me, me.running()
}

// await has the running fiber wait in q, whose latch it holds, until the node is
// taken, and returns what that says. It gives the latch back.
//
//go:nosplit // as node.of
func (q *queue) await(me *worker, value uintptr, kind uint8, reason why) (ok bool) {
	if me.canStop() {
		f, to := q.halt(me, value, kind, reason)
		asm.Switch(&f.Context, &to.Context, q.release())
		return f.own().ok
	}
	var s single
	f := me.running()
	s.begin(me, f, false)
	s.value, s.kind = value, kind
	q.add(&s.node)
	q.latch.unlock()
	s.suspend(me, f, reason)
	return s.ok
}

// canStop says whether the running fiber can stop with a latch held: when next
// would have other things to do, that would be for too long.
//
//go:nosplit // as node.of
func (w *worker) canStop() bool { return w.tick > 1 }

// canHalt says whether the caller is a fiber, on w, which can be nil, that can
// stop with a latch held.
//
//go:nosplit // as node.of
func (w *worker) canHalt() bool { return w != nil && w.tick > 1 && !w.idle() }

// halt has the running fiber wait in q with its own node, but for the switch to
// what is to run next, which gives q's latch back:
//
//	f, to := q.halt(me, ...)
//	asm.Switch(&f.Context, &to.Context, q.release())
//
// So the fiber is off its stack before anybody can find it: whoever takes the
// node makes it ready without further ado. Only if canStop. The caller makes the
// switch, since each return that follows one can be mispredicted, which costs more
// than ten nanoseconds.
//
//go:nosplit // as node.of
func (q *queue) halt(me *worker, value uintptr, kind uint8, reason why) (f, to *fiber) {
	f = me.running()
	s := f.own()
	s.value, s.kind, s.ok = value, kind, false
	q.add(&s.node)
	f.stopAt(&s.wait, reason, me.clock)
	me.tick--
	me.enter()
	if to = (*fiber)(pointer(me.top)); to != me.loop {
		me.top = uintptr(unsafe.Pointer(me.loop))
	} else {
		to = me.tail()
	}
	me.leave()
	me.setRunning(to)
	return f, to
}

// release is the word of q's latch that a switch clears. q can lie on a stack.
//
//go:nosplit // as node.of
func (q *queue) release() *uint32 { return (*uint32)(noescape(unsafe.Pointer(&q.latch))) }

// follow is next if canStop: the newest fiber.
//
//go:nosplit // as node.of
func (w *worker) follow() *fiber {
	w.tick--
	w.enter()
	to := w.newest()
	w.leave()
	w.setRunning(to)
	return to
}

// begin prepares s for f, or, without one, for a thread or goroutine.
//
//go:nosplit // as node.of
func (s *single) begin(me *worker, f *fiber, many bool) {
	s.whose, s.index = uintptr(unsafe.Pointer(&s.wait)), 1
	s.wait.begin(me, f, many)
}

//go:nosplit // as node.of
func (w *wait) begin(me *worker, f *fiber, many bool) {
	w.fiber, w.many = uintptr(unsafe.Pointer(f)), many
	if f != nil {
		w.core = uintptr(unsafe.Pointer(me.core))
	}
}

// add puts n at the end; under the latch.
//
//go:nosplit // as node.of
func (q *queue) add(n *node) {
	at := uintptr(unsafe.Pointer(n))
	n.queue, n.queued = uintptr(unsafe.Pointer(q)), true
	n.next, n.prev = 0, q.last
	if q.last == 0 {
		q.first = at
	} else {
		nodeAt(q.last).next = at
	}
	q.last = at
}

// remove takes n out; under the latch.
//
//go:nosplit // as node.of
func (q *queue) remove(n *node) {
	if n.prev == 0 {
		q.first = n.next
	} else {
		nodeAt(n.prev).next = n.next
	}
	if n.next == 0 {
		q.last = n.prev
	} else {
		nodeAt(n.next).prev = n.prev
	}
	n.queued = false
}

// take takes the first node out whose wait is not over, and its wait is then
// the caller's to resume, after unlatch; nil if there is none. Under the latch.
//
//go:nosplit // as node.of
func (q *queue) take(me *worker) *node {
	for q.first != 0 {
		n := nodeAt(q.first)
		ok := n.claimed(me)
		q.remove(n)
		if ok {
			return n
		}
	}
	return nil
}

// takeAll takes all nodes whose waits are not over, linked by next.
//
//go:nosplit // as node.of
func (q *queue) takeAll(me *worker) (first *node) {
	var last *node
	for n := q.take(me); n != nil; n = q.take(me) {
		n.next = 0
		if last == nil {
			first = n
		} else {
			last.next = uintptr(unsafe.Pointer(n))
		}
		last = n
	}
	return first
}

// claimed has n end its wait, and reports false if that is over, or its
// scheduler is.
//
//go:nosplit // as node.of
func (n *node) claimed(me *worker) bool {
	if w := n.of(); w.local(me) {
		return !w.many || atomic.CompareAndSwapUint32(&w.claim, 0, n.index)
	}
	return n.claimedSlow(me)
}

// open says whether nobody has ended n's wait yet; under the latch.
//
//go:nosplit // as node.of
func (n *node) open() bool {
	w := n.of()
	return !w.many || atomic.LoadUint32(&w.claim) == 0
}

// local says whether the waiter is a fiber of me's scheduler.
//
//go:nosplit // as node.of
func (w *wait) local(me *worker) bool {
	return me != nil && w.core == uintptr(unsafe.Pointer(me.core))
}

//go:nosplit // as node.of
func (n *node) claimedSlow(me *worker) bool {
	c := claiming{node: uintptr(unsafe.Pointer(n))}
	outOf(me, claimFn, unsafe.Pointer(&c))
	return c.ok
}

type claiming struct {
	node uintptr // of a wait that is not local
	ok   bool
}

var claimFn = func(p unsafe.Pointer) {
	c := (*claiming)(p)
	n := nodeAt(c.node)
	w := n.of()
	f := (*fiber)(pointer(w.fiber))
	if f != nil && f.hold() == nil {
		return // Close is about to take n out
	}
	c.ok = !w.many || atomic.CompareAndSwapUint32(&w.claim, 0, n.index)
	if !c.ok && f != nil {
		f.core().letGo()
	}
}

// resume lets the waiter of n, which the caller has taken, go on. n is gone then.
//
//go:nosplit // as node.of
func (n *node) resume(me *worker) {
	w := n.of()
	if w.off && w.local(me) && atomic.LoadUint32(&w.going) == 0 {
		me.readies((*fiber)(pointer(w.fiber)))
		return
	}
	w.resumeSlow(me)
}

//go:nosplit // as node.of
func (w *wait) resumeSlow(me *worker) {
	if w.fiber == 0 {
		outOf(me, signalFn, unsafe.Pointer(&w.word))
		return
	}
	f, local := (*fiber)(pointer(w.fiber)), w.local(me)
	if w.isOff() || f.grant(w.many) {
		if local {
			me.readies(f)
			return
		}
		outOf(me, deliverFn, unsafe.Pointer(f))
	}
	if !local {
		f.core().letGo() // see claimedSlow
	}
}

// isOff says whether w's fiber is off its stack, if need be once it is: that
// takes it some instructions, on another worker.
//
//go:nosplit // as node.of
func (w *wait) isOff() bool {
	if w.off && atomic.LoadUint32(&w.going) != 0 {
		outOf(self(), goneFn, unsafe.Pointer(&w.going))
	}
	return w.off
}

var goneFn = func(p unsafe.Pointer) {
	for i := 0; atomic.LoadUint32((*uint32)(p)) != 0; i++ {
		if i < latchSpins {
			asm.Relax()
		} else {
			latchPause()
		}
	}
}

// resumeAll is resume of nodes that are linked by next.
//
//go:nosplit // as node.of
func (n *node) resumeAll(me *worker) {
	for n != nil {
		next := nodeAt(n.next)
		n.resume(me)
		n = next
	}
}

var signalFn = func(word unsafe.Pointer) {
	atomic.StoreUint32((*uint32)(word), 1)
	futex.Wake((*uint32)(word), 1)
}

// grant resumes f, and reports whether it now belongs to the caller, to be made
// ready. If f is not stopped yet, or always is set, f will find granted set.
//
//go:nosplit // as node.of
func (f *fiber) grant(always bool) bool {
	for {
		word := atomic.LoadUint64(&f.word)
		next := word &^ (asleep | waiting)
		if always || word&asleep == 0 {
			next |= granted
		}
		if atomic.CompareAndSwapUint64(&f.word, word, next) {
			return word&asleep != 0
		}
	}
}
