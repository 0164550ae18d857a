package sched_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

const (
	sellers    = 10
	maxDeals   = 200
	goodsShift = 16
)

// A bazaar is three channels that sellers use at random, and what has become of
// each value: it was sent or not, and received so often.
type bazaar struct {
	c        [4]*ints // the last is nil
	tokens   [3]sched.Token
	deals    int
	sent     [sellers][4 * maxDeals]atomic.Uint32
	received [sellers][4 * maxDeals]atomic.Uint32
	wrong    [4]atomic.Int64
}

var bazaarWrongs = [...]string{"an error that cannot be", "a value that nobody sent", "a value before an older one", "an index of a case that cannot be"}

type seller struct {
	m      *bazaar
	id     int
	seed   uint64
	seq    int
	closed int
	last   [sellers][3]int // the newest of each producer in each channel
}

// got notes that v was received from channel i.
func (a *seller) got(i, v int) {
	from, seq := v>>goodsShift-1, v&(1<<goodsShift-1)
	if from < 0 || from >= sellers || seq >= len(a.m.received[0]) || i > 2 {
		a.m.wrong[1].Add(1)
		return
	}
	a.m.received[from][seq].Add(1)
	if a.last[from][i] > seq {
		a.m.wrong[2].Add(1)
	}
	a.last[from][i] = seq
}

// goods returns a value that nobody else sends.
func (a *seller) goods() int {
	a.seq++
	return (a.id+1)<<goodsShift | a.seq - 1
}

// ends notes the end of a call about channel i: that it is well if it sent v.
func (a *seller) ends(err error, i, v int, sends, tries, limited bool) {
	switch {
	case err == nil && sends:
		a.m.sent[a.id][v&(1<<goodsShift-1)].Add(1)
	case err == nil:
		a.got(i, v)
	case err == sched.ErrChanClosed:
		a.closed++
	case tries && err == sched.ErrNotReady, limited && (err == sched.ErrTimeout || err == sched.ErrCanceled):
	default:
		a.m.wrong[0].Add(1)
	}
}

func (a *seller) limit() (l sched.Limit) {
	x := random(&a.seed)
	if x&1 == 0 {
		l.Timeout = time.Duration(x>>8%30_000) + 1
	}
	if x&6 == 0 || x&1 != 0 {
		l.Token = &a.m.tokens[x>>3%3]
	}
	return l
}

func (a *seller) trade() {
	for range a.m.deals {
		if a.closed > 8 {
			return
		}
		x := random(&a.seed)
		i := int(x >> 8 % 3)
		c := a.m.c[i]
		switch x % 10 {
		case 0:
			sched.Yield()
		case 1:
			v := a.goods()
			a.ends(c.Send(v), i, v, true, false, false)
		case 2:
			if v, ok := c.Recv(); ok {
				a.got(i, v)
			} else {
				a.closed++
			}
		case 3:
			v := a.goods()
			a.ends(c.SendWithin(v, a.limit()), i, v, true, false, true)
		case 4:
			v, err := c.RecvWithin(a.limit())
			a.ends(err, i, v, false, false, true)
		case 5:
			v := a.goods()
			a.ends(c.TrySend(v), i, v, true, true, false)
		case 6:
			v, err := c.TryRecv()
			a.ends(err, i, v, false, true, false)
		default:
			a.chooses(int(x%10)-7, x>>16)
		}
	}
}

// chooses does a Select of up to four cases.
func (a *seller) chooses(how int, x uint64) {
	var cases [4]sched.Case
	var v [4]int
	n := int(x%3) + 2
	x >>= 2
	nils := 0
	for k := range n {
		c := a.m.c[x%8/2]
		if c == nil {
			nils++
		}
		if x%2 == 0 {
			v[k] = a.goods()
			cases[k] = c.SendCase(&v[k])
		} else {
			v[k] = -1
			cases[k] = c.RecvCase(&v[k])
		}
		x >>= 3
	}
	old := v
	var i int
	var err error
	switch {
	case how == 1:
		i, err = sched.TrySelect(cases[:n]...)
	case how == 2 || nils == n:
		l := a.limit()
		if l.Timeout == 0 {
			l.Timeout = 50_000
		}
		i, err = sched.SelectWithin(l, cases[:n]...)
	default:
		i, err = sched.Select(cases[:n]...)
	}
	if i < 0 {
		a.ends(err, 0, 0, false, how == 1, how == 2 || nils == n)
		if err == nil || err == sched.ErrChanClosed || v != old {
			a.m.wrong[3].Add(1)
		}
		return
	}
	// Which channel it was is told by the case; which it is not must be as before.
	at := a.m.at(cases[i])
	if i >= n || at > 2 {
		a.m.wrong[3].Add(1)
		return
	}
	for k := range n {
		if k != i && v[k] != old[k] {
			a.m.wrong[3].Add(1)
		}
	}
	a.ends(err, at, v[i], old[i] >= 0, false, false)
}

// at returns which channel a case is of.
func (m *bazaar) at(x sched.Case) int {
	for i := range m.c {
		if m.c[i].Has(&x) {
			return i
		}
	}
	return 3
}

func tradeOn(a *seller) { a.trade() }

// TestNothingIsLostBetweenSellers: fibers of two schedulers, threads and
// goroutines send and receive by all means there are, while tokens are canceled
// and channels closed. Every value that was sent comes out once, those of one
// producer in their order.
func TestNothingIsLostBetweenSellers(t *testing.T) {
	for _, workers := range []int{1, 2, 8} {
		t.Run(fmt.Sprint("workers=", workers), func(t *testing.T) {
			crew := newCrew(t, workers)
			lwptest.Collect(t)
			length := time.Duration(lwptest.Count(600, 200)) * time.Millisecond
			if d, err := time.ParseDuration(os.Getenv("LWPRT_SCHED_STRESS")); err == nil {
				length = d
			}
			seed := uint64(time.Now().UnixNano())
			rounds, sent := 0, 0
			for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); rounds++ {
				sent += trading(t, crew, &seed)
			}
			crew.end()
			t.Logf("%d rounds, %d values", rounds, sent)
			if sent == 0 {
				t.Error("nobody sent anything")
			}
		})
	}
}

// trading is one round; it returns how many values went over.
func trading(t *testing.T, crew *crew, seed *uint64) (sent int) {
	m := &bazaar{deals: int(random(seed)%maxDeals) + 1}
	for i, n := range []int{0, 1, int(random(seed) % 6)} {
		m.c[i] = sched.MakeChan[int](n)
	}
	cast := make([]seller, sellers)
	for i := range cast {
		cast[i] = seller{m: m, id: i, seed: random(seed)}
	}
	muster(crew, tradeOn, cast)
	first := int(random(seed) % 3)
	for i := range 3 {
		time.Sleep(time.Duration(random(seed) % 1_000_000))
		m.tokens[i].Cancel()
		time.Sleep(time.Duration(random(seed) % 1_000_000))
		if err := m.c[(i+first)%3].Close(); err != nil {
			t.Error("Close: ", err)
		}
	}
	for _, w := range crew.wait {
		w()
	}
	crew.wait = nil
	drain := &seller{m: m}
	for i, c := range m.c[:3] {
		for {
			v, err := c.TryRecv()
			if err != nil {
				want(t, "the end", err, sched.ErrChanClosed)
				break
			}
			drain.got(i, v)
		}
		if c.Len() != 0 || c.Waiting() != 0 || c.Latched() || !m.tokens[i].Deserted() {
			t.Errorf("channel %d: %d values, %d wait", i, c.Len(), c.Waiting())
		}
	}
	for i := range m.wrong {
		if n := m.wrong[i].Load(); n != 0 {
			t.Errorf("%s: %d times", bazaarWrongs[i], n)
		}
	}
	for a := range sellers {
		for i := range m.sent[a] {
			s, r := m.sent[a][i].Load(), m.received[a][i].Load()
			if s != r || s > 1 {
				t.Errorf("value %d of %d: sent %d times, received %d times", i, a, s, r)
			}
			sent += int(s)
		}
	}
	return sent
}

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
				f := &fair{deals: make([][dealers][dealsEach]deal, lwptest.Count(300, 100))}
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
