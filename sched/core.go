package sched

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
)

// core is the part of a scheduler that its workers see, off the Go heap.
//
// # How workers sleep and are woken
//
// A worker that finds nothing puts itself on the list of idle workers, looks
// once more, and sleeps. Whoever makes a fiber ready wakes one. Between the two
// a wake-up can be lost:
//
//	worker: finds every queue empty
//	                                  another: adds a fiber; nobody is idle, so nobody is woken
//	worker: is idle now, sleeps
//
// The second look closes that gap if it cannot happen that the one misses the
// fiber and the other misses the idle worker. Both are a store followed by a
// load of what the other stores, so there has to be a fence between them on
// both sides. The one who adds a fiber does so fifty million times a second: it
// stores the queue's links and its lock word, then loads hungry, without a
// fence; so does whoever moves a fiber from one place of the queue to the other,
// where a look at both can miss it. The worker that goes to sleep pays for both:
//
//  1. under mu: on the list; hungry is set, if nobody is searching
//  2. asm.Fence: what others stored before they loaded the old hungry is visible
//  3. look at all queues, the injector, the inbox, the timers: if there is
//     anything, off the list and back to work
//  4. sleep on the futex word wake, which holds the news if it is set before
//
// hungry is 1 if a worker is idle and none is searching. One who searches is
// counted before it sleeps no more, and looks at everything before it sleeps
// again, so while there is one, nobody has to be woken; and since several
// fibers may have come meanwhile, one who has found something wakes the next.
// Who finds hungry set takes mu, takes a worker off the list, counts it as
// searching and wakes it.
//
// TestNaiveParkingLosesWakeups runs the version without steps 2 and 3.
type core struct {
	mu        futex.Mutex
	idle      uintptr // *worker, linked by nextIdle
	nidle     int
	searching int
	stopped   bool    // workers are to end
	keeperOf  uintptr // *worker, the idle one that wakes for timers
	keeperAt  int64
	started   uint64 // fibers spawned from outside
	holds     int
	trimmed   bool    // nothing has run since trimIdle
	waiters   uintptr // *waiter
	first     ref     // injected fibers, oldest first
	last      ref

	_        [64]byte
	hungry   atomic.Uint32 // this and closing are asm.Shared
	resting  atomic.Int32  // nidle, for who has a timer
	closing  uint32        // nothing new is accepted; written under mu
	injected atomic.Uint32 // how many; written under mu
	blocked  atomic.Int32  // calls of Blocking that are under way
	users    atomic.Int32  // see fiber.hold
	workers  []*worker     // constant; so are
	class    int
	spins    bool
	unfenced bool   // Fence does not work here
	naive    bool   // for a test: steps 2 and 3 are left out
	window   uint16 // for a test: how long it is from the last search to step 1
	late     uint16 // for a test: how long wakes are on their way

	outside [classes]ref // free slots for Spawn, linked by next; under mu
	pools   [classes]pool
	timers  timers
	helpers helpers
	ws      unsafe.Pointer // the workers' memory
	made    int            // workers there
}

// reset makes c, of a closed scheduler, as it was at first, but for users: who
// comes too late counts itself there before it finds out.
func (c *core) reset() {
	c.idle, c.nidle, c.searching, c.stopped, c.keeperOf, c.keeperAt = 0, 0, 0, false, 0, 0
	c.started, c.holds, c.trimmed, c.waiters, c.first, c.last = 0, 0, false, 0, 0, 0
	c.hungry.Store(0)
	c.resting.Store(0)
	c.closing = 0
	c.injected.Store(0)
	c.blocked.Store(0)
	c.workers, c.class, c.spins, c.unfenced, c.naive, c.window, c.late = nil, 0, false, false, false, 0, 0
	c.outside = [classes]ref{}
	c.timers, c.helpers = timers{}, helpers{}
	c.ws, c.made = nil, 0
}

// anything says whether there may be work for w; without a lock.
func (c *core) anything(w *worker) bool {
	if c.injected.Load() != 0 || atomic.LoadUint32(&w.claimed)&attention != 0 {
		return true
	}
	for _, v := range c.workers {
		if v.any() {
			return true
		}
	}
	return false
}

// setHungry follows a change of idle or searching; under mu.
func (c *core) setHungry() {
	c.resting.Store(int32(c.nidle))
	if c.unfenced {
		return // always 1: who adds a fiber looks under mu
	}
	if c.nidle > 0 && c.searching == 0 {
		c.hungry.Store(1)
	} else {
		c.hungry.Store(0)
	}
}

// search counts w as searching, unless another is.
func (c *core) search(w *worker) bool {
	c.mu.Lock()
	ok := c.searching == 0
	if ok {
		c.searching++
		w.searching = true
		c.setHungry()
	}
	c.mu.Unlock()
	return ok
}

// found says that w, which was searching, has work, and wakes the next.
func (c *core) found(w *worker) {
	c.mu.Lock()
	w.searching = false
	c.searching--
	v := c.next()
	c.mu.Unlock()
	v.rouse()
}

// feed wakes a worker if one is idle and none is searching.
func (c *core) feed() {
	c.mu.Lock()
	v := c.next()
	c.mu.Unlock()
	v.rouse()
}

// next takes a worker off the list that is to search, or returns nil if none is
// needed; under mu. The caller rouses it after mu.
func (c *core) next() *worker {
	if c.nidle == 0 || c.searching > 0 {
		c.setHungry()
		return nil
	}
	w := (*worker)(pointer(c.idle))
	if c.idle == c.keeperOf && w.nextIdle != 0 {
		w = (*worker)(pointer(w.nextIdle)) // rather not the one that waits for a timer
	}
	c.unpark(w)
	return w
}

// unpark takes w off the list, if it is there, and counts it as searching;
// under mu. The caller rouses it after mu if the result is true.
func (c *core) unpark(w *worker) bool {
	if !w.parked {
		return false
	}
	for at := &c.idle; ; at = &(*worker)(pointer(*at)).nextIdle {
		if *at == uintptr(unsafe.Pointer(w)) {
			*at = w.nextIdle
			break
		}
	}
	w.parked = false
	if c.keeperOf == uintptr(unsafe.Pointer(w)) {
		c.keeperOf = 0
	}
	c.nidle--
	c.trimmed = false
	w.searching = true
	c.searching++
	c.setHungry()
	return true
}

// rouse lets w, which unpark has taken off the list, wake up.
func (w *worker) rouse() {
	if w != nil {
		for range w.core.late {
			asm.Relax()
		}
		atomic.StoreUint32(&w.wake, 1)
		futex.Wake(&w.wake, 1)
	}
}

// park suspends w until there may be work for it, and reports false when it is
// to end.
func (c *core) park(w *worker) bool {
	w.flush()
	for range c.window {
		asm.Relax()
	}
	c.mu.Lock()
	if w.searching {
		w.searching = false
		c.searching--
	}
	if c.stopped {
		c.setHungry()
		c.mu.Unlock()
		return false
	}
	atomic.StoreUint32(&w.wake, 0)
	w.parked = true
	w.nextIdle, c.idle = c.idle, uintptr(unsafe.Pointer(w))
	c.nidle++
	c.setHungry()
	c.mu.Unlock()

	if !c.naive {
		asm.Fence()
	}
	if !c.naive && c.anything(w) {
		c.mu.Lock()
		c.unpark(w) // or somebody else has, which is as good
		c.mu.Unlock()
		return true
	}

	c.mu.Lock()
	at := int64(0)
	if w.parked {
		if first := c.timers.first.Load(); first != 0 && c.keeperOf == 0 {
			c.keeperOf, c.keeperAt, at = uintptr(unsafe.Pointer(w)), first, first
		}
		c.settle()
	}
	last := w.parked && c.nidle == len(c.workers) && !c.trimmed
	c.mu.Unlock()
	w.stats.idles++
	woken := false
	if at == 0 && last {
		if woken = w.sleep(futex.After(trimDelay)); !woken {
			c.trimIdle()
		}
	}
	d := futex.Never
	if at != 0 {
		d = futex.AtMonotonic(at)
	}
	if !woken {
		w.sleep(d)
	}
	// Who wakes w has taken it off the list. But the time may be up; or it was
	// woken by one who took it off before it last came back from step 3, without
	// sleep, and who was slow to set wake.
	if w.parked {
		c.mu.Lock()
		c.unpark(w)
		c.mu.Unlock()
	}
	return true
}

// sleep waits until w is woken or the deadline has passed, and reports which.
func (w *worker) sleep(d futex.Deadline) (woken bool) {
	for atomic.LoadUint32(&w.wake) == 0 {
		if out, _ := futex.WaitUntil(&w.wake, 0, d); out == futex.TimedOut {
			return atomic.LoadUint32(&w.wake) != 0
		}
	}
	return true
}

// trimDelay is how long all workers are idle before memory that no fiber uses
// goes back to the kernel.
const trimDelay = time.Second

// trimIdle is Trim, once until somebody works again.
func (c *core) trimIdle() {
	c.mu.Lock()
	c.trimmed = true
	c.mu.Unlock()
	c.trim()
}

// trim gives memory that no fiber uses back to the kernel.
func (c *core) trim() (bytes int) {
	for class := range c.pools {
		c.mu.Lock()
		list := c.outside[class]
		c.outside[class] = 0
		c.mu.Unlock()
		for list != 0 {
			f := list.fiber()
			list = f.next
			c.pools[class].putOne(f)
		}
		bytes += c.pools[class].trim(class)
	}
	return bytes
}

// retime sees to it that somebody wakes for a timer that has become the first.
func (c *core) retime(at int64) {
	c.mu.Lock()
	var w *worker
	if at != 0 && c.nidle > 0 && (c.keeperOf == 0 || c.keeperAt > at) {
		if w = (*worker)(pointer(c.keeperOf)); w == nil {
			w = (*worker)(pointer(c.idle))
		}
		c.unpark(w)
	}
	c.mu.Unlock()
	w.rouse()
}

// inject makes f, which belongs to the caller, ready for any worker.
func (c *core) inject(f *fiber) {
	c.mu.Lock()
	v := c.injectLocked(f)
	c.mu.Unlock()
	v.rouse()
}

// injectLocked is inject under mu; the caller rouses the result after mu.
func (c *core) injectLocked(f *fiber) *worker {
	f.next, f.worker = 0, 0
	f.setState(runnable)
	l := f.ref()
	if c.last == 0 {
		c.first = l
	} else {
		c.last.fiber().next = l
	}
	c.last = l
	if c.injected.Add(1) == 1 {
		c.alert(nil)
	}
	return c.next()
}

// maxInjected bounds how many injected fibers a worker takes at a time.
const maxInjected = 64

// takeInjected moves some injected fibers, a fair share, to w's queue.
func (w *worker) takeInjected() {
	c := w.core
	c.mu.Lock()
	n := min(int(c.injected.Load())/len(c.workers)+1, maxInjected, int(c.injected.Load()))
	first := c.first
	for range n {
		f := c.first.fiber()
		c.first = f.next
		f.worker = w.loopLink
	}
	if c.first == 0 {
		c.last = 0
	}
	c.injected.Add(-uint32(n))
	c.mu.Unlock()
	if n == 0 {
		return
	}
	w.enter()
	for l := first; n > 0; n-- {
		f := l.fiber()
		l = f.next
		w.push(f)
	}
	w.leave()
	if c.hungry.Load() != 0 {
		c.feed()
	}
}

// live returns how many fibers have begun and not ended; under mu, while all
// workers are idle.
func (c *core) live() int {
	n := c.started
	for _, w := range c.workers {
		n += w.stats.spawns - w.stats.ends
	}
	return int(n)
}

// settle tells those who wait what has become of the fibers; under mu, when all
// workers are idle, or Close ends them and nobody else will tell who is late.
func (c *core) settle() {
	if c.stopped {
		c.tellAll()
		return
	}
	if c.nidle < len(c.workers) || c.injected.Load() != 0 || c.blocked.Load() != 0 {
		return
	}
	for _, w := range c.workers {
		if w.inbox != 0 { // came before w was idle, which takes its second look yet
			return
		}
	}
	if c.live() == 0 || c.holds == 0 && c.timers.first.Load() == 0 {
		c.tellAll()
	}
}

// tellAll is settle once it is certain that nothing can go on.
func (c *core) tellAll() {
	result := uint32(allEnded)
	if c.live() > 0 {
		result = stuck
	}
	for w := (*waiter)(pointer(c.waiters)); w != nil; w = (*waiter)(pointer(w.next)) {
		if result == stuck || w.all {
			w.tell(result)
		}
	}
}

// mmap returns zeroed memory off the Go heap.
func mmap(size uintptr) (unsafe.Pointer, error) {
	addr, _, errno := unix.RawSyscall6(unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	if errno != 0 {
		return nil, &Error{"mmap", errno}
	}
	return pointer(addr), nil
}

func munmap(p unsafe.Pointer, size uintptr) {
	unix.RawSyscall(unix.SYS_MUNMAP, uintptr(p), size, 0)
}
