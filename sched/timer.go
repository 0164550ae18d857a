package sched

import (
	"time"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// A Timer comes due once after each Reset, never early. That goes to one Wait:
// one that waits, the first of them, or else the next that is made. The zero
// Timer is not set. A Timer contains no pointer; it must not be copied after
// first use, and may be used by any number of fibers, threads and goroutines.
//
// A Timer that nobody waits for is nothing but an instant: to set and to stop it
// costs two readings of the clock, however many there are, and its memory may go
// without a Stop. One with a function, see AfterFunc, stays until it is due or stopped.
type Timer struct {
	_      noCopy
	q      queue // its latch guards all
	e      entry // in a wheel while a fiber waits, or there is a function
	at     int64 // when it is due, or was, if nobody has taken that; 0 if it is not set
	period int64 // of a Ticker
	fn     uintptr
	arg    uintptr
}

// After returns a Timer that is due in d.
//
// Context: anywhere.
func After(d time.Duration) Timer {
	me, _ := here()
	return Timer{at: later(clockNow(me), int64(d))}
}

// Reset sets t to be due in d from now. What it was set to before, and that it
// came due if nobody has taken that yet, is forgotten; who waits goes on waiting.
//
// Context: anywhere.
func (t *Timer) Reset(d time.Duration) {
	me, _ := here()
	me.needRoom()
	t.set(me, later(clockNow(me), int64(d)), 0)
}

// ResetAt is Reset to an instant. One that has passed is due at once, Never is
// Stop. One on the real-time clock is taken as the instant of the monotonic
// clock that it is now.
func (t *Timer) ResetAt(d futex.Deadline) {
	me, _ := here()
	me.needRoom()
	if d == futex.Never {
		t.set(me, 0, 0)
		return
	}
	t.set(me, max(d.Monotonic(), 1), 0)
}

// Stop takes the setting back, and reports whether it has kept t from coming
// due: false if it was due already, taken or not, or not set. Nobody is told of
// it afterwards; who waits goes on waiting. With a function, true says that it
// does not run, and false that it runs, or has.
//
// Context: anywhere.
func (t *Timer) Stop() bool {
	me, _ := here()
	me.needRoom()
	t.q.latch.lock()
	c := t.disarm(me)
	kept := c != nil || t.at != 0 && t.at > clockNow(me)
	t.at, t.fn = 0, 0
	var again *node
	if c != nil && t.q.first != 0 {
		again = t.rehost(me, c)
	}
	t.q.latch.unlock()
	again.resumeAll(me)
	c.settles(me)
	return kept
}

// Wait waits until t is due.
//
// Context: fiber, thread or goroutine; a goroutine keeps its thread while it waits.
// A wait for a Timer that is not set lasts until somebody sets it.
// Ordering: the Reset happens before the return of Wait.
func (t *Timer) Wait() { t.wait(nil, whyTimer) }

// WaitWithin is Wait with a limit.
//
// Errors: ErrTimeout, ErrCanceled.
func (t *Timer) WaitWithin(l Limit) error {
	_, err := t.wait(&l, whyTimer)
	return err
}

// Case is the case of a Select that t is due. That is taken if the Select
// returns this case.
func (t *Timer) Case() Case { return Case{on: unsafe.Pointer(&t.q), ready: timerReady, timed: true} }

//go:nosplit // see latch
func timerReady(on unsafe.Pointer, take bool) bool {
	t := (*Timer)(on)
	me, _ := here()
	now := clockNow(me)
	if !take {
		return t.at != 0 && t.at <= now && t.fn == 0
	}
	return t.take(now) > 0
}

// AfterFunc sets t to have fn(arg) run in d, on a new fiber of the caller's
// scheduler, detached, as Go would. t and what arg leads to must stay where they
// are until then, or until a Stop. A Reset forgets fn. If no memory is there for
// the fiber, it is tried again. Functions that are not due yet do not keep Close
// waiting once all fibers have ended; they do not run then.
//
// Context: fiber.
// Errors: ErrNilFunc, ErrNotFiber.
func AfterFunc[T any](t *Timer, d time.Duration, fn func(*T), arg *T) error {
	return t.after(d, *(*uintptr)(unsafe.Pointer(&fn)), uintptr(unsafe.Pointer(arg)))
}

func (t *Timer) after(d time.Duration, fn, arg uintptr) error {
	me, f := here()
	switch {
	case fn == 0:
		return ErrNilFunc
	case f == nil:
		return ErrNotFiber
	}
	asm.StopRoom()
	t.setFunc(me, int64(d), fn, arg)
	return nil
}

//go:nosplit // see latch
func (t *Timer) setFunc(me *worker, d int64, fn, arg uintptr) {
	t.q.latch.lock()
	c := t.disarm(me)
	t.at, t.period, t.fn, t.arg = 1, 0, fn, arg
	t.q.timed = true
	t.e.owner, t.e.timer = uintptr(unsafe.Pointer(t)), true
	me.core.armIn(me, &t.e, d)
	t.q.latch.unlock()
	c.settles(me)
}

// armOn puts t into c's wheel; under the latch.
//
//go:nosplit // see latch
func (t *Timer) armOn(me *worker, c *core) {
	t.q.timed = true
	t.e.owner, t.e.timer = uintptr(unsafe.Pointer(t)), true
	c.arm(me, &t.e, t.at)
}

// set is Reset to an instant, or Stop for 0.
//
//go:nosplit // see latch
func (t *Timer) set(me *worker, at, period int64) {
	t.q.latch.lock()
	c := t.disarm(me)
	t.at, t.period, t.fn = at, period, 0
	var again *node
	if t.q.first != 0 {
		again = t.rehost(me, c)
	}
	t.q.latch.unlock()
	again.resumeAll(me)
	c.settles(me)
}

// rehost follows a change of t, which was in the wheel of a scheduler or none,
// while somebody waits: it arms t with a scheduler of those, and returns those
// that watched the time themselves, or have to now, which look again. Under the latch.
//
//go:nosplit // see latch
func (t *Timer) rehost(me *worker, was *core) (again *node) {
	armed := t.at == 0
	for at := t.q.first; at != 0; {
		n := nodeAt(at)
		at = n.next
		w := n.of()
		f := (*fiber)(pointer(w.fiber))
		if f != nil && !armed {
			if c := f.hold(); c != nil { // else Close is about to take n out
				t.armOn(me, c)
				c.letGo()
				armed = true
			}
		}
		if f == nil || was != nil && w.core != uintptr(unsafe.Pointer(was)) || t.e.core != 0 && w.core != t.e.core {
			ok := n.claimed(me)
			t.q.remove(n)
			if ok {
				n.next, again = uintptr(unsafe.Pointer(again)), n
			}
		}
	}
	return again
}

// take takes what has come due by now, and returns how often that was; under the latch.
//
//go:nosplit // see latch
func (t *Timer) take(now int64) (times uint64) {
	if t.at == 0 || t.at > now || t.fn != 0 {
		return 0
	}
	if t.period == 0 {
		t.at = 0
		return 1
	}
	n := (now-t.at)/t.period + 1
	t.at = later(t.at, n*t.period)
	return uint64(n)
}

// fire is what a worker does to t when its entry in ts was due and is out;
// under the latch of ts and its own, which it gives back.
func (t *Timer) fire(w *worker, ts *timers, b *batch) {
	if t.fn != 0 {
		f := b.spare.fiber()
		b.spare = 0
		f.prepare(w.core, t.fn, t.arg, &Attr{Detached: true})
		w.stats.spawns++
		w.stats.wakes-- // comesDue counts one
		b.add(f)
		t.at, t.fn = 0, 0
		t.q.latch.unlock()
		return
	}
	var n *node
	if t.at != 0 && t.at <= b.now {
		if n = t.q.take(w); n != nil {
			n.value, n.ok = uintptr(t.take(b.now)), true
		}
	}
	if t.at != 0 && t.q.first != 0 {
		t.e.core = uintptr(unsafe.Pointer(w.core))
		ts.wheel.add(&t.e, t.at)
	}
	t.q.latch.unlock()
	if n == nil {
		return
	}
	if !n.of().local(w) {
		at := &b.others
		for *at != 0 {
			at = &nodeAt(*at).next
		}
		*at, n.next = uintptr(unsafe.Pointer(n)), 0
	} else if f := (*fiber)(pointer(n.of().fiber)); n.of().isOff() || f.grant(n.of().many) {
		b.add(f)
	}
}

// wait waits until t is due, and returns how often it was.
func (t *Timer) wait(l *Limit, reason why) (times uint64, err error) {
	me, f := here()
	me.needRoom()
	if times = t.poll(me); times > 0 {
		return times, nil
	}
	b, err := l.bound()
	if err != nil {
		return 0, err
	}
	if asm.Current() == nil {
		w := newBounded(nil) // t may be on its stack
		return t.waitAs(w, b, reason)
	}
	if f != nil {
		asm.StopRoom()
	}
	var w bounded
	return t.waitAs(&w, b, reason)
}

//go:nosplit // see latch
func (t *Timer) poll(me *worker) (times uint64) {
	now := clockNow(me)
	t.q.latch.lock()
	times = t.take(now)
	t.q.latch.unlock()
	return times
}

// waitAs is wait with w to wait. Who is no fiber of the scheduler in whose wheel t
// is watches the time itself, and looks again when that is up.
func (t *Timer) waitAs(w *bounded, b bound, reason why) (times uint64, err error) {
	for {
		me, f := here()
		w.begin(me, f, true)
		w.claim, w.word, w.token, w.ok = 0, 0, 0, false
		lim := b
		if times = t.enter(me, f, w, &lim); times > 0 {
			return times, nil
		}
		err = w.suspendWithin(me, f, reason, lim, &w.cancel)
		if err == nil {
			if w.ok {
				return uint64(w.value), nil
			}
			continue
		}
		t.leave(&w.node)
		if err != ErrTimeout || lim.at == b.at {
			return 0, err
		}
	}
}

// enter takes what has come due, or puts w's node into the queue.
//
//go:nosplit // see latch
func (t *Timer) enter(me *worker, f *fiber, w *bounded, lim *bound) (times uint64) {
	now := clockNow(me)
	t.q.latch.lock()
	if times = t.take(now); times == 0 {
		lim.at = t.join(me, f, &w.node, lim.at)
	}
	t.q.latch.unlock()
	return times
}

// join puts n, of fiber f or none, into the queue, and arms t if it is the
// first fiber's; under the latch. Who is no fiber, or one of another scheduler,
// which would be taken for a deadlock, has to look again when t is due, which is
// what is returned if it comes before at. If n is taken and not ok, t has changed:
// look again.
//
//go:nosplit // see latch
func (t *Timer) join(me *worker, f *fiber, n *node, at int64) int64 {
	n.ok = false
	t.q.add(n)
	switch {
	case t.at == 0 || t.fn != 0:
	case f != nil && t.e.core == 0:
		t.armOn(me, me.core)
	case f == nil || t.elsewhere(me):
		if at == 0 || t.at < at {
			at = t.at
		}
	}
	return at
}

// elsewhere says whether t is in the wheel of another scheduler than me's.
//
//go:nosplit // see latch
func (t *Timer) elsewhere(me *worker) bool {
	return t.e.core != 0 && t.e.core != uintptr(unsafe.Pointer(me.core))
}

// leave takes n out of the queue, if it is there.
//
//go:nosplit // see latch
func (t *Timer) leave(n *node) {
	me, _ := here()
	t.q.latch.lock()
	var c *core
	if n.queued {
		c = t.q.unqueue(me, n)
	}
	t.q.latch.unlock()
	c.settles(me)
}

// unqueue takes n out of q. The last to leave a Timer takes that out of its wheel,
// whose core is then returned, to settle. Under the latch.
//
//go:nosplit // see latch
func (q *queue) unqueue(me *worker, n *node) (c *core) {
	q.remove(n)
	if q.timed && q.first == 0 {
		l := leaving{timer: uintptr(unsafe.Pointer(q)) - unsafe.Offsetof(Timer{}.q)}
		outOf(me, leavingFn, unsafe.Pointer(&l))
		c = (*core)(pointer(l.core))
	}
	return c
}

type leaving struct{ timer, core uintptr }

var leavingFn = func(p unsafe.Pointer) {
	l := (*leaving)(p)
	if t := (*Timer)(pointer(l.timer)); t.fn == 0 {
		l.core = uintptr(unsafe.Pointer(t.disarm(self())))
	}
}

// A Ticker comes due again and again, at instants that do not drift. Those that
// nobody has waited for are counted, and go to the next Wait together. The zero
// Ticker is stopped. What is said of a Timer's memory and copies holds here.
type Ticker struct{ t Timer }

// Every returns a Ticker that ticks every d, from d from now on; for one that is
// not positive, a stopped one.
//
// Context: anywhere.
func Every(d time.Duration) Ticker {
	if d <= 0 {
		return Ticker{}
	}
	me, _ := here()
	return Ticker{Timer{at: later(clockNow(me), int64(d)), period: int64(d)}}
}

// Reset has t tick every d, from d from now on. Ticks that nobody has waited
// for are forgotten.
//
// Context: anywhere.
// Errors: ErrConfig if d is not positive.
func (t *Ticker) Reset(d time.Duration) error {
	if d <= 0 {
		return ErrConfig
	}
	me, _ := here()
	t.t.set(me, later(clockNow(me), int64(d)), int64(d))
	return nil
}

// Stop has t tick no more; ticks that nobody has waited for are forgotten.
//
// Context: anywhere.
func (t *Ticker) Stop() { t.t.Stop() }

// Wait waits for the next tick, and returns how many there have been since the
// last Wait that returned: more than one if the caller is late.
//
// Context: as Timer.Wait.
func (t *Ticker) Wait() int {
	n, _ := t.t.wait(nil, whyTicker)
	return int(n)
}

// Case is the case of a Select that t has ticked, once or more.
func (t *Ticker) Case() Case { return t.t.Case() }

// WaitWithin is Wait with a limit.
//
// Errors: ErrTimeout, ErrCanceled.
func (t *Ticker) WaitWithin(l Limit) (int, error) {
	n, err := t.t.wait(&l, whyTicker)
	return int(n), err
}
