package sched_test

import (
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A dip is a fiber with a small stack that waits at something at some depth,
// and what it waits at.
type dip struct {
	op, pad, depth int
	done           int
	m              sched.Mutex
	rw             sched.RWMutex
	cond           sched.Cond
	sem            sched.Semaphore
	group          sched.WaitGroup
	members        sched.Group
	event          sched.Event
	bar            sched.Barrier
	c, c2          sched.Chan[int]
	t              sched.Timer
	k              sched.Ticker
	token          sched.Token
	target         sched.Fiber
	cases          [3]sched.Case
	v              int
	over           atomic.Uint32
}

// What a dip calls, and what lets it go on.
var dips = []struct {
	name string
	call func(p *dip)
	end  func(p *dip, f sched.Fiber)
}{
	{"Mutex.Lock", func(p *dip) { p.m.Lock() }, func(p *dip, _ sched.Fiber) { p.m.Unlock() }},
	{"Mutex.LockWithin", func(p *dip) { p.m.LockWithin(sched.For(time.Minute)) }, func(p *dip, _ sched.Fiber) { p.m.Unlock() }},
	{"RLock", func(p *dip) { p.rw.RLock() }, func(p *dip, _ sched.Fiber) { p.rw.Unlock() }},
	{"RWMutex.Lock", func(p *dip) { p.rw.Lock() }, func(p *dip, _ sched.Fiber) { p.rw.Unlock() }},
	{"RLockWithin", func(p *dip) { p.rw.RLockWithin(sched.Until(&p.token)) }, func(p *dip, _ sched.Fiber) { p.token.Cancel() }},
	{"Acquire", func(p *dip) { p.sem.Acquire(1) }, func(p *dip, _ sched.Fiber) { p.sem.Release(1) }},
	{"AcquireWithin", func(p *dip) { p.sem.AcquireWithin(1, sched.For(100*time.Microsecond)) }, nil},
	{"Cond.Wait", func(p *dip) { p.m.Lock(); p.cond.Wait(&p.m) }, func(p *dip, _ sched.Fiber) { p.cond.Signal() }},
	{"Cond.WaitWithin", func(p *dip) { p.m.Lock(); p.cond.WaitWithin(&p.m, sched.Until(&p.token)) }, func(p *dip, _ sched.Fiber) { p.token.Cancel() }},
	{"WaitGroup.Wait", func(p *dip) { p.group.Wait() }, func(p *dip, _ sched.Fiber) { p.group.Done() }},
	{"Group.WaitWithin", func(p *dip) { p.members.WaitWithin(sched.For(100 * time.Microsecond)) }, nil},
	{"Event.Wait", func(p *dip) { p.event.Wait() }, func(p *dip, _ sched.Fiber) { p.event.Set() }},
	{"Barrier.Wait", func(p *dip) { p.bar.Wait() }, func(p *dip, _ sched.Fiber) { p.bar.WaitWithin(sched.For(100 * time.Microsecond)) }},
	{"Send", func(p *dip) { p.c.Send(1) }, func(p *dip, _ sched.Fiber) { p.c.Close() }},
	{"Recv", func(p *dip) { p.c.Recv() }, func(p *dip, _ sched.Fiber) { p.c.TrySend(1) }},
	{"SendWithin", func(p *dip) { p.c.SendWithin(1, sched.For(100*time.Microsecond)) }, nil},
	{"RecvWithin", func(p *dip) { p.c.RecvWithin(sched.Until(&p.token)) }, func(p *dip, _ sched.Fiber) { p.token.Cancel() }},
	{"Select", func(p *dip) {
		p.cases = [3]sched.Case{p.c.RecvCase(&p.v), p.c2.RecvCase(&p.v), p.token.Case()}
		sched.Select(p.cases[:]...)
	}, func(p *dip, _ sched.Fiber) { p.c2.TrySend(1) }},
	{"Select of a Timer", func(p *dip) {
		p.t.Reset(50 * time.Microsecond)
		p.cases = [3]sched.Case{p.c.RecvCase(&p.v), p.t.Case(), p.event.Case()}
		sched.Select(p.cases[:]...)
	}, nil},
	{"SelectWithin", func(p *dip) {
		p.cases = [3]sched.Case{p.c.RecvCase(&p.v), p.c2.SendCase(&p.v), p.event.Case()}
		sched.SelectWithin(sched.For(100*time.Microsecond), p.cases[:]...)
	}, nil},
	{"TrySelect of a Timer", func(p *dip) {
		p.t.Reset(0)
		p.cases = [3]sched.Case{p.c.RecvCase(&p.v), p.t.Case(), p.k.Case()}
		sched.TrySelect(p.cases[:]...)
	}, nil},
	{"Timer.Wait", func(p *dip) { p.t.Reset(50 * time.Microsecond); p.t.Wait() }, nil},
	{"Ticker.WaitWithin", func(p *dip) {
		p.k.Reset(time.Minute)
		p.k.WaitWithin(sched.Until(&p.token))
	}, func(p *dip, _ sched.Fiber) { p.token.Cancel() }},
	{"ParkWithin", func(p *dip) { sched.ParkWithin("the test", sched.Limit{Token: &p.token, Timeout: time.Minute}) },
		func(p *dip, f sched.Fiber) { f.Unpark() }},
	{"SleepWithin", func(p *dip) { sched.SleepWithin(time.Minute, sched.Until(&p.token)) }, func(p *dip, _ sched.Fiber) { p.token.Cancel() }},
	{"JoinWithin", func(p *dip) { p.target.JoinWithin(sched.Until(&p.token)) }, func(p *dip, _ sched.Fiber) { p.token.Cancel() }},
	{"AfterFunc", func(p *dip) { sched.AfterFunc(&p.t, time.Hour, func(*dip) {}, p); p.t.Stop() }, nil},
	{"GroupGo", func(p *dip) { sched.GroupGo(&p.members, func(*dip) error { return nil }, p) }, nil},
}

//go:noinline
func (p *dip) descend(n int) int {
	if n > 0 {
		return p.descend(n-1) + 1
	}
	dips[p.op].call(p)
	p.done = 1
	return 0
}

//go:noinline
func (p *dip) padded16() int {
	var room [2]int
	room[p.pad&1] = p.descend(p.depth)
	return room[p.op&1]
}

func falls(p *dip) {
	if p.pad == 0 {
		p.descend(p.depth)
	} else {
		p.padded16()
	}
}

// A sounding is all dips of one call.
type sounding struct {
	op, step  int
	tooDeep   int
	whole     int
	held, bad int // latches, and queues that somebody is in
	p         dip
}

func (d *sounding) all() {
	for pad := range 2 {
		for depth := 0; depth < 3*deepest; depth += d.step {
			d.p = dip{op: d.op, pad: pad, depth: depth}
			d.one(&d.p)
		}
	}
}

func (d *sounding) one(p *dip) {
	end := dips[d.op].end
	switch dips[d.op].name {
	case "Mutex.Lock", "Mutex.LockWithin":
		p.m.Lock()
	case "RLock", "RWMutex.Lock", "RLockWithin":
		p.rw.Lock()
	case "Barrier.Wait":
		p.bar.Init(2)
	case "WaitGroup.Wait":
		p.group.Add(1)
	case "Group.WaitWithin":
		sched.GroupGo(&p.members, func(p *dip) error {
			for p.over.Load() == 0 {
				sched.Yield()
			}
			return nil
		}, p)
	case "JoinWithin":
		p.target, _ = sched.Go(func(p *dip) {
			for p.over.Load() == 0 {
				sched.Yield()
			}
		}, p)
	}
	f, err := sched.GoAttr(falls, p, sched.Attr{StackSize: 2 * sched.MinStackSize})
	if err != nil {
		d.bad++
		return
	}
	for range 4 {
		sched.Yield()
	}
	if end != nil {
		end(p, f)
	}
	switch _, faulted := f.Join().(*lwp.Fault); {
	case faulted:
		d.tooDeep++
	case p.done != 0:
		d.whole++
	}
	p.over.Store(1)
	p.target.Join()
	p.members.Wait()
	d.look(p)
}

// look counts the latches of p that are held, and the queues that somebody is in.
func (d *sounding) look(p *dip) {
	rw, members := p.rw.Queues(), p.members.Queues()
	for _, q := range [...]*sched.Queue{p.m.Queue(), rw[0], rw[1], p.cond.Queue(), p.sem.Queue(), p.group.Queue(), members[0], members[1],
		members[2], p.event.Queue(), p.bar.Queue(), p.c.Queue(), p.c2.Queue(), p.t.Queue(), p.k.Queue(), p.token.Queue()} {
		if q.Held() {
			d.held++
		}
		if q.Occupied() {
			d.bad++
		}
	}
}

// TestEveryWaitAtEveryDepth has a fiber wait at everything, on a small stack,
// at every distance from its end. Where that runs out, no latch is held and
// nothing of the fiber is in any queue.
func TestEveryWaitAtEveryDepth(t *testing.T) {
	s := begin(t, 1)
	over := new(atomic.Bool)
	spawnAttr(t, s, func(over *atomic.Bool) {
		for !over.Load() {
			sched.Yield()
		}
	}, over, sched.Attr{Detached: true})
	for op := range dips {
		d := &sounding{op: op, step: 1}
		if lwptest.Emulated() {
			d.step = 8 // faults take long there
		}
		f := spawnAttr(t, s, (*sounding).all, d, sched.Attr{StackSize: 64 << 10})
		within(t, "Join of the dips into "+dips[op].name, f.Join)
		if d.held != 0 || d.bad != 0 || d.tooDeep == 0 || d.whole == 0 {
			t.Errorf("%s: %d whole, %d faulted; %d latches held, %d queues occupied", dips[op].name, d.whole, d.tooDeep, d.held, d.bad)
		}
	}
	over.Store(true)
}
