package lwp

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// Errors of pools.
var (
	ErrPoolClosed = errors.New("lwp: the pool is closed")
	ErrPoolFull   = errors.New("lwp: all threads of the pool are busy")
	ErrPoolThread = errors.New("lwp: the thread is a pool's, which alone joins it")
)

// A Pool keeps threads that have run their function parked, and lends them
// again: a futex wake in place of a clone. StartAttr with Attr.Pool runs a
// function on one; the handle it returns is of that run, and is joined and
// detached like a thread's. Thread-local storage and exit
// hooks end with the run.
type Pool struct {
	config PoolConfig

	// The parking protocol. A thread that has finished a run first puts itself
	// on idle, then announces the end of the run, then sleeps on its record's
	// start word until that is not parked. A starter takes it off idle, writes
	// job, then sets start and wakes it. Taking off idle under mu makes the
	// starter the only writer; the word holds the news if the thread has not
	// gone to sleep yet. idle comes before the announcement so that a joiner
	// finds the thread when it starts the next run at once.
	mu     futex.Mutex
	idle   uint32 // record of the thread parked last; linked by next
	nidle  int
	n      int // threads
	closed bool
	gone   uint32 // after closed: threads that Close has to join
	left   uint32 // after closed: futex word, counts those
}

// PoolConfig says how a pool is to be. The zero PoolConfig is a pool without bounds.
type PoolConfig struct {
	Attr       Attr // of its threads; without Detached and Pool
	MaxThreads int  // at one time; 0: no bound
	MaxIdle    int  // parked; a thread that would exceed it ends; 0: no bound
}

// Values of record.start of a pooled thread; none is a setup's, as the thread
// can be parked and called again before its first starter has looked.
const (
	parked = setupDone + 1 + iota
	called
	dismissed
)

// unborn is the exit word of a run on a thread that is still to be created.
const unborn = 1 << 31

var pools struct {
	mu   sync.Mutex
	open map[*Pool]struct{} // keeps pools reachable: their threads hold them as addresses
}

// NewPool returns a pool. It has no threads until they are needed.
//
// Context: goroutine.
// Errors: as StartAttr's for config.Attr; ErrAttr, ErrHosted.
func NewPool(config PoolConfig) (*Pool, error) {
	if asm.Current() != nil {
		return nil, ErrHosted
	}
	if err := ready(); err != nil {
		return nil, err
	}
	if config.Attr.Detached || config.Attr.Pool != nil || config.MaxThreads < 0 || config.MaxIdle < 0 {
		return nil, ErrAttr
	}
	if err := config.Attr.check(); err != nil {
		return nil, err
	}
	if config.Attr.FaultPolicy == CrashOnFault {
		crashes.once.Do(startCrashReporter)
	}
	p := &Pool{config: config}
	pools.mu.Lock()
	defer pools.mu.Unlock()
	if pools.open == nil {
		pools.open = map[*Pool]struct{}{}
	}
	pools.open[p] = struct{}{}
	return p, nil
}

// run has a thread of p run t, whose record r is filled in.
func (p *Pool) run(t Thread, r *record) error {
	r.flags |= pooled
	asm.Headroom()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrPoolClosed
	}
	if i := p.idle; i != 0 {
		w := recordAt(i)
		p.idle = w.next
		p.nidle--
		p.mu.Unlock()
		atomic.StoreUint32(&r.exit, atomic.LoadUint32(&w.exit))
		w.job = t.id
		atomic.StoreUint32(&w.start, called)
		futex.Wake(&w.start, 1)
		return nil
	}
	if p.config.MaxThreads > 0 && p.n >= p.config.MaxThreads {
		p.mu.Unlock()
		return ErrPoolFull
	}
	p.n++
	p.mu.Unlock()
	err := p.grow(t, r)
	if err != nil {
		p.leave(0)
	}
	return err
}

// grow creates a thread of p that begins with t.
func (p *Pool) grow(t Thread, r *record) error {
	wt, w, err := alloc()
	if err != nil {
		return err
	}
	w.fn, w.arg = *(*uintptr)(unsafe.Pointer(&poolEntry)), uintptr(unsafe.Pointer(p))
	w.job = t.id
	w.flags |= lent
	atomic.StoreUint32(&r.exit, unborn)
	r.word.Add(1) // the run can end, and its record be used again, before create returns
	if err = wt.create(w, &p.config.Attr); err == nil {
		if tid := atomic.LoadUint32(&w.exit); tid != 0 {
			atomic.CompareAndSwapUint32(&r.exit, unborn, tid)
		}
	} else {
		atomic.StoreUint32(&r.exit, 0)
		w.drop(wt.index(), 1)
	}
	r.drop(t.index(), 1)
	return err
}

var poolEntry = poolMain

// poolMain is what a thread of a pool runs.
func poolMain(p *Pool) {
	c := current()
	w := recordAt(c.index)
	own := c.self
	w.pool = uintptr(unsafe.Pointer(p))
	atomic.StoreUint32(&w.start, parked)
	for {
		run := Thread{w.job}
		r := recordAt(run.index())
		c.self = run
		atomic.CompareAndSwapUint32(&r.exit, unborn, atomic.LoadUint32(&w.exit))
		r.call()
		c.unwind()
		futex.AbandonRobust() // to whoever asked for the run the thread has ended
		c.dying, c.self = false, own
		stays := p.park(c.index)
		run.ended(r)
		if !stays {
			return
		}
		for atomic.LoadUint32(&w.start) == parked {
			futex.Wait(&w.start, parked)
		}
		if atomic.LoadUint32(&w.start) == dismissed {
			p.leave(c.index)
			return
		}
	}
}

// park puts a thread on idle, or says that it has to end.
func (p *Pool) park(i uint32) bool {
	asm.Headroom()
	p.mu.Lock()
	if p.closed || p.config.MaxIdle > 0 && p.nidle >= p.config.MaxIdle {
		p.mu.Unlock()
		p.leave(i)
		return false
	}
	w := recordAt(i)
	atomic.StoreUint32(&w.start, parked)
	w.next, p.idle = p.idle, i
	p.nidle++
	p.mu.Unlock()
	return true
}

// leave counts a thread out; i is its record, 0 if it never came to be. While
// Close waits the thread is left to it, before that to the reaper.
func (p *Pool) leave(i uint32) {
	asm.Headroom()
	p.mu.Lock()
	p.n--
	closed := p.closed
	if closed && i != 0 {
		recordAt(i).next, p.gone = p.gone, i
	}
	if closed {
		atomic.AddUint32(&p.left, 1)
	}
	p.mu.Unlock()
	if closed {
		futex.Wake(&p.left, futex.All)
	} else if i != 0 {
		recordAt(i).state.Or(detached)
	}
}

// ended announces the end of a run: what the kernel does for a thread.
func (t Thread) ended(r *record) {
	r.tid = atomic.LoadUint32(&r.exit)
	r.ends()
	old := r.state.Or(ending)
	// The store comes before the look at the references, and a waiter takes
	// its reference before it looks at the word: one of the two sees the other.
	atomic.StoreUint32(&r.exit, 0)
	r.passOn(1)
	switch {
	case old&detached == 0:
	case r.fault != 0:
		bury(t.index()) // the reaper reports it
	default:
		r.state.Or(collected)
		r.drop(t.index(), 1)
	}
}

// endRun is Exit's part on a pooled thread: the run ends, and the thread too.
func (c *control) endRun() {
	run := c.self
	p := (*Pool)(pointer(recordAt(c.index).pool))
	futex.AbandonRobust()
	p.leave(c.index)
	run.ended(recordAt(run.index()))
	c.self = recordAt(c.index).handle(c.index) // the run's record can serve another now
}

// Close waits until all runs have ended, then ends and joins the pool's threads.
//
// Context: goroutine.
// Errors: ErrPoolClosed on a second call, ErrHosted.
func (p *Pool) Close() error {
	if asm.Current() != nil {
		return ErrHosted
	}
	asm.Headroom()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrPoolClosed
	}
	p.closed = true
	n, i := uint32(p.n), p.idle
	p.idle, p.nidle = 0, 0
	p.mu.Unlock()
	for i != 0 {
		w := recordAt(i)
		i = w.next
		atomic.StoreUint32(&w.start, dismissed)
		futex.Wake(&w.start, 1)
	}
	for v := atomic.LoadUint32(&p.left); v < n; v = atomic.LoadUint32(&p.left) {
		futex.Wait(&p.left, v)
	}
	for i = p.gone; i != 0; {
		w := recordAt(i)
		next := w.next
		w.word.Add(1)
		w.wait(futex.Deadline{})
		w.collect(i)
		i = next
	}
	pools.mu.Lock()
	delete(pools.open, p)
	pools.mu.Unlock()
	return nil
}
