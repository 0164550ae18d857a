package sched_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A plunge is a fiber with the smallest stack that makes one call on channels
// at some depth.
type plunge struct {
	call, pad, depth int
	a, b, c, d       ints
	buf              [2]int
	token            sched.Token
	v                [4]int
	done, bad        int
}

var plunges = []struct {
	name string
	// before is done by somebody else before the call, on a fiber that may wait;
	// after while it may wait.
	before func(*plunge)
	call   func(*plunge)
	after  func(*plunge)
}{
	{"Send into the buffer", func(p *plunge) { p.a.Init(p.buf[:]) }, func(p *plunge) { p.expect(p.a.Send(1), nil) }, nil},
	{"Recv from the buffer", func(p *plunge) { p.a.Init(p.buf[:]); p.a.Send(1) }, func(p *plunge) { p.receives() }, nil},
	{"Send that waits", nil, func(p *plunge) { p.expect(p.a.Send(1), nil) }, func(p *plunge) { p.a.TryRecv() }},
	{"Recv that waits", nil, func(p *plunge) { p.receives() }, func(p *plunge) { p.a.TrySend(1) }},
	{"Send to one who waits", func(p *plunge) { p.other((*plunge).receives) }, func(p *plunge) { p.expect(p.a.Send(1), nil) }, nil},
	{"Recv from one who waits", func(p *plunge) { p.other(func(p *plunge) { p.a.Send(1) }) }, func(p *plunge) { p.receives() }, nil},
	{"Send to a Select that waits", func(p *plunge) { p.other((*plunge).chooses2) }, func(p *plunge) { p.expect(p.a.Send(1), nil) }, nil},
	{"SendWithin", nil, func(p *plunge) { p.expect(p.a.SendWithin(1, p.limit()), sched.ErrTimeout) }, nil},
	{"RecvWithin", nil, func(p *plunge) {
		_, err := p.a.RecvWithin(p.limit())
		p.expect(err, sched.ErrTimeout)
	}, nil},
	{"RecvWithin, canceled", nil, func(p *plunge) {
		_, err := p.a.RecvWithin(sched.Until(&p.token))
		p.expect(err, sched.ErrCanceled)
	}, func(p *plunge) { p.token.Cancel() }},
	{"TrySend", nil, func(p *plunge) { p.expect(p.a.TrySend(1), sched.ErrNotReady) }, nil},
	{"TryRecv", nil, func(p *plunge) {
		_, err := p.a.TryRecv()
		p.expect(err, sched.ErrNotReady)
	}, nil},
	{"Close", func(p *plunge) {
		p.other((*plunge).chooses2)
		p.other(func(p *plunge) { p.a.Recv() })
	}, func(p *plunge) { p.expect(p.a.Close(), nil) }, nil},
	{"Select of two that waits", nil, (*plunge).chooses2, func(p *plunge) { p.a.TrySend(1) }},
	{"Select of four that waits", nil, func(p *plunge) {
		_, err := sched.Select(p.a.RecvCase(&p.v[0]), p.b.SendCase(&p.v[1]), p.c.RecvCase(&p.v[2]), p.d.SendCase(&p.v[3]))
		p.expect(err, nil)
	}, func(p *plunge) { p.a.TrySend(1) }},
	{"Select that meets a Select", func(p *plunge) {
		p.other(func(p *plunge) {
			sched.Select(p.b.RecvCase(&p.v[2]), p.a.SendCase(&p.v[3]))
		})
	}, func(p *plunge) {
		_, err := sched.Select(p.a.RecvCase(&p.v[0]), p.b.SendCase(&p.v[1]))
		p.expect(err, nil)
	}, nil},
	{"SelectWithin", nil, func(p *plunge) {
		_, err := sched.SelectWithin(p.limit(), p.a.RecvCase(&p.v[0]), p.b.SendCase(&p.v[1]))
		p.expect(err, sched.ErrTimeout)
	}, nil},
	{"TrySelect", nil, func(p *plunge) {
		_, err := sched.TrySelect(p.a.RecvCase(&p.v[0]), p.b.SendCase(&p.v[1]))
		p.expect(err, sched.ErrNotReady)
	}, nil},
}

func (p *plunge) expect(got, want error) {
	if got != want {
		p.bad++
	}
}

func (p *plunge) receives() {
	if v, ok := p.a.Recv(); !ok || v != 1 {
		p.bad++
	}
}

func (p *plunge) chooses2() {
	if _, err := sched.Select(p.a.RecvCase(&p.v[0]), p.b.SendCase(&p.v[1])); err != nil && err != sched.ErrChanClosed {
		p.bad++
	}
}

func (p *plunge) limit() sched.Limit {
	return sched.Limit{Timeout: 10 * time.Microsecond, Token: &p.token}
}

// other has fn(p) run on a fiber until it waits.
func (p *plunge) other(fn func(*plunge)) {
	if _, err := sched.GoAttr(fn, p, sched.Attr{Detached: true, StackSize: 8 << 10}); err != nil {
		p.bad++
	}
	for range 4 {
		sched.Yield()
	}
}

//go:noinline
func (p *plunge) descend(n int) int {
	if n > 0 {
		return p.descend(n-1) + 1
	}
	plunges[p.call].call(p)
	p.done = 1
	return 0
}

//go:noinline
func (p *plunge) padded16() int {
	var room [2]int
	room[p.pad&1] = p.descend(p.depth)
	return room[p.call&1]
}

//go:noinline
func (p *plunge) padded32() int {
	var room [4]int
	room[p.pad&3] = p.descend(p.depth)
	return room[p.call&3]
}

func plungeOn(p *plunge) {
	switch p.pad {
	case 0:
		p.descend(p.depth)
	case 1:
		p.padded16()
	case 2:
		p.padded32()
	}
}

// A pool is all plunges of one call.
type pool struct {
	call, step             int
	tooDeep, shallow, bad  int
	latched, left, strange int
	p                      plunge
}

func poolOn(o *pool) {
	x := &plunges[o.call]
	for pad := range 3 {
		for depth := 0; depth < deepest; depth += o.step {
			o.p = plunge{call: o.call, pad: pad, depth: depth}
			p := &o.p
			if x.before != nil {
				x.before(p)
			}
			f, err := sched.GoAttr(plungeOn, p, sched.Attr{StackSize: sched.MinStackSize})
			if err != nil {
				o.strange++
				return
			}
			for range 8 {
				sched.Yield()
			}
			if x.after != nil {
				x.after(p)
			}
			_, faulted := f.Join().(*lwp.Fault)
			switch {
			case faulted:
				o.tooDeep++
				if depth == 0 && pad == 0 {
					o.shallow++
				}
			case p.done == 0:
				o.strange++
			}
			// However it has ended, nobody has the latches, and nobody who is gone waits.
			if p.a.Latched() || p.b.Latched() || p.c.Latched() || p.d.Latched() {
				o.latched++
				return
			}
			p.a.Close()
			p.b.Close()
			for range 8 {
				sched.Yield()
			}
			if !p.a.Deserted() || !p.b.Deserted() || !p.c.Deserted() || !p.d.Deserted() || !p.token.Deserted() {
				o.left++
				return
			}
			if !faulted {
				o.bad += p.bad
			}
		}
	}
}

// TestEveryChannelCallAtEveryDepth makes every call on the smallest stack, at
// every distance from its end: where the stack runs out, no latch is held, and
// no place in a queue is left to one who is gone. A Select of four needs more
// than the smallest stack has; unoptimized, all Selects do, and limits.
func TestEveryChannelCallAtEveryDepth(t *testing.T) {
	s := begin(t, 1)
	for call := range plunges {
		o := &pool{call: call, step: 1}
		if lwptest.Emulated() {
			o.step = 4
		}
		f := spawnAttr(t, s, poolOn, o, sched.Attr{StackSize: 64 << 10})
		within(t, "Join of the plunges into "+plunges[call].name, f.Join)
		if o.latched+o.left+o.strange+o.bad != 0 || o.tooDeep == 0 || o.shallow != 0 && !large(plunges[call].name) {
			t.Errorf("%s: %d of %d faulted, %d of them at once; %d latches held, %d left in a queue, %d strange, %d wrong", plunges[call].name,
				o.tooDeep, 3*deepest/o.step, o.shallow, o.latched, o.left, o.strange, o.bad)
		} else {
			t.Logf("%s: %d of %d faulted, %d at once", plunges[call].name, o.tooDeep, 3*deepest/o.step, o.shallow)
		}
	}
}

func large(name string) bool {
	return strings.Contains(name, "Select") || strings.Contains(name, "Within")
}

// A diver is a thread that makes one call near the end of its stack, with which
// somebody is woken who waits.
type diver struct {
	call, depth, done int
	a, b              ints
	token             sched.Token
	v                 [2]int
	ended             atomic.Int64
}

var divers = []struct {
	name string
	fn   func(*diver)
}{
	{"nothing", func(*diver) {}},
	{"Send", func(p *diver) { p.a.Send(1) }},
	{"TrySend", func(p *diver) { p.a.TrySend(1) }},
	{"SendWithin", func(p *diver) { p.a.SendWithin(1, sched.For(time.Hour)) }},
	{"Select", func(p *diver) { sched.Select(p.a.SendCase(&p.v[0]), p.b.RecvCase(&p.v[1])) }},
	{"TrySelect", func(p *diver) { sched.TrySelect(p.a.SendCase(&p.v[0]), p.b.RecvCase(&p.v[1])) }},
	{"Close", func(p *diver) { p.a.Close() }},
	{"Cancel", func(p *diver) { p.token.Cancel() }},
}

//go:noinline
func (p *diver) descend(n int) int {
	if n > 0 {
		return p.descend(n-1) + 1
	}
	divers[p.call].fn(p)
	p.done = 1
	return 0
}

func diverOn(p *diver) { p.descend(p.depth) }

func (p *diver) waits() {
	p.a.RecvWithin(sched.Until(&p.token))
	p.ended.Add(1)
}

// dive has p's call made on a thread, and reports whether its stack has run out.
func (p *diver) dive(t *testing.T) bool {
	th, err := lwp.StartAttr(diverOn, p, lwp.Attr{StackSize: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	_, faulted := th.Join().(*lwp.Fault)
	return faulted
}

// TestThreadOverflowsBeforeItWakes: a thread whose stack runs out in a call has
// either not begun to wake somebody, or is done with it, and holds no latch.
func TestThreadOverflowsBeforeItWakes(t *testing.T) {
	s := begin(t, 1)
	s.Hold()
	defer s.Release()
	deepest := 0
	for !(&diver{depth: deepest}).dive(t) {
		deepest++
	}
	for call := range divers {
		if call == 0 {
			continue
		}
		shallow, deep := 0, 0
		for depth := deepest - 120; depth <= deepest; depth += lwptest.Count(1, 3) {
			p := &diver{call: call, depth: depth}
			f := spawn(t, s, (*diver).waits, p)
			done := make(chan bool)
			go func() {
				p.waits()
				close(done)
			}()
			lwptest.Eventually(t, "two to wait", func() bool { return p.a.Waiting() == 2 && p.token.Waiting() == 2 })
			if p.dive(t) {
				deep++
			} else {
				shallow++
			}
			// Who was woken may be on its way out of a queue.
			lwptest.Eventually(t, "the latches after "+divers[call].name, func() bool { return !p.a.Latched() && !p.b.Latched() })
			if !p.a.Deserted() {
				p.token.Cancel()
			}
			within(t, "Join after "+divers[call].name, func() error { return f.JoinFor(20 * time.Second) })
			lwptest.Within(t, "the goroutine", func() { <-done })
			if p.ended.Load() != 2 {
				t.Errorf("%s: %d have ended", divers[call].name, p.ended.Load())
			}
		}
		if shallow == 0 || deep == 0 {
			t.Errorf("%s: %d faulted, %d did not", divers[call].name, deep, shallow)
		}
	}
}
