package sched_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A deal is one call on a channel in a short history, and what it came to.
type deal struct {
	begin, end int64
	op         uint8
	how        uint8
	value      uint8
	actor      uint8
}

// Kinds of deals.
const (
	dealSend = iota
	dealRecv
	dealTrySend
	dealTryRecv
	dealClose
)

func (d deal) String() string {
	return fmt.Sprintf("%3d-%3d actor %d: %s %d: %s", d.begin, d.end, d.actor,
		[...]string{"Send", "Recv", "TrySend", "TryRecv", "Close"}[d.op], d.value, [...]string{"done", "not done", "closed", "nil", "odd"}[d.how])
}

const (
	dealers   = 5
	dealsEach = 3
)

// A fair is a row of short histories.
type fair struct {
	stamp atomic.Int64
	bar   sched.Barrier
	c     []*ints
	deals [][dealers][dealsEach]deal
}

type dealer struct {
	f    *fair
	id   int
	seed uint64
}

func dealOn(a *dealer) {
	f, x := a.f, &a.seed
	for r := range f.deals {
		f.bar.Wait()
		c := f.c[r]
		for n := range dealsEach {
			d := &f.deals[r][a.id][n]
			what := random(x)
			v := a.id*dealsEach + n + 1
			*d = deal{actor: uint8(a.id)}
			if what>>32%3 == 0 {
				sched.Yield()
			}
			limit := sched.For(time.Duration(what >> 40 % 40_000))
			var err error
			d.begin = f.stamp.Add(1)
			switch what % 13 {
			case 0:
				d.op, err = dealClose, c.Close()
			case 1, 2:
				d.op, err = dealTrySend, c.TrySend(v)
			case 3, 4:
				d.op = dealTryRecv
				v, err = c.TryRecv()
			case 5, 6:
				d.op, err = dealSend, c.SendWithin(v, limit)
			case 7, 8:
				d.op = dealRecv
				v, err = c.RecvWithin(limit)
			case 9, 10:
				d.op = dealSend
				_, err = sched.SelectWithin(limit, c.SendCase(&v), sched.Case{})
			default:
				d.op = dealRecv
				_, err = sched.SelectWithin(limit, c.RecvCase(&v))
			}
			d.end = f.stamp.Add(1)
			d.value, d.how = uint8(v), answered(0, err).how
		}
	}
}

// A shelf is the state of a channel: at most two values, and whether it is closed.
type shelf struct {
	v      [2]uint8
	n      int
	closed bool
}

// does is what d does to a channel alone, if it can.
func (s shelf) does(d deal, room int) (shelf, bool) {
	if d.how == closed {
		return s, s.closed && (d.op != dealRecv && d.op != dealTryRecv || s.n == 0)
	}
	switch d.op {
	case dealClose:
		ok := !s.closed && d.how == works
		s.closed = true
		return s, ok
	case dealSend, dealTrySend:
		if d.how == blocks { // in time, or nobody was there
			return s, d.op == dealSend || !s.closed && s.n == room
		}
		if s.closed || s.n == room {
			return s, false
		}
		s.v[s.n] = d.value
		s.n++
		return s, d.how == works
	}
	if d.how == blocks {
		return s, d.op == dealRecv || !s.closed && s.n == 0
	}
	if s.n == 0 || s.v[0] != d.value {
		return s, false
	}
	s.v[0], s.v[1] = s.v[1], 0
	s.n--
	return s, d.how == works
}

// meets says whether a is the Send whose value b receives.
func (a deal) meets(b deal) bool {
	return a.how == works && b.how == works && (a.op == dealSend || a.op == dealTrySend) && (b.op == dealRecv || b.op == dealTryRecv) && a.value == b.value
}

// fits says whether there is an order in which a channel does what deals say.
func fits(deals []deal, room int) bool {
	type at struct {
		done uint64
		s    shelf
	}
	seen := make(map[at]bool)
	var from func(at) bool
	from = func(now at) bool {
		if now.done == 1<<len(deals)-1 {
			return true
		}
		if seen[now] {
			return false
		}
		seen[now] = true
		first := int64(1 << 62)
		for i, d := range deals {
			if now.done>>i&1 == 0 {
				first = min(first, d.end)
			}
		}
		may := func(i int) bool { return now.done>>i&1 == 0 && deals[i].begin < first }
		for i, d := range deals {
			if !may(i) {
				continue
			}
			if s, ok := now.s.does(d, room); ok && from(at{now.done | 1<<i, s}) {
				return true
			}
			for j, e := range deals {
				if room == 0 && may(j) && d.meets(e) && !now.s.closed && from(at{now.done | 1<<i | 1<<j, now.s}) {
					return true
				}
			}
		}
		return false
	}
	return from(at{})
}

// TestChannelHistoriesAreLinear compares short histories with all orders that
// their calls could have been in.
func TestChannelHistoriesAreLinear(t *testing.T) {
	for _, room := range []int{0, 1, 2} {
		for _, workers := range []int{1, 2, 8} {
			t.Run(fmt.Sprintf("cap=%d/workers=%d", room, workers), func(t *testing.T) {
				crew := newCrew(t, workers)
				f := &fair{deals: make([][dealers][dealsEach]deal, lwptest.Count(300, 50))}
				for range f.deals {
					f.c = append(f.c, sched.MakeChan[int](room))
				}
				f.bar.Init(dealers)
				seed := uint64(time.Now().UnixNano())
				cast := make([]dealer, dealers)
				for i := range cast {
					cast[i] = dealer{f: f, id: i, seed: random(&seed)}
				}
				muster(crew, dealOn, cast)
				crew.end()
				done := 0
				for r := range f.deals {
					var deals []deal
					for a := range dealers {
						for _, d := range f.deals[r][a] {
							deals = append(deals, d)
							if d.how == works && d.op != dealClose {
								done++
							}
						}
					}
					if !fits(deals, room) {
						t.Fatalf("no channel does that: %v", deals)
					}
				}
				if done < len(f.deals) {
					t.Errorf("only %d values in %d histories", done, len(f.deals))
				}
			})
		}
	}
}

// TestModelOfAChannelIsOne: it refuses what a channel does not do.
func TestModelOfAChannelIsOne(t *testing.T) {
	send := func(b, e int64, v uint8) deal { return deal{begin: b, end: e, op: dealSend, value: v} }
	recv := func(b, e int64, v uint8) deal { return deal{begin: b, end: e, op: dealRecv, value: v, actor: 1} }
	for _, x := range []struct {
		what  string
		deals []deal
		room  int
		ok    bool
	}{
		{"a rendezvous", []deal{send(1, 4, 1), recv(2, 3, 1)}, 0, true},
		{"a rendezvous of two who do not meet", []deal{send(1, 2, 1), recv(3, 4, 1)}, 0, false},
		{"the same with a buffer", []deal{send(1, 2, 1), recv(3, 4, 1)}, 1, true},
		{"a value twice", []deal{send(1, 2, 1), recv(3, 4, 1), recv(5, 6, 1)}, 1, false},
		{"the newer first", []deal{send(1, 2, 1), send(3, 4, 2), recv(5, 6, 2)}, 2, false},
		{"too many", []deal{send(1, 2, 1), send(3, 4, 2)}, 1, false},
		{"a TryRecv that overlooks a value", []deal{send(1, 2, 1), {begin: 3, end: 4, op: dealTryRecv, how: blocks}}, 1, false},
	} {
		if fits(x.deals, x.room) != x.ok {
			t.Errorf("%s: %v", x.what, !x.ok)
		}
	}
}
