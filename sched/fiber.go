package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/lwp"
)

// A fiber is the descriptor of a green thread. It lies at the upper end of the
// fiber's own slot, above its stack and its own single, off the Go heap: a switch touches the
// line of the descriptor and the lines next to it at the top of the stack,
// which the hardware fetches together. A slot is two lines more than a power of
// two, so the tops of stacks spread over the sets of the caches without
// padding (colouring).
//
// Descriptors refer to each other by links (region.go). Who may write a field:
//
//	Context, next, prev, flags   whoever the fiber belongs to, see state; but next
//	                             and prev of one that runs while its worker turns,
//	                             the lock of the queue
//	state, worker                as well; read by others with atomic loads
//	word                         anybody, by compare-and-swap
//	serial                       whoever frees the slot
//
// A fiber's stack can run out in any call, also in one of this package, and the
// fiber ends then. So what stands between two steps that belong together (a
// fiber taken off a queue and run, a timer set and waited for) has no check of
// the stack: it is nosplit, and what needs more room goes through worker.call.
//
// The state says who the fiber belongs to:
//
//	state      belongs to                                next states
//	gone       nobody: free, or ended and not joined     runnable
//	runnable   the worker whose current it is, or else   parked, waits, joining, sleeping, blocking, ending
//	           the lock of the queue or list it is in
//	parked...  whoever clears its bit in word            runnable
//	ending     the worker that is about to leave its     gone
//	           stack for the last time
type fiber struct {
	asm.Context
	serial uint64
	word   uint64
	next   ref // no link, for the sake of Yield, whose time is that of following it
	prev   link
	worker link // of the loop of the worker where it is queued, runs, or has run last
	state  uint32
	flags  uint32

	// The second cache line: what a switch does not touch.
	fault     uintptr // *lwp.Fault that it died of; before, one that it got from a Join
	local     uintptr // *locals; of a loop, its *worker
	reason    uintptr // the text of a constant; or, in state waits, *wait
	reasonLen uint32  // of the text; or a why, with isWait
	root      uint32  // what keeps its function and argument reachable, if a goroutine spawned it
	since     uint64  // ticks of the worker's clock when it stopped
	group     uintptr // *Group that it is a member of
	name      [16]byte
}

// States of a fiber.
const (
	gone uint32 = iota // zero: the word that the last switch away from the stack clears
	runnable
	parked
	waits // at a primitive: see wait.go
	joining
	sleeping
	blocking
	ending
)

var stateNames = [...]string{"ended", "ready", "parked", "waiting", "joining", "sleeping", "in a blocking call", "ending"}

// Bits of fiber.flags.
const (
	pinned     = 1 << iota // runs on fiber.worker only
	isLoop                 // it is a worker's own context
	hasFault               // fault is what it died of, or is about to get from a Join
	hasKept                // fault is what it got from a Join
	hasLocals              // local is set
	hasRoot                // root is set
	hasName                // name is set
	hasToken               // it parks, and a Token can end that: prev is how far below the fiber the parking is
	hasGroup               // group is set
	otherClass             // its slot is not of the scheduler's class
	isDue                  // a timer has made it ready, and it is in worker.bound
	hasFaulted             // its function has
)

// fiber.word holds what others do to a fiber, in one word, so that whoever
// does it to a fiber that has ended and whose slot serves another fails:
//
//	bits 37-63  the low bits of serial
//	bit 36      granted: the wait at a primitive is over
//	bit 35      fired: the timer or the blocking call is over
//	bit 34      asleep: whoever sets fired, or would set granted, makes it ready
//	bit 33      waiting: whoever would set token makes it ready instead
//	bit 32      token: one Unpark is due
//	bits 0-31   join word
//
// The join word:
//
//	none             -> noJoin by Detach; the link of a fiber or a waiter by
//	                    Join; over at the end of the fiber
//	a waiter's link  -> over at the end; none when the waiter gives up
//	over             -> taken by the one who joins or detaches, who frees the slot
//	noJoin, a fiber's link   the end frees the slot
const (
	noJoin    = 1
	over      = 2
	taken     = 3
	firstLink = 8 // no fiber has a link below

	joinMask  = 1<<32 - 1
	token     = 1 << 32
	waiting   = 1 << 33
	asleep    = 1 << 34
	fired     = 1 << 35
	granted   = 1 << 36
	wordShift = 37
)

// firstWord is word at the beginning of a life.
func firstWord(serial uint64) uint64 { return serial << wordShift }

// A Fiber is a handle of a green thread: a small value, free to be copied and
// stored anywhere. It carries a generation: when the fiber has been joined and
// its slot serves another, the handle is an error and never another fiber. The
// zero Fiber is no fiber.
type Fiber struct {
	serial uint64
	at     link
}

// handle returns the handle of f.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) handle() Fiber { return Fiber{f.serial, f.link()} }

// lookup returns the descriptor that h leads to, if it still is of h's fiber.
func (h Fiber) lookup() (*fiber, error) {
	if h.serial == 0 || h.at == 0 || region.base == 0 || uint64(h.at) >= uint64(region.span)*spans>>linkShift {
		return nil, ErrNoFiber
	}
	f := h.at.fiber()
	if s := atomic.LoadUint64(&f.serial); s != h.serial {
		if s < h.serial && s != 0 {
			return nil, ErrNoFiber // no handle was ever that
		}
		return nil, ErrJoined
	}
	return f, nil
}

// mine says whether word still is of h's fiber.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (h Fiber) mine(word uint64) bool { return word>>wordShift == h.serial<<wordShift>>wordShift }

// Serial returns the fiber's number, which no other fiber of the same slot has had.
func (h Fiber) Serial() uint64 { return h.serial }

// self returns the worker that the caller runs on, or nil.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func self() *worker { return (*worker)(pointer(asm.Worker())) }

// Current returns the handle of the running fiber; on a goroutine and on a
// thread that is no worker, the zero Fiber.
func Current() Fiber {
	w := self()
	if w == nil || w.idle() {
		return Fiber{}
	}
	return w.running().handle()
}

// noescape hides from the compiler that fn(p) sees p: what is called does not
// keep it, and the stack of a fiber or thread does not move.
//
//go:nosplit // as pointer
func noescape(p unsafe.Pointer) unsafe.Pointer {
	addr := uintptr(p)
	return *(*unsafe.Pointer)(unsafe.Pointer(&addr))
}

// pointer converts the address of something off the Go heap.
//
//go:nosplit // called where locks are held, which an overflow would keep
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

//go:nosplit // called where locks are held, which an overflow would keep
func (f *fiber) setState(s uint32) { asm.StoreRelease(&f.state, s) }

// on returns the worker that f belongs to.
//
//go:nosplit // as setState
func (f *fiber) on() *worker {
	if f.worker == 0 {
		return nil
	}
	return (*worker)(pointer(f.worker.fiber().local))
}

// core returns the scheduler that f's slot belongs to. The caller is a fiber or
// worker of some scheduler that f keeps open, or holds it.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) core() *core {
	return (*core)(pointer(atomic.LoadUintptr(&chunkAt(uintptr(unsafe.Pointer(f))).owner) &^ closedOwner))
}

// closedOwner is the bit of chunk.owner that says that it is not to be held any more.
// Those who do hold it find it until they let go.
const closedOwner = 1

// hold returns the scheduler that f's slot belongs to, which Close then leaves
// in place until it is let go, or nil if it is closed. A core is never unmapped,
// so that it can be touched before it is known to be the right one.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) hold() *core {
	for {
		owner := &chunkAt(uintptr(unsafe.Pointer(f))).owner
		at := atomic.LoadUintptr(owner)
		if at == 0 || at&closedOwner != 0 {
			return nil
		}
		c := (*core)(pointer(at))
		c.users.Add(1)
		if atomic.LoadUintptr(owner) == at {
			return c
		}
		c.users.Add(-1)
	}
}

//go:nosplit // a stack that runs out must not do so here: see fiber
func (c *core) letGo() { c.users.Add(-1) }

// stack returns the bounds of f's stack.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) stack() (lo, hi uintptr) {
	hi = uintptr(unsafe.Pointer(f))
	return hi - sizeOf(f.link().class()), hi - ownRoom
}

// stop notes why and since when f does not run. reason is a constant's text.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (f *fiber) stop(state uint32, reason string, since uint64) {
	f.reason, f.reasonLen = uintptr(unsafe.Pointer(unsafe.StringData(reason))), uint32(len(reason))
	f.since = since
	f.setState(state)
}

// Exit ends the running fiber as a return from its function does. Deferred
// calls do not run.
//
// Context: fiber; elsewhere it is lwp.Exit.
func Exit() {
	w := self()
	if w == nil || w.idle() {
		lwp.Exit()
		return
	}
	_, hi := w.running().stack()
	asm.Leave(hi)
}

// OnWorker returns the number of the worker that the caller runs on, the first
// being 1; 0 on a goroutine and on a thread that is no worker.
func OnWorker() int {
	if w := self(); w != nil {
		return w.id + 1
	}
	return 0
}
