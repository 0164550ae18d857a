package sched_test

import (
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A probe is a fiber with the smallest stack that makes one call at some depth.
type probe struct {
	op, pad, depth int
	other          sched.Fiber // for the call; made by the one who spawns the probe
	made           sched.Fiber // by the call
	done           int         // the call has returned
	err            note
	ran            atomic.Int64
}

// What a probe calls.
const (
	opYield = iota
	opPark
	opParkFor
	opSleep
	opGo
	opGoAttr
	opJoinReady
	opJoinEnded
	opJoinParked
	opDetach
	opUnpark
	opUnparkPinned
	opYieldTo
	opLocal
	opBlocking
	opExit
	opCurrent
	numOps
)

var opNames = [numOps]string{"Yield", "Park", "ParkFor", "Sleep", "Go", "GoAttr", "Join of a ready fiber", "Join of an ended fiber",
	"Join of a parked fiber", "Detach", "Unpark", "Unpark of a pinned fiber", "YieldTo", "Set", "Blocking", "Exit", "Current"}

func parks(*probe)    { sched.Park("a probe") }
func counts(p *probe) { p.ran.Add(1) }

// calls are functions of their own, whose frames are small without the compiler's help too.
var calls = [numOps]func(*probe){
	opYield:   func(*probe) { sched.Yield() },
	opPark:    func(*probe) { sched.Park("the test") },
	opParkFor: func(*probe) { sched.ParkFor("the test", 10*time.Microsecond) },
	opSleep:   func(*probe) { sched.Sleep(10 * time.Microsecond) },
	opGo: func(p *probe) {
		f, err := sched.Go(counts, p)
		p.made = f // Go needs less of the stack than noteOf
		p.err = noteOf(err)
	},
	opGoAttr: func(p *probe) {
		_, err := sched.GoAttr(counts, p, sched.Attr{Name: "a child", Detached: true, Worker: p.depth & 1})
		p.err = noteOf(err)
	},
	opJoinReady:    joinOther,
	opJoinEnded:    joinOther,
	opJoinParked:   joinOther,
	opDetach:       func(p *probe) { p.err = noteOf(p.other.Detach()) },
	opUnpark:       unparkOther,
	opUnparkPinned: unparkOther,
	opYieldTo: func(p *probe) {
		_, err := sched.YieldTo(p.other)
		p.err = noteOf(err)
	},
	opLocal: func(p *probe) {
		if _, ok := sched.Get(stressKey); ok {
			p.err = 1
			return
		}
		p.err = noteOf(sched.Set(stressKey, 1))
		if v, ok := sched.Get(stressKey); p.err == 0 && (v != 1 || !ok) {
			p.err = 1
		}
	},
	opBlocking: func(p *probe) { p.err = noteOf(sched.Blocking(counts, p)) },
	opExit: func(p *probe) {
		p.done = 1
		sched.Exit()
	},
	opCurrent: func(p *probe) {
		if sched.Current() == (sched.Fiber{}) || sched.OnWorker() != 1 {
			p.err = 1
		}
	},
}

func joinOther(p *probe)   { p.err = noteOf(p.other.Join()) }
func unparkOther(p *probe) { p.err = noteOf(p.other.Unpark()) }

// Frames of several sizes, so that calls begin at every distance from the end
// of the stack that there can be.
//
//go:noinline
func (p *probe) descend(n int) int {
	if n > 0 {
		return p.descend(n-1) + 1
	}
	calls[p.op](p)
	p.done = 1
	return 0
}

//go:noinline
func (p *probe) padded16() int {
	var room [2]int
	room[p.pad&1] = p.descend(p.depth)
	return room[p.op&1]
}

//go:noinline
func (p *probe) padded32() int {
	var room [4]int
	room[p.pad&3] = p.descend(p.depth)
	return room[p.op&3]
}

func dive(p *probe) {
	switch p.pad {
	case 0:
		p.descend(p.depth)
	case 1:
		p.padded16()
	case 2:
		p.padded32()
	}
}

// A dives is all probes of one call, on a fiber with a large stack.
type dives struct {
	op      int
	step    int
	tooDeep int // faults
	shallow int // probes at the least depth that did not work
	bad     int // answers that are wrong
	lost    int // fibers that could not be joined
	p       probe
}

const deepest = 40

func (d *dives) all() {
	for pad := range 3 {
		for depth := 0; depth < deepest; depth += d.step {
			d.p = probe{op: d.op, pad: pad, depth: depth}
			d.one(&d.p)
		}
	}
}

func (d *dives) one(p *probe) {
	switch d.op {
	case opJoinReady, opYieldTo:
		p.other, _ = sched.Go(counts, p)
	case opJoinEnded, opDetach:
		p.other, _ = sched.Go(counts, p)
		for p.ran.Load() == 0 {
			sched.Yield()
		}
	case opJoinParked, opUnpark:
		p.other, _ = sched.Go(parks, p)
	case opUnparkPinned:
		p.other, _ = sched.GoAttr(parks, p, sched.Attr{Worker: 1})
	}
	f, err := sched.GoAttr(dive, p, sched.Attr{StackSize: sched.MinStackSize})
	if err != nil {
		d.bad++
		return
	}
	if d.op != opJoinReady && d.op != opYieldTo {
		for range 4 {
			sched.Yield()
		}
	}
	switch d.op {
	case opPark:
		f.Unpark()
	case opJoinParked:
		p.other.Unpark()
	}
	_, faulted := f.Join().(*lwp.Fault)
	switch {
	case faulted:
		d.tooDeep++
	case p.done == 0 || p.err != 0:
		d.bad++
	}
	if faulted && p.depth == 0 {
		d.shallow++
	}
	// What the call was about is whole, however the call has ended.
	var zero sched.Fiber
	if p.other != zero {
		p.other.Unpark()
		p.other.Join()
	}
	if p.made != zero && p.made.Join() != nil {
		d.lost++
	}
}

// TestEveryCallAtEveryDepth makes every call on the smallest stack, at every
// distance from its end. It works where the function has just begun; where the
// stack runs out, the fiber ends, and nothing else is harmed.
func TestEveryCallAtEveryDepth(t *testing.T) {
	for _, crowd := range []bool{false, true} {
		b := begin(t, 1)
		over := new(atomic.Bool)
		yields := func(over *atomic.Bool) {
			for !over.Load() {
				sched.Yield()
			}
		}
		// One that keeps the worker from looking for work, so that what it looks
		// at now and then is found by that only; and one that has it look each time.
		spawnAttr(t, b, yields, over, sched.Attr{Detached: true})
		if crowd {
			spawnAttr(t, b, yields, over, sched.Attr{Detached: true, Worker: 1})
		}
		for op := range numOps {
			d := &dives{op: op, step: 1}
			if lwptest.Emulated() {
				d.step = 4 // faults take long there
			}
			f := spawnAttr(t, b, (*dives).all, d, sched.Attr{StackSize: 64 << 10})
			within(t, "Join of the dives into "+opNames[op], f.Join)
			if d.bad != 0 || d.shallow != 0 || d.lost != 0 || d.tooDeep == 0 || d.tooDeep == 3*deepest/d.step {
				t.Errorf("%s: %d of %d faulted, %d of them at once; %d wrong, %d lost", opNames[op], d.tooDeep, 3*deepest/d.step, d.shallow, d.bad, d.lost)
			}
		}
		over.Store(true)
	}
}
