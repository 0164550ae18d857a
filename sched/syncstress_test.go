package sched_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A market is where everybody uses everything at once, and what must be true of
// it in the end.
type market struct {
	m      sched.Mutex
	inside int
	locked int64 // under m
	n      atomic.Int64

	rw     sched.RWMutex
	a, b   int64 // under rw, equal
	writes atomic.Int64
	reads  atomic.Int64 // at a time

	s     sched.Semaphore
	taken atomic.Int64

	cm       sched.Mutex // of the buffer
	notEmpty sched.Cond
	notFull  sched.Cond
	buffer   [4]int64
	first    int
	held     int
	in, out  atomic.Int64 // sums

	e       sched.Event
	rounds  int
	members []trader
	wrong   [8]atomic.Int64
	over    atomic.Int64
	ok, not [numWaits]atomic.Int64
}

const marketPermits = 3

type trader struct {
	w      *market
	seed   uint64
	fiber  bool
	at     atomic.Int64 // the token in use
	tokens []sched.Token
}

func trade(tr *trader) { tr.run() }

// limit returns a random bound for the next wait.
func (tr *trader) limit() (l sched.Limit) {
	switch x := random(&tr.seed); x % 6 {
	case 0:
		l = sched.For(0)
	case 1, 2:
		l = sched.For(time.Duration(x >> 8 % 50_000))
	case 3:
		l = sched.For(time.Duration(x>>8%100) * time.Microsecond)
	case 4:
		l = sched.For(2 * time.Millisecond)
	case 5:
		l.Deadline = futex.At(time.Unix(1, 0)) // by the other clock
	}
	if random(&tr.seed)%2 == 0 {
		l.Token = &tr.tokens[tr.at.Load()]
	}
	return l
}

// next cancels the token of somebody, maybe one's own, and takes a fresh one.
func (tr *trader) next() {
	w := tr.w
	x := random(&tr.seed)
	o := &w.members[x%uint64(len(w.members))]
	o.tokens[o.at.Load()].Cancel()
	if t := &tr.tokens[tr.at.Load()]; t.Canceled() && int(tr.at.Load()) < len(tr.tokens)-1 {
		tr.at.Add(1)
	}
}

func (w *market) count(kind int, err error) bool {
	if err == nil {
		w.ok[kind].Add(1)
		return true
	}
	if err != sched.ErrTimeout && err != sched.ErrCanceled {
		w.wrong[0].Add(1)
	}
	w.not[kind].Add(1)
	return false
}

func (tr *trader) run() {
	w := tr.w
	for range w.rounds {
		x := random(&tr.seed)
		bounded := x>>32%2 == 0
		switch x % 8 {
		case 0:
			tr.next()
		case 1: // a critical section
			if bounded {
				if !w.count(forMutex, w.m.LockWithin(tr.limit())) {
					break
				}
			} else {
				w.m.Lock()
			}
			if w.inside++; w.inside != 1 {
				w.wrong[1].Add(1)
			}
			w.locked++
			w.n.Add(1)
			tr.pause(x)
			w.inside--
			w.m.Unlock()
		case 2:
			if bounded {
				if !w.count(forRead, w.rw.RLockWithin(tr.limit())) {
					break
				}
			} else {
				w.rw.RLock()
			}
			w.reads.Add(1)
			a := w.a
			tr.pause(x)
			if a != w.b {
				w.wrong[2].Add(1)
			}
			w.reads.Add(-1)
			w.rw.RUnlock()
		case 3:
			if bounded {
				if !w.count(forWrite, w.rw.LockWithin(tr.limit())) {
					break
				}
			} else {
				w.rw.Lock()
			}
			w.a++
			tr.pause(x)
			if w.reads.Load() != 0 {
				w.wrong[3].Add(1)
			}
			w.b++
			w.writes.Add(1)
			w.rw.Unlock()
		case 4:
			n := int(x>>40%marketPermits) + 1
			if bounded {
				if !w.count(forSemaphore, w.s.AcquireWithin(n, tr.limit())) {
					break
				}
			} else {
				w.s.Acquire(n)
			}
			if w.taken.Add(int64(n)) > marketPermits {
				w.wrong[4].Add(1)
			}
			tr.pause(x)
			w.taken.Add(-int64(n))
			w.s.Release(n)
		case 5: // put something in
			w.cm.Lock()
			var err error
			for w.held == len(w.buffer) && err == nil {
				err = w.notFull.WaitWithin(&w.cm, tr.limit())
			}
			w.count(forCond, err)
			if w.held < len(w.buffer) {
				v := int64(x >> 48)
				w.buffer[(w.first+w.held)%len(w.buffer)] = v
				w.held++
				w.in.Add(v)
				w.notEmpty.Signal()
			}
			w.cm.Unlock()
		case 6: // take something out
			w.cm.Lock()
			var err error
			for w.held == 0 && err == nil {
				err = w.notEmpty.WaitWithin(&w.cm, tr.limit())
			}
			w.count(forCond, err)
			if w.held > 0 {
				w.out.Add(w.buffer[w.first])
				w.first = (w.first + 1) % len(w.buffer)
				w.held--
				w.cm.Unlock()
				w.notFull.Broadcast()
				break
			}
			w.cm.Unlock()
		case 7:
			switch x >> 40 % 4 {
			case 0:
				w.e.Set()
			case 1:
				w.e.Reset()
			case 2:
				w.count(forEvent, w.e.WaitWithin(tr.limit()))
			case 3:
				if tr.fiber {
					tr.group()
				}
			}
		}
	}
	w.over.Add(1)
}

// pause lets others run, sometimes, with whatever is held.
func (tr *trader) pause(x uint64) {
	switch x >> 52 % 16 {
	case 0, 1, 2:
		sched.Yield()
	case 3:
		sched.Sleep(time.Duration(x>>56) * 100)
	}
}

// A band is a group in a frame, which is gone as soon as it is done.
type band struct {
	g    sched.WaitGroup
	bar  sched.Barrier
	last atomic.Int64
	n    atomic.Int64
}

//go:noinline
func (tr *trader) group() {
	var b band
	b.bar.Init(3)
	for range 3 {
		b.g.Add(1)
		if _, err := sched.GoAttr(func(b *band) {
			if b.bar.Wait() {
				b.last.Add(1)
			}
			b.n.Add(1)
			b.g.Done()
		}, hide(&b), sched.Attr{Detached: true}); err != nil {
			tr.w.wrong[5].Add(1)
		}
	}
	for tr.w.count(forGroup, b.g.WaitWithin(tr.limit())); b.n.Load() != 3; {
		b.g.Wait()
	}
	b.g.Wait()
	if b.last.Load() != 1 {
		tr.w.wrong[6].Add(1)
	}
}

// TestPrimitivesUnderStress: 40 fibers, threads and goroutines, 8 workers, one
// collector, and nothing that is lost.
func TestPrimitivesUnderStress(t *testing.T) {
	for _, workers := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("workers=2x%d", workers), func(t *testing.T) { markets(t, workers) })
	}
}

func markets(t *testing.T, workers int) {
	c := newCrew(t, workers)
	lwptest.Collect(t)
	seed := *stressSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	length := time.Duration(lwptest.Count(1000, 100)) * time.Millisecond
	if d, err := time.ParseDuration(os.Getenv("LWPRT_SCHED_STRESS")); err == nil {
		length = d
	}
	rounds := 0
	for end := time.Now().Add(length); !t.Failed(); rounds++ {
		w := &market{rounds: lwptest.Count(500, 200), members: make([]trader, 40)}
		w.s.Release(marketPermits)
		x := seed + uint64(rounds)
		for i := range w.members {
			w.members[i] = trader{w: w, seed: random(&x), fiber: i%5 < 3, tokens: make([]sched.Token, 100)}
		}
		muster(c, trade, w.members)
		for _, wait := range c.wait {
			wait()
		}
		c.wait = nil
		for i := range w.wrong {
			if n := w.wrong[i].Load(); n != 0 {
				t.Errorf("%d was wrong %d times", i, n)
			}
		}
		left := int64(0)
		for i := range w.held {
			left += w.buffer[(w.first+i)%len(w.buffer)]
		}
		switch {
		case w.over.Load() != int64(len(w.members)):
			t.Errorf("%d have ended", w.over.Load())
		case w.locked != w.n.Load() || !w.m.TryLock():
			t.Errorf("the mutex was locked %d times, counted %d", w.n.Load(), w.locked)
		case w.a != w.b || w.a != w.writes.Load() || !w.rw.TryLock():
			t.Errorf("%d writes, counted %d and %d", w.writes.Load(), w.a, w.b)
		case !w.s.TryAcquire(marketPermits) || w.s.TryAcquire(1):
			t.Error("permits were lost or made")
		case w.in.Load() != w.out.Load()+left || !w.cm.TryLock():
			t.Errorf("in %d, out %d and left %d", w.in.Load(), w.out.Load(), left)
		}
		if t.Failed() {
			t.Logf("seed %d", seed+uint64(rounds))
		}
		if time.Now().After(end) {
			for kind := range numWaits {
				if ok, not := w.ok[kind].Load(), w.not[kind].Load(); kind != forBarrier && kind != forOnce && (ok == 0 || not == 0) {
					t.Logf("%s: %d waits were let go and %d ended otherwise", waitNames[kind], ok, not)
				}
			}
			break
		}
	}
	c.end()
	t.Logf("%d rounds", rounds+1)
}
