package sched_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A duel is two channels at which two flows meet, each with a Select that would
// send on the one or receive from the other, in opposite orders.
type duel struct {
	a, b *ints
	n    int
}

// A duelist is a side of a duel.
type duelist struct {
	d      *duel
	second bool
	sent   int // how often
	total  int // what in all
	got    int
	gotAll int
	odd    int
}

func duelOn(x *duelist) {
	for i := range x.d.n {
		v, w := i*2+1, -1
		k, err := 0, error(nil)
		if x.second {
			k, err = sched.Select(x.d.b.SendCase(&v), x.d.a.RecvCase(&w))
		} else {
			k, err = sched.Select(x.d.a.SendCase(&v), x.d.b.RecvCase(&w))
		}
		switch {
		case err != nil || k == 0 && w != -1 || v != i*2+1:
			x.odd++
		case k == 0:
			x.sent++
			x.total += v
		case k == 1:
			x.got++
			x.gotAll += w
		}
	}
}

// TestSelectsMeet: where one sends, the other receives; no value is lost or
// taken twice, and neither waits while the other does.
func TestSelectsMeet(t *testing.T) {
	for _, workers := range []int{1, 2} {
		for shift := range 5 {
			t.Run(fmt.Sprintf("workers=%d/%d", workers, shift), func(t *testing.T) {
				crew := newCrew(t, workers)
				// The crew is of fibers of two schedulers, goroutines and threads,
				// in turns; so are those who meet.
				cast := make([]duelist, 10)
				for i := range 5 {
					d := &duel{a: new(ints), b: new(ints), n: lwptest.Count(300, 60)}
					cast[i].d, cast[5+(i+shift)%5].d = d, d
					cast[5+i].second = true
				}
				muster(crew, duelOn, cast)
				crew.end()
				for i := range 5 {
					x, y := cast[i], cast[5+(i+shift)%5]
					if x.sent != y.got || x.got != y.sent || x.total != y.gotAll || x.gotAll != y.total || x.odd+y.odd != 0 {
						t.Errorf("%+v, %+v", x, y)
					}
				}
			})
		}
	}
}

// A cell has one who waits in it, with a Token.
type cell struct {
	c     *ints
	other ints
	token sched.Token
	how   int
	note  atomic.Uint32
	got   int
}

const cellHows = 5

func (p *cell) waits() {
	l := sched.Until(&p.token)
	v, w := 1, 2
	var err error
	switch p.how {
	case 0:
		p.got, err = p.c.RecvWithin(l)
	case 1:
		err = p.c.SendWithin(1, l)
	case 2:
		_, err = sched.SelectWithin(l, p.c.RecvCase(&p.got), p.other.SendCase(&v), p.other.RecvCase(&w))
	case 3:
		_, err = sched.SelectWithin(l, p.c.SendCase(&v), p.other.RecvCase(&w))
	case 4:
		_, err = (*ints)(nil).RecvWithin(l)
	}
	p.note.Store(uint32(noteOf(err)) + 1)
}

func cellOn(p *cell) { p.waits() }

func (p *cell) result() error { return note(p.note.Load() - 1).err() }

// TestTokenEndsEveryWaitOnAChannel: canceled before, meanwhile, at the same time
// as somebody comes, and after.
func TestTokenEndsEveryWaitOnAChannel(t *testing.T) {
	crew := newCrew(t, 2)
	const each = 5 // of the crew, of all kinds
	for when := range 4 {
		for range lwptest.Count(20, 4) {
			cast := make([]cell, cellHows*each)
			for i := range cast {
				cast[i].how = i / each
				cast[i].c = new(ints)
				if when == 0 {
					cast[i].token.Cancel()
				}
			}
			muster(crew, cellOn, cast)
			for i := range cast {
				p := &cast[i]
				if when == 1 || when == 3 || when == 2 && i%2 == 0 {
					lwptest.Eventually(t, "one to wait", func() bool { return p.token.Waiting() == 1 && (p.c.Waiting() == 1 || p.how == 4) })
				}
			}
			came := make([]bool, len(cast))
			for i := range cast {
				p := &cast[i]
				comes := func() {
					switch p.how {
					case 0, 2:
						came[i] = p.c.TrySend(1) == nil
					case 1, 3:
						v, err := p.c.TryRecv()
						came[i] = v == 1 && err == nil
					}
				}
				switch when {
				case 1:
					p.token.Cancel()
				case 2:
					done := make(chan bool)
					go func() {
						comes()
						close(done)
					}()
					p.token.Cancel()
					<-done
				case 3:
					comes()
					p.token.Cancel()
					if !came[i] && p.how != 4 {
						t.Errorf("%d: nobody was there", p.how)
					}
				}
			}
			for _, w := range crew.wait {
				w()
			}
			crew.wait = nil
			for i := range cast {
				p := &cast[i]
				should := sched.ErrCanceled
				if came[i] {
					should = nil
				}
				if p.result() != should || (p.got == 1) != (came[i] && p.how%2 == 0) {
					t.Errorf("%d, %d: %v, want %v; got %d", when, p.how, p.result(), should, p.got)
				}
				if !p.c.Deserted() || !p.other.Deserted() || !p.token.Deserted() {
					t.Errorf("%d, %d: somebody is left", when, p.how)
				}
			}
		}
	}
	crew.end()
}

// A throng waits for the end of one channel.
type throng struct {
	c, d  ints
	token sched.Token
	ended atomic.Int64
	wrong atomic.Int64
}

func (k *throng) receive() {
	if v, ok := k.c.Recv(); ok || v != 0 {
		k.wrong.Add(1)
	}
	k.ended.Add(1)
}

func (k *throng) send() {
	if k.d.Send(1) != sched.ErrChanClosed {
		k.wrong.Add(1)
	}
	k.ended.Add(1)
}

func (k *throng) choose() {
	v, w := 1, 2
	if i, err := sched.SelectWithin(sched.Limit{Timeout: time.Hour, Token: &k.token}, k.c.RecvCase(&v), k.d.SendCase(&w)); i < 0 || err != sched.ErrChanClosed {
		k.wrong.Add(1)
	}
	k.ended.Add(1)
}

// TestStampedeAtAChannel: Close wakes everybody, each once.
func TestStampedeAtAChannel(t *testing.T) {
	for _, workers := range []int{1, 2, 8} {
		s := beginWith(t, sched.Config{Workers: workers, StackSize: 4 << 10})
		s.Hold()
		k := new(throng)
		n := 1000
		if workers == 2 {
			n = lwptest.Count(10_000, 2000)
		}
		for i := range n {
			fn := [](func(*throng)){(*throng).receive, (*throng).send, (*throng).choose}[i%3]
			spawnAttr(t, s, fn, k, sched.Attr{Detached: true, Worker: i % 50 / 49})
		}
		outside := make(chan bool)
		for i := range 40 {
			go func() {
				if i%2 == 0 {
					lwptest.OnThread(t, (*throng).choose, k)
				} else {
					k.receive()
				}
				outside <- true
			}()
		}
		lwptest.Eventually(t, "all to wait", func() bool { return k.c.Waiting()+k.d.Waiting() == n+n/3+60 })
		// From one fiber and one goroutine at the same time.
		closes := func(k *throng) {
			if k.c.Close() != nil {
				k.wrong.Add(1)
			}
		}
		spawnAttr(t, s, closes, k, sched.Attr{Detached: true})
		want(t, "Close", k.d.Close(), nil)
		for range 40 {
			<-outside
		}
		s.Release()
		within(t, "Wait", s.Wait)
		if int(k.ended.Load()) != n+40 || k.wrong.Load() != 0 || !k.c.Deserted() || !k.d.Deserted() || !k.token.Deserted() {
			t.Errorf("%d of %d have ended, %d wrong", k.ended.Load(), n+40, k.wrong.Load())
		}
	}
}

// A guest has a channel in its frame, for one value each way, and is gone as
// soon as it has that.
type guest struct {
	hosts  *sched.Chan[uintptr]
	visits int
	wrong  atomic.Int64
}

func guestOn(g *guest) {
	for i := range g.visits {
		if g.visit(i) != i+1 {
			g.wrong.Add(1)
		}
		if g.scribble() == 0 {
			g.wrong.Add(1)
		}
	}
}

// A room is what lies in the frame of a guest.
type room struct {
	c   ints
	ask int
}

//go:noinline
func (g *guest) visit(i int) int {
	f := room{ask: i}
	g.hosts.Send(uintptr(unsafe.Pointer(&f)))
	v := 0
	if i%2 == 0 {
		v, _ = f.c.Recv()
	} else {
		sched.Select(f.c.RecvCase(&v))
	}
	return v
}

// scribble writes where the frame of visit was.
//
//go:noinline
func (g *guest) scribble() int {
	var full [40]int
	for i := range full {
		full[i] = -1
	}
	return full[g.visits%40]
}

func hostOn(g *guest) {
	for {
		at, ok := g.hosts.Recv()
		if !ok {
			return
		}
		f := *(**room)(unsafe.Pointer(&at))
		if v := f.ask + 1; v%3 == 0 {
			sched.Select(f.c.SendCase(&v))
		} else {
			f.c.Send(v)
		}
	}
}

// TestFrameOfAChannelIsFreeOnceItsValueIsThere: who sends has no more business
// with a channel whose value has been received.
func TestFrameOfAChannelIsFreeOnceItsValueIsThere(t *testing.T) {
	for _, workers := range []int{1, 2, 8} {
		a, b := begin(t, workers), begin(t, workers)
		a.Hold()
		b.Hold()
		hosts := sched.MakeChan[uintptr](4)
		g := &guest{hosts: hosts, visits: lwptest.Count(2000, 300)}
		var guests, servants []sched.Fiber
		for range 8 {
			guests = append(guests, spawn(t, a, guestOn, g))
		}
		for i := range 4 {
			servants = append(servants, spawn(t, []*sched.Scheduler{a, b}[i%2], hostOn, g))
		}
		for _, f := range guests {
			within(t, "Join", f.Join)
		}
		hosts.Close()
		for _, f := range servants {
			within(t, "Join", f.Join)
		}
		a.Release()
		b.Release()
		if n := g.wrong.Load(); n != 0 {
			t.Errorf("%d wrong", n)
		}
	}
}
