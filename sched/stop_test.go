package sched_test

import (
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
	"lwprt/tls"
)

// order is what fibers of one worker write down.
type order struct {
	text [64]byte
	n    int
}

func (o *order) add(c byte) {
	if o.n < len(o.text) {
		o.text[o.n] = c
		o.n++
	}
}

func (o *order) String() string { return string(o.text[:o.n]) }

type player struct {
	o    *order
	name byte
	n    int
}

func play(p *player) {
	for range p.n {
		p.o.add(p.name)
		sched.Yield()
	}
}

func TestYieldIsFirstInFirstOut(t *testing.T) {
	s := begin(t, 1)
	o := new(order)
	run(t, s, func(o *order) {
		var p [3]player
		var f [3]sched.Fiber
		for i := range p {
			p[i] = player{o, 'a' + byte(i), 3}
			f[i], _ = sched.Go(play, &p[i])
		}
		for range 4 {
			sched.Yield()
		}
		for i := range f {
			f[i].Join()
		}
	}, o)
	if got := o.String(); got != "abcabcabc" {
		t.Errorf("the turns were %q", got)
	}
}

func TestYieldToGoesFirst(t *testing.T) {
	s := begin(t, 1)
	o := new(order)
	run(t, s, func(o *order) {
		var p [3]player
		var f [3]sched.Fiber
		for i := range p {
			p[i] = player{o, 'a' + byte(i), 1}
			f[i], _ = sched.Go(play, &p[i])
		}
		if next, err := sched.YieldTo(f[2]); !next || err != nil {
			o.add('!')
		}
		for i := range f {
			f[i].Join()
		}
		if _, err := sched.YieldTo(sched.Fiber{}); err != sched.ErrNoFiber {
			o.add('!')
		}
	}, o)
	if got := o.String(); got != "cab" {
		t.Errorf("the turns were %q", got)
	}
}

// TestNewestDoNotStarveOldest has two fibers wake each other for ever, the
// newest each time, beside one that waits for its turn.
func TestNewestDoNotStarveOldest(t *testing.T) {
	s := begin(t, 1)
	type pairs struct {
		f    [2]sched.Fiber
		over bool
	}
	p := new(pairs)
	run(t, s, func(p *pairs) {
		o, err := sched.Go(func(p *pairs) { p.over = true }, p)
		_ = err
		for i := range p.f {
			if i == 0 {
				p.f[0], _ = sched.Go(func(p *pairs) {
					for !p.over {
						p.f[1].Unpark()
						sched.Park("the other")
					}
					p.f[1].Unpark()
				}, p)
			} else {
				p.f[1], _ = sched.Go(func(p *pairs) {
					for !p.over {
						p.f[0].Unpark()
						sched.Park("the other")
					}
					p.f[0].Unpark()
				}, p)
			}
		}
		p.f[1].Join()
		p.f[0].Join()
		o.Join()
	}, p)
	// Nor do children that are joined at once.
	type chain struct {
		over bool
		ran  atomic.Int64
	}
	c := new(chain)
	run(t, s, func(c *chain) {
		o, _ := sched.Go(func(c *chain) { c.over = true }, c)
		for !c.over {
			f, _ := sched.Go(count, &c.ran)
			f.Join()
		}
		o.Join()
	}, c)
}

func TestUnparkFirstIsRemembered(t *testing.T) {
	s := begin(t, 1)
	o := new(order)
	run(t, s, func(o *order) {
		me := sched.Current()
		me.Unpark()
		me.Unpark() // more are not
		sched.Park("remembered")
		o.add('a')
		f, _ := sched.Go(func(o *order) { o.add('b') }, o)
		if !sched.ParkFor("not remembered", time.Millisecond) {
			o.add('c')
		}
		f.Join()
	}, o)
	if got := o.String(); got != "abc" {
		t.Errorf("the order was %q", got)
	}
}

func TestUnparkFromEverywhere(t *testing.T) {
	s := begin(t, 2)
	other := begin(t, 1)
	s.Hold()
	n := lwptest.Count(20_000, 1000)
	type waiter struct {
		n   int
		got atomic.Int64
		f   sched.Fiber
	}
	w := &waiter{n: 3 * n}
	w.f = spawn(t, s, func(w *waiter) {
		for int(w.got.Load()) < w.n {
			sched.Park("anybody")
			w.got.Add(1)
		}
	}, w)
	// Each waits until its Unpark was taken.
	poke := func(w *waiter) {
		for range w.n / 3 {
			was := w.got.Load()
			w.f.Unpark()
			for end := futex.Monotonic() + int64(time.Minute); w.got.Load() == was && int(was) < w.n; {
				sched.Yield()
				if futex.Monotonic() > end {
					return
				}
			}
		}
	}
	within(t, "all", func() error {
		done := make(chan struct{})
		go func() { poke(w); close(done) }()
		f := spawn(t, other, poke, w)
		lwptest.OnThread(t, poke, w)
		<-done
		return f.Join()
	})
	lwptest.Eventually(t, "the waiter to end", func() bool {
		if int(w.got.Load()) >= w.n {
			return true
		}
		w.f.Unpark()
		return false
	})
	s.Release()
	within(t, "Join", w.f.Join)
}

func TestSleepLastsAsLongAsItSays(t *testing.T) {
	s := begin(t, 2)
	type nap struct {
		d, took time.Duration
		parked  bool
	}
	for _, d := range []time.Duration{soon, time.Millisecond, 1, 0, -time.Hour} {
		n := &nap{d: d}
		run(t, s, func(n *nap) {
			start := futex.Monotonic()
			sched.Sleep(n.d)
			n.took = time.Duration(futex.Monotonic() - start)
		}, n)
		if n.took < max(d, 0) || n.took > max(d, 0)+30*time.Second {
			t.Errorf("Sleep(%v) took %v", d, n.took)
		}
		run(t, s, func(n *nap) {
			start := futex.Monotonic()
			n.parked = sched.ParkFor("nobody", n.d)
			n.took = time.Duration(futex.Monotonic() - start)
		}, n)
		if n.parked || n.took < max(d, 0) || n.took > max(d, 0)+30*time.Second {
			t.Errorf("ParkFor(%v) took %v: %v", d, n.took, n.parked)
		}
	}
}

// TestSleepersWakeInOrder has fibers sleep for different times on one worker.
func TestSleepersWakeInOrder(t *testing.T) {
	s := begin(t, 1)
	type sleeper struct {
		o    *order
		d    time.Duration
		name byte
	}
	nap := func(o *order) {
		var p [8]sleeper
		var f [8]sched.Fiber
		for i := range p {
			k := (i*5 + 3) % len(p)
			p[i] = sleeper{o, time.Duration(20+20*k) * time.Millisecond, 'a' + byte(k)}
			f[i], _ = sched.Go(func(s *sleeper) {
				sched.Sleep(s.d)
				s.o.add(s.name)
			}, &p[i])
		}
		for i := range f {
			f[i].Join()
		}
	}
	// Those whose time comes while the worker's thread does not run are woken
	// together, and run in another order.
	got := ""
	for range 5 {
		o := new(order)
		run(t, s, nap, o)
		if got = o.String(); got == "abcdefgh" {
			return
		}
	}
	t.Errorf("they woke in the order %q", got)
}

// TestSleepOutlastsUnpark: a token does not cut a sleep short, and is not lost.
func TestSleepOutlastsUnpark(t *testing.T) {
	s := begin(t, 2)
	took := new(time.Duration)
	f := spawn(t, s, func(took *time.Duration) {
		start := futex.Monotonic()
		sched.Sleep(5 * soon)
		*took = time.Duration(futex.Monotonic() - start)
		sched.Park("the token")
	}, took)
	for range 100 {
		want(t, "Unpark", f.Unpark(), nil)
		time.Sleep(soon / 100)
	}
	within(t, "Join", f.Join)
	if *took < 5*soon {
		t.Errorf("a sleep of %v took %v", 5*soon, *took)
	}
}

// TestDeadlineMeetsUnpark has both come at about the same time, many times, and
// until each has been first.
func TestDeadlineMeetsUnpark(t *testing.T) {
	s := begin(t, 2)
	type race struct {
		n            int
		woken, timed int
		f            sched.Fiber
		over         atomic.Bool
	}
	r := &race{n: lwptest.Count(20_000, 1000)}
	r.f = spawn(t, s, func(r *race) {
		for i := 0; i < r.n || (r.woken == 0 || r.timed == 0) && i < 1000*r.n; i++ {
			if sched.ParkFor("race", time.Duration(i%50)*time.Microsecond) {
				r.woken++
			} else {
				r.timed++
			}
		}
		r.over.Store(true)
	}, r)
	pause := 30 * time.Microsecond
	for i := 1; !r.over.Load(); i++ {
		r.f.Unpark()
		if i%r.n == 0 {
			pause = pause*2%(10*time.Millisecond) + time.Microsecond // where all is slower, or quicker
		}
		for end := time.Now().Add(pause); time.Now().Before(end); {
		}
	}
	within(t, "Join", r.f.Join)
	if r.woken+r.timed < r.n || r.woken == 0 || r.timed == 0 {
		t.Errorf("%d woken and %d timed out of %d", r.woken, r.timed, r.n)
	}
}

func TestManySleepers(t *testing.T) {
	s := begin(t, 2)
	type many struct {
		n   int
		ran atomic.Int64
		err note
	}
	m := &many{n: lwptest.Count(100_000, 10_000)}
	run(t, s, func(m *many) {
		for range m.n {
			if _, err := sched.GoAttr(func(m *many) {
				sched.Sleep(time.Duration(m.ran.Load()%1000) * time.Microsecond)
				m.ran.Add(1)
			}, m, sched.Attr{Detached: true}); err != nil {
				m.err = noteOf(err)
			}
		}
	}, m)
	within(t, "Wait", s.Wait)
	if m.ran.Load() != int64(m.n) || m.err != 0 {
		t.Errorf("%d of %d woke, %v", m.ran.Load(), m.n, m.err.err())
	}
}

func TestExitEndsTheFiberOnly(t *testing.T) {
	s := begin(t, 1)
	o := new(order)
	run(t, s, func(o *order) {
		f, _ := sched.Go(func(o *order) {
			o.add('a')
			deep(20)
			o.add('!')
		}, o)
		f.Join()
		o.add('b')
	}, o)
	if got := o.String(); got != "ab" {
		t.Errorf("the order was %q", got)
	}
}

// deep exits from the bottom of n calls.
//
//go:noinline
func deep(n int) int {
	if n == 0 {
		sched.Exit()
		return 0 // does not come here
	}
	return deep(n-1) + 1
}

func TestPinnedFibersStayOnTheirWorker(t *testing.T) {
	const workers = 4
	s := begin(t, workers)
	type stay struct {
		worker, n int
		away      atomic.Int64
		ran       int
	}
	stays := make([]stay, workers)
	var fs []sched.Fiber
	var loose atomic.Int64
	var others []sched.Fiber
	for range 20 {
		others = append(others, spawn(t, s, func(n *atomic.Int64) {
			for range 2000 {
				sched.Yield()
			}
			n.Add(1)
		}, &loose))
	}
	for i := range stays {
		stays[i] = stay{worker: i + 1, n: lwptest.Count(5000, 500)}
		fs = append(fs, spawnAttr(t, s, func(st *stay) {
			for i := range st.n {
				if sched.OnWorker() != st.worker {
					st.away.Add(1)
				}
				switch i % 4 {
				case 0:
					sched.Yield()
				case 1:
					c, _ := sched.Go(func(*int) {}, nil)
					c.Join()
				case 2:
					sched.ParkFor("a while", time.Microsecond)
				case 3:
					sched.Current().Unpark()
					sched.Park("not long")
				}
				st.ran++
			}
		}, &stays[i], sched.Attr{Worker: i + 1}))
	}
	for i, f := range fs {
		within(t, "Join", f.Join)
		if st := &stays[i]; st.away.Load() != 0 || st.ran != st.n {
			t.Errorf("worker %d: %d of %d rounds, %d on another", i+1, st.ran, st.n, st.away.Load())
		}
	}
	for _, f := range others {
		within(t, "Join", f.Join)
	}
	if loose.Load() != 20 {
		t.Errorf("%d of 20 others ran", loose.Load())
	}
}

func TestLocalsAreEachFibersOwn(t *testing.T) {
	lwptest.SkipRace(t)
	var destroyed atomic.Int64
	sum = &destroyed
	k, err := tls.NewKey(func(v *int64) { sum.Add(*v) })
	if err != nil {
		t.Fatal(err)
	}
	defer k.Delete()
	key = k
	s := begin(t, 2)
	n := lwptest.Count(20_000, 2000)
	fam := &family{n: n}
	run(t, s, func(f *family) {
		for i := range f.n {
			c, err := sched.Go(func(f *family) {
				if _, set := sched.Get(key); set {
					f.err = 1
				}
				v := f.ran.Add(1)
				sched.Set(key, v)
				sched.Yield()
				if got, set := sched.Get(key); !set || got != v {
					f.err = 2
				}
				*sched.Ptr(key)++
				if _, set := key.Get(); set {
					f.err = 3 // the worker's own
				}
			}, f)
			if err != nil {
				f.err2 = noteOf(err)
			}
			c.Detach()
			for i%100 == 0 && f.ran.Load() < int64(i)-1000 { // the storage of all that are there at once is kept
				sched.Yield()
			}
		}
	}, fam)
	within(t, "Wait", s.Wait)
	if want := int64(n) * int64(n+3) / 2; destroyed.Load() != want || fam.err != 0 || fam.err2 != 0 {
		t.Errorf("destructors saw %d, want %d; %d %v", destroyed.Load(), want, fam.err, fam.err2.err())
	}
	want(t, "Set on a goroutine", sched.Set(k, 1), sched.ErrNotFiber)
}

var (
	key tls.Key[int64]
	sum *atomic.Int64
)
