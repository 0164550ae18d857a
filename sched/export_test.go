package sched

import (
	"sync/atomic"
	"unsafe"
)

// Widen makes the time longer between a worker's last search and its entry in
// the list of idle ones; naive has it sleep then without a second look.
func (s *Scheduler) Widen(naive bool) { s.core.window, s.core.naive = 500, naive }

// Delay makes the time longer between the choice of a worker to wake and its wake.
func (s *Scheduler) Delay() { s.core.late = 2000 }

// CloseAmid is Close that calls f when the workers have ended and the fibers are
// still there.
func (s *Scheduler) CloseAmid(f func()) error {
	s.refuse()
	err := s.wait(patience{})
	s.end(len(s.core.workers))
	f()
	s.free()
	return err
}

// Slots returns how many slots are neither free nor unused.
func (s *Scheduler) Slots() int {
	n := 0
	for class := range s.core.pools {
		n += s.core.pools[class].inUse(s.core, class)
	}
	return n
}

// inUse counts the slots of fibers, of a scheduler whose workers are idle.
func (p *pool) inUse(c *core, class int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	count := func(l uintptr, all bool) {
		for l != 0 {
			k := (*chunk)(pointer(l))
			n += int(k.used)
			if l = k.next; !all {
				return
			}
		}
	}
	count(p.chunk, false)
	count(p.chunks, true)
	for b := p.batches; b != 0; b = b.fiber().prev {
		n -= int(batchOf(class))
	}
	for l := p.odd; l != 0; l = l.fiber().next {
		n--
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for l := c.outside[class]; l != 0; l = l.fiber().next {
		n--
	}
	return n
}

// Forged returns a handle that nobody was given.
func Forged(h Fiber, serial uint64, at uint32) Fiber {
	if at != 0 {
		h.at = link(at)
	}
	h.serial += serial
	return h
}

// NilLink returns the link that a nil *fiber would have.
func NilLink() uint32 { return uint32(-region.base >> linkShift) }

// Threads returns the TIDs of the workers.
func (s *Scheduler) Threads() (tids []int) {
	for _, w := range s.core.workers {
		tids = append(tids, w.thread.TID())
	}
	return tids
}

// Consistent says whether what core.mu guards holds together.
func (s *Scheduler) Consistent() bool {
	c := s.core
	c.mu.Lock()
	defer c.mu.Unlock()
	idle, parked, searching := 0, 0, 0
	for l := c.idle; l != 0 && idle <= len(c.workers); idle++ {
		w := (*worker)(pointer(l))
		if !w.parked || w.searching {
			return false
		}
		l = w.nextIdle
	}
	for _, w := range c.workers {
		if w.parked {
			parked++
			if w.any() || w.bound != 0 || w.current != uintptr(unsafe.Pointer(w.loop)) {
				return false // it has something to do
			}
		}
		if w.searching {
			searching++
		}
	}
	return idle == c.nidle && parked == idle && searching == c.searching
}

// Waiting returns how many nodes are in the queue of c.
func (c *Chan[T]) Waiting() (n int) {
	q := &c.c.q
	q.latch.lock()
	for at := q.first; at != 0; at = nodeAt(at).next {
		n++
	}
	q.latch.unlock()
	return n
}

// Latch takes c's latch, and Unlatch gives it back.
func (c *Chan[T]) Latch()   { c.c.q.latch.lock() }
func (c *Chan[T]) Unlatch() { c.c.q.latch.unlock() }

// Latched says whether somebody has c's latch.
func (c *Chan[T]) Latched() bool { return atomic.LoadUint32((*uint32)(&c.c.q.latch)) != 0 }

// Waiting returns how many nodes are in the queue of t.
func (t *Timer) Waiting() (n int) {
	t.q.latch.lock()
	for at := t.q.first; at != 0; at = nodeAt(at).next {
		n++
	}
	t.q.latch.unlock()
	return n
}

// Waiting returns how many nodes are in the queue of t.
func (t *Token) Waiting() (n int) {
	t.q.latch.lock()
	for at := t.q.first; at != 0; at = nodeAt(at).next {
		n++
	}
	t.q.latch.unlock()
	return n
}

// Waiting0 is Waiting of a channel that can be nil.
func (c *Chan[T]) Waiting0() int {
	if c == nil {
		return 0
	}
	return c.Waiting()
}

// Deserted says that nobody is in the queue of c, without a look at who is.
func (c *Chan[T]) Deserted() bool { return c.c.q.first == 0 && c.c.q.last == 0 }

// Deserted is that of t.
func (t *Token) Deserted() bool { return t.q.first == 0 && t.q.last == 0 }

// Has says whether x is a case of c.
func (c *Chan[T]) Has(x *Case) bool { return x.on == unsafe.Pointer(c) }

// A Queue is the queue of a primitive.
type Queue = queue

// Held says whether somebody has q's latch, Occupied whether somebody is in q.
func (q *queue) Held() bool     { return atomic.LoadUint32((*uint32)(&q.latch)) != 0 }
func (q *queue) Occupied() bool { return q.first != 0 || q.last != 0 }

// Queues of primitives.
func (m *Mutex) Queue() *Queue        { return &m.q }
func (rw *RWMutex) Queues() [2]*Queue { return [2]*Queue{&rw.writers, &rw.readers} }
func (c *Cond) Queue() *Queue         { return &c.q }
func (s *Semaphore) Queue() *Queue    { return &s.q }
func (g *WaitGroup) Queue() *Queue    { return &g.q }
func (g *Group) Queues() [3]*Queue    { return [3]*Queue{&g.q, &g.room.q, &g.token.q} }
func (e *Event) Queue() *Queue        { return &e.q }
func (b *Barrier) Queue() *Queue      { return &b.q }
func (c *Chan[T]) Queue() *Queue      { return &c.c.q }
func (t *Timer) Queue() *Queue        { return &t.q }
func (t *Ticker) Queue() *Queue       { return &t.t.q }
func (t *Token) Queue() *Queue        { return &t.q }
