package sched_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
	"lwprt/tls"
)

var nowhere *int

// mistakes are what a fiber can die of.
var mistakes = []struct {
	name   string
	fn     func(*int)
	reason lwp.Reason
	line   string
}{
	{"nil", func(*int) { *nowhere = 1 }, lwp.NilDereference, "sched_test"},
	{"index", func(n *int) { sink[*n+9] = 1 }, lwp.IndexOutOfRange, "sched_test"},
	{"panic", func(*int) { panic("no") }, lwp.Panic, "sched_test"},
	{"heap", func(n *int) { escaped = make([]int, *n+1000) }, lwp.HeapAllocation, "sched_test"},
	{"overflow", func(n *int) { endless(n) }, lwp.StackOverflow, "sched_test.endless"},
	{"abort", func(*int) { lwp.Abort("enough") }, lwp.Explicit, "sched_test"},
}

var (
	sink    [8]int
	escaped []int
)

//go:noinline
func endless(n *int) int {
	if *n < 0 { // never
		return 0
	}
	var room [16]int
	room[*n&15] = endless(n)
	return room[0] + 1
}

func TestFaultEndsTheFiberAlone(t *testing.T) {
	s := begin(t, 2)
	for _, m := range mistakes {
		for _, size := range []int{2 << 10, 8 << 10, 64 << 10, 1 << 20} {
			f := spawnAttr(t, s, m.fn, new(int), sched.Attr{Name: "faulty", StackSize: size})
			var fault *lwp.Fault
			if err := f.Join(); !errors.As(err, &fault) {
				t.Errorf("%s: Join: %v", m.name, err)
				continue
			}
			if fault.Reason != m.reason || !strings.Contains(fault.Stack(), m.line) ||
				!strings.Contains(fault.Error(), "(faulty)") || fault.StackSize != size {
				t.Errorf("%s: %v\n%s", m.name, fault, fault.Stack())
			}
		}
		// Joined by a fiber.
		fam := new(family)
		faultOf = m.fn
		run(t, s, func(f *family) {
			for range 3 {
				c, _ := sched.Go(faultOf, new(int))
				if _, ok := c.Join().(*lwp.Fault); ok {
					f.ran.Add(1)
				}
				c, _ = sched.Go(faultOf, new(int))
				sched.Yield()
				if _, ok := c.Join().(*lwp.Fault); ok {
					f.ran.Add(1)
				}
			}
		}, fam)
		if fam.ran.Load() != 6 {
			t.Errorf("%s: %d of 6 faults came to the joiner", m.name, fam.ran.Load())
		}
	}
	run(t, s, count, new(atomic.Int64))
}

var faultOf func(*int)

// TestOverflowLeavesNeighboursAlone has fibers overflow whose slots lie between
// those of parked ones with a pattern on their stacks.
func TestOverflowLeavesNeighboursAlone(t *testing.T) {
	for _, size := range []int{2 << 10, 4 << 10, 64 << 10} {
		s := beginWith(t, sched.Config{Workers: 1, StackSize: size})
		type plan struct {
			f       [64]sched.Fiber
			mark    [64]mark
			i       int
			overran atomic.Int64
			bad     atomic.Int64
		}
		p := new(plan)
		run(t, s, func(p *plan) {
			for i := range p.f {
				if i%2 == 0 {
					p.mark[i] = mark{uint64(i) * 0x9e3779b97f4a7c15, &p.bad}
					p.f[i], _ = sched.Go(holdPattern, &p.mark[i])
				} else {
					p.f[i], _ = sched.Go(func(p *plan) { endless(&p.i) }, p)
				}
				sched.Yield()
			}
			for i := range p.f {
				if i%2 == 1 && p.f[i].Join() != nil {
					p.overran.Add(1)
				}
			}
			for i := range p.f {
				if i%2 == 0 {
					p.f[i].Unpark()
					p.f[i].Join()
				}
			}
		}, p)
		if p.overran.Load() != 32 || p.bad.Load() != 0 {
			t.Errorf("%d bytes: %d of 32 overflowed, %d patterns are damaged", size, p.overran.Load(), p.bad.Load())
		}
	}
}

type mark struct {
	seed uint64
	bad  *atomic.Int64
}

func holdPattern(m *mark) {
	var room [64]uint64
	for i := range room {
		room[i] = m.seed + uint64(i)
	}
	sched.Park("the overflow")
	for i := range room {
		if room[i] != m.seed+uint64(i) {
			m.bad.Add(1)
		}
	}
}

// TestFaultStorm has many fibers of all workers fault again and again.
func TestFaultStorm(t *testing.T) {
	s := begin(t, 4)
	fam := &family{n: lwptest.Count(20_000, 2000)}
	var fs []sched.Fiber
	for range 4 {
		fs = append(fs, spawn(t, s, func(f *family) {
			for range f.n {
				c, err := sched.Go(func(*family) { *nowhere = 1 }, f)
				if err == nil && c.Join() != nil {
					f.ran.Add(1)
				}
			}
		}, fam))
	}
	for _, f := range fs {
		within(t, "Join", f.Join)
	}
	if got := fam.ran.Load(); got != int64(4*fam.n) {
		t.Errorf("%d of %d faults came to their joiners", got, 4*fam.n)
	}
}

func TestDetachedFaultIsReported(t *testing.T) {
	lwptest.SkipRace(t)
	if lwptest.InChild() {
		s, err := sched.New(sched.Config{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		spawnAttr(t, s, func(*int) { *nowhere = 1 }, nil, sched.Attr{Detached: true})
		within(t, "Close", s.Close)
		return
	}
	out, state := lwptest.Child(t, nil)
	if !state.Success() || !strings.Contains(out, "nil dereference") {
		t.Errorf("%v\n%s", state, out)
	}
}

func TestLWPExitEndsTheFiber(t *testing.T) {
	s := begin(t, 1)
	fam := new(family)
	run(t, s, func(f *family) {
		c, _ := sched.Go(func(f *family) {
			f.ran.Add(1)
			lwp.Exit()
			f.ran.Add(100)
		}, f)
		f.err = noteOf(c.Join())
	}, fam)
	if fam.ran.Load() != 1 || fam.err != 0 {
		t.Errorf("%d, %v", fam.ran.Load(), fam.err.err())
	}
}

func TestFaultInBlockingIsReturned(t *testing.T) {
	s := begin(t, 1)
	fam := &family{n: 100}
	run(t, s, func(f *family) {
		for range f.n {
			if err, ok := sched.Blocking(func(*family) { *nowhere = 1 }, f).(*lwp.Fault); ok && err.Reason == lwp.NilDereference {
				f.ran.Add(1)
			}
			f.err |= noteOf(sched.Blocking(func(*family) { lwp.Exit() }, f))
			f.err2 |= noteOf(sched.Blocking(func(f *family) { f.ran.Add(1) }, f))
		}
	}, fam)
	if fam.err != 0 || fam.err2 != 0 || fam.ran.Load() != int64(2*fam.n) {
		t.Errorf("%v, %v; %d of %d", fam.err.err(), fam.err2.err(), fam.ran.Load(), 2*fam.n)
	}
}

// TestDestructorThatJoinsKeepsTheFault: the fiber's own is what its Join
// returns, not that of a fiber which a destructor joins.
func TestDestructorThatJoinsKeepsTheFault(t *testing.T) {
	s := begin(t, 1)
	key, err := tls.NewKey(func(*uint64) {
		f, err := sched.Go(func(*int) {
			panic("in a child of a destructor")
		}, nil)
		if err == nil {
			f.Join()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	type dying struct {
		key   tls.Key[uint64]
		fault bool
	}
	for _, faults := range []bool{true, false} {
		d := &dying{key, faults}
		f := spawn(t, s, func(d *dying) {
			sched.Set(d.key, 1)
			if d.fault {
				*nowhere = 1
			}
		}, d)
		var fault *lwp.Fault
		switch err := f.Join(); {
		case !faults && err != nil:
			t.Errorf("one that did not fault: %v", err)
		case faults && (!errors.As(err, &fault) || fault.Reason != lwp.NilDereference):
			t.Errorf("one that did: %v", err)
		}
	}
}
