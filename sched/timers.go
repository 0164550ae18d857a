package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// timers are the instants that a scheduler's fibers wait for: those of fibers
// with a deadline, of Timers that somebody waits for, and of functions that
// are due later. While there are any, it is no deadlock.
//
// A worker that fires a Timer has the latch here and needs the Timer's; who
// changes a Timer has its latch and needs this one. So the worker only tries,
// and comes again.
type timers struct {
	latch latch
	wheel wheel
	first atomic.Int64 // not after the first is due, 0 if there is none; written under the latch
}

// An arming is what arm and disarm take to where there is room.
type arming struct {
	core, e uintptr
	at      int64
	worker  uintptr
	from    bool // at counts from now
	done    bool
}

// arm has e fire in c at an instant of the monotonic clock.
//
//go:nosplit // a stack that runs out must not do so here: see latch
func (c *core) arm(me *worker, e *entry, at int64) {
	a := arming{core: uintptr(unsafe.Pointer(c)), e: uintptr(unsafe.Pointer(e)), at: at, worker: uintptr(unsafe.Pointer(me))}
	outOf(me, armFn, unsafe.Pointer(&a))
}

// armIn is arm for d from now on.
//
//go:nosplit // as arm
func (c *core) armIn(me *worker, e *entry, d int64) {
	a := arming{core: uintptr(unsafe.Pointer(c)), e: uintptr(unsafe.Pointer(e)), at: d, worker: uintptr(unsafe.Pointer(me)), from: true}
	outOf(me, armFn, unsafe.Pointer(&a))
}

// disarm takes e out, if it has not fired, and reports whether it did. A fiber
// that returns from that is not going to be fired at any more.
//
//go:nosplit // as arm
func (c *core) disarm(me *worker, e *entry) bool {
	a := arming{core: uintptr(unsafe.Pointer(c)), e: uintptr(unsafe.Pointer(e))}
	outOf(me, disarmFn, unsafe.Pointer(&a))
	return a.done
}

var (
	armFn = func(p unsafe.Pointer) {
		a := (*arming)(p)
		c, e, me := (*core)(pointer(a.core)), entryAt(a.e), (*worker)(pointer(a.worker))
		t := &c.timers
		if a.from {
			a.at = later(monotonic(), a.at)
		}
		t.latch.lock()
		first := t.first.Load()
		if first == 0 {
			if me != nil && me.core == c {
				t.wheel.now = max(t.wheel.now, me.now.at) // or e would go a long way down
			}
			t.wheel.now = max(t.wheel.now, 1)
		}
		e.core = a.core
		t.wheel.add(e, a.at)
		earlier := first == 0 || e.at < first
		if earlier {
			t.first.Store(e.at)
		}
		t.latch.unlock()
		if first == 0 {
			c.alert(me)
		}
		if earlier && c.resting.Load() != 0 {
			retimeFn(unsafe.Pointer(c))
		}
	}
	disarmFn = func(p unsafe.Pointer) {
		a := (*arming)(p)
		c, e := (*core)(pointer(a.core)), entryAt(a.e)
		t := &c.timers
		t.latch.lock()
		if e.core != 0 {
			t.wheel.remove(e)
			e.core, a.done = 0, true
			if t.wheel.n == 0 {
				t.first.Store(0)
			}
		}
		t.latch.unlock()
	}
)

// disarm takes t out of its wheel, if it is in one, and returns the core of
// that. Who is not on one of its workers has it settle, when no latch is held:
// what is left there may be a deadlock. Under t's latch.
//
//go:nosplit // see latch
func (t *Timer) disarm(me *worker) *core {
	c := (*core)(pointer(t.e.core))
	if c != nil {
		c.disarm(me, &t.e)
	}
	return c
}

// settles has c, if it is one, settle, unless the caller runs there.
//
//go:nosplit // as arm
func (c *core) settles(me *worker) {
	if c != nil && (me == nil || me.core != c) && c.timers.first.Load() == 0 {
		outOf(me, settleFn, unsafe.Pointer(c))
	}
}

var (
	retimeFn = func(c unsafe.Pointer) { (*core)(c).retime((*core)(c).timers.first.Load()) }
	settleFn = func(p unsafe.Pointer) {
		c := (*core)(p)
		c.mu.Lock()
		c.settle()
		c.mu.Unlock()
	}
)

// maxDue bounds how many fibers that a timer has made ready a worker has at a
// time. They are in a list of their own, first come first, which nobody steals
// from; the others' turn comes when those have run, or other workers take them.
const maxDue = 8

// expire fires the timers that are due, the earliest first; on the worker's own stack.
func (t *timers) expire(w *worker) {
	first := t.first.Load()
	if first == 0 || w.early(first) || w.due >= maxDue {
		return
	}
	now := monotonic()
	w.synced(now)
	if first > now {
		return
	}
	b := batch{w: uintptr(unsafe.Pointer(w)), now: now, room: maxDue - w.due}
	for t.fire(&b) {
		// A function is due: it needs a fiber.
		f, errno := w.alloc(w.core.class)
		if errno != 0 {
			break // the next look may find one
		}
		b.spare = f.ref()
	}
	if b.spare != 0 {
		w.release(b.spare.fiber())
	}
	for b.first != 0 {
		f := b.first.fiber()
		b.first = f.next
		w.comesDue(f)
	}
	nodeAt(b.others).resumeAll(w)
	if first = t.first.Load(); first != 0 && first <= now && w.core.resting.Load() != 0 {
		w.core.retime(first)
	}
}

// A batch is what a look at the timers brings.
type batch struct {
	w           uintptr // *worker
	now         int64
	room        int
	first, last ref     // fibers to be made ready, linked by next
	others      uintptr // *node; waiters that are not this scheduler's
	spare       ref     // a fiber for a function
}

func (b *batch) add(f *fiber) {
	f.next = 0
	if b.first == 0 {
		b.first = f.ref()
	} else {
		b.last.fiber().next = f.ref()
	}
	b.last = f.ref()
	b.room--
}

// fire takes what is due into b, and reports true if it stopped because it
// needs a spare fiber.
func (t *timers) fire(b *batch) (wants bool) {
	w := (*worker)(pointer(b.w))
	t.latch.lock()
	for b.room > 0 {
		e := t.wheel.due(b.now)
		if e == nil {
			break
		}
		if !e.timer {
			t.wheel.remove(e)
			e.core = 0
			// From here on e may be gone: the fiber finds fired set.
			if f := (*fiber)(pointer(e.owner)); f.fired() {
				b.add(f)
			}
			continue
		}
		x := (*Timer)(pointer(e.owner))
		if x.fn != 0 && b.spare == 0 {
			wants = true
			break
		}
		if !x.q.latch.try() {
			break
		}
		t.wheel.remove(e)
		e.core = 0
		x.fire(w, t, b)
	}
	at := t.wheel.next()
	if at != t.first.Load() {
		t.first.Store(at)
	}
	t.latch.unlock()
	return wants
}

// drop takes all out at the end of the scheduler, which no fiber of it and no
// worker uses any more. Who waits there nevertheless is of another scheduler,
// and looks again.
func (t *timers) drop() {
	for {
		t.latch.lock()
		e := t.wheel.any()
		if e == nil {
			t.first.Store(0)
			t.latch.unlock()
			return
		}
		var nodes *node
		if !e.timer { // of a fiber that is gone
			t.wheel.remove(e)
		} else if x := (*Timer)(pointer(e.owner)); x.q.latch.try() {
			t.wheel.remove(e)
			e.core = 0
			if x.fn != 0 {
				x.at, x.fn = 0, 0
			}
			nodes = x.q.takeAll(nil)
			x.q.latch.unlock()
		}
		t.latch.unlock()
		nodes.resumeAll(nil)
	}
}

// fired does to f what a timer does that it waits for, and reports whether it
// is the caller's now, to be made ready.
func (f *fiber) fired() bool {
	for {
		word := atomic.LoadUint64(&f.word)
		if atomic.CompareAndSwapUint64(&f.word, word, word&^(waiting|asleep)|fired) {
			return word&asleep != 0
		}
	}
}

// comesDue makes f, which belongs to the caller, ready behind those that have
// come due before it.
func (w *worker) comesDue(f *fiber) {
	if f.flags&pinned != 0 {
		w.readies(f)
		return
	}
	w.stats.wakes++
	f.worker = w.loopLink
	f.flags |= isDue
	w.due++
	w.bind(f)
}

// monotonic reads the clock; on the worker's own stack, which has the room.
func monotonic() int64 {
	if ns, ok := asm.Clock(); ok {
		return ns
	}
	return futex.Monotonic()
}

// clockNow returns the monotonic clock, wherever it is called.
//
//go:nosplit // as core.arm
func clockNow(me *worker) int64 {
	var now int64
	fn := slowNowFn
	if me != nil {
		fn = nowFn
	}
	outOf(me, fn, unsafe.Pointer(&now))
	return now
}

var (
	nowFn     = func(p unsafe.Pointer) { *(*int64)(p) = monotonic() }
	slowNowFn = func(p unsafe.Pointer) { *(*int64)(p) = futex.Monotonic() }
)

// later returns the instant d after at, or the last there is.
//
//go:nosplit // as core.arm
func later(at, d int64) int64 {
	if at += max(d, 0); at <= 0 {
		at = 1<<63 - 1
	}
	return at
}

// clock is what a worker remembers of its last reading of the monotonic clock,
// which can be a system call that costs as much as a hundred switches. It reads
// the cycle counter instead, and the clock only when that says that timerSlack
// may have passed.
type clock struct {
	at    int64  // monotonic clock, in ns
	ticks uint64 // cycle counter
	wait  uint64 // ticks that shall pass before the clock is read again
}

// early says that the clock need not be read for a timer that is due at at.
func (w *worker) early(at int64) bool {
	k := &w.now
	return at > k.at && w.clock-k.ticks < k.wait
}

// synced notes what the clock shows, and how many ticks timerSlack is by the
// time since the last reading.
func (w *worker) synced(now int64) {
	k := &w.now
	if ns, d := now-k.at, w.clock-k.ticks; k.at != 0 && ns > 0 && d < 1<<40 {
		k.wait = d * timerSlack / uint64(ns)
	}
	k.at, k.ticks = now, w.clock
}

// timerSlack is how late, in ns, a worker that is busy may be to fire a timer,
// beside the time that its fibers take for pollInterval switches.
const timerSlack = 50_000
