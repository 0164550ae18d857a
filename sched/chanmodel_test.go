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
