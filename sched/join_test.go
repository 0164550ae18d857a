package sched_test

import (
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

func count(n *atomic.Int64) { n.Add(1) }

// A family is a fiber that spawns, and what it finds.
type family struct {
	n    int
	ran  atomic.Int64
	err  note
	err2 note
}

func TestFiberRunsAndIsJoined(t *testing.T) {
	s := begin(t, 1)
	ran := new(atomic.Int64)
	run(t, s, count, ran)
	fam := &family{n: 10_000}
	run(t, s, func(f *family) {
		for range f.n {
			c, err := sched.Go(count, &f.ran)
			if err == nil {
				err = c.Join()
			}
			f.err |= noteOf(err)
		}
	}, fam)
	if ran.Load() != 1 || fam.ran.Load() != int64(fam.n) || fam.err != 0 {
		t.Errorf("%d and %d ran, %v", ran.Load(), fam.ran.Load(), fam.err.err())
	}
}

// TestSwitchesAreCounted: to each child and back, by the short way and by the
// others, some of which the worker goes now and then.
func TestSwitchesAreCounted(t *testing.T) {
	const n, others = 10_000, 100
	for _, c := range []struct {
		name string
		want int // switches for each child
		body func(*family)
	}{
		{"the newest", 2, func(f *family) {
			for range f.n {
				c, err := sched.Go(count, &f.ran)
				f.err |= noteOf(err) | noteOf(c.Join())
			}
		}},
		{"the newest and the oldest", 2, func(f *family) {
			for range f.n / 2 {
				a, err := sched.Go(count, &f.ran)
				f.err |= noteOf(err)
				b, err := sched.Go(count, &f.ran)
				f.err |= noteOf(err) | noteOf(a.Join()) | noteOf(b.Join())
			}
		}},
		{"one that has yielded", 4, func(f *family) {
			for range f.n {
				c, err := sched.Go(func(n *atomic.Int64) { sched.Yield(); n.Add(1) }, &f.ran)
				sched.Yield()
				f.err |= noteOf(err) | noteOf(c.Join())
			}
		}},
		{"one that is Yield's", 2, func(f *family) {
			for range f.n {
				c, err := sched.Go(count, &f.ran)
				sched.Yield()
				f.err |= noteOf(err) | noteOf(c.Join())
			}
		}},
	} {
		s := begin(t, 1)
		fam := &family{n: n}
		before := s.Stats()
		run(t, s, c.body, fam)
		now := s.Stats()
		if got := int(now.Switches - before.Switches); got < c.want*n-others || got > c.want*n+others {
			t.Errorf("%s: %d switches for %d children", c.name, got, n)
		}
		if fam.ran.Load() != n || fam.err != 0 || now.Ends-before.Ends != n+1 || now.Spawns-before.Spawns != n {
			t.Errorf("%s: %d ran, %v; %+v", c.name, fam.ran.Load(), fam.err.err(), now)
		}
	}
}

// TestJoinOfTheNilLink: while fibers only yield, nothing is the newest.
func TestJoinOfTheNilLink(t *testing.T) {
	s := begin(t, 1)
	type pair struct {
		over atomic.Bool
		errs [3]note
	}
	p := new(pair)
	run(t, s, func(p *pair) {
		f, _ := sched.Go(func(p *pair) {
			for !p.over.Load() {
				sched.Yield()
			}
		}, p)
		for i := range p.errs {
			for range i {
				sched.Yield()
			}
			p.errs[i] = noteOf(sched.Forged(sched.Fiber{}, 12345, sched.NilLink()).Join())
		}
		p.over.Store(true)
		f.Join()
	}, p)
	for _, e := range p.errs {
		if e == 0 {
			t.Errorf("Join of what is no fiber: %v", p.errs)
		}
	}
}

func TestChildThatEndedBeforeItsJoin(t *testing.T) {
	for _, workers := range []int{1, 2} {
		s := begin(t, workers)
		fam := &family{n: 10_000}
		run(t, s, func(f *family) {
			for range f.n {
				c, err := sched.Go(count, &f.ran)
				sched.Yield()
				if err == nil {
					err = c.Join()
				}
				f.err |= noteOf(err)
			}
		}, fam)
		if fam.ran.Load() != int64(fam.n) || fam.err != 0 {
			t.Errorf("%d ran, %v", fam.ran.Load(), fam.err.err())
		}
	}
}

func TestSecondJoinIsRefused(t *testing.T) {
	s := begin(t, 2)
	f := spawn(t, s, count, new(atomic.Int64))
	within(t, "Join", f.Join)
	want(t, "second Join", f.Join(), sched.ErrJoined)
	want(t, "JoinFor", f.JoinFor(time.Hour), sched.ErrJoined)
	want(t, "Detach", f.Detach(), sched.ErrJoined)
	want(t, "Unpark", f.Unpark(), sched.ErrJoined)
	fam := new(family)
	run(t, s, func(f *family) {
		c, _ := sched.Go(count, &f.ran)
		c.Join()
		f.err = noteOf(c.Join())
		_, err := sched.YieldTo(c)
		f.err2 = noteOf(err)
	}, fam)
	want(t, "on a fiber", fam.err.err(), sched.ErrJoined)
	want(t, "YieldTo", fam.err2.err(), sched.ErrJoined)
}

func TestOneOfTwoJoinersIsRefused(t *testing.T) {
	s := begin(t, 2)
	f := spawn(t, s, func(*int) { sched.Park("the test") }, nil)
	s.Hold()
	got := make(chan error, 2)
	for range 2 {
		go func() { got <- f.Join() }()
	}
	if err := <-got; err != sched.ErrJoined {
		t.Errorf("the first answer is %v", err)
	}
	want(t, "Unpark", f.Unpark(), nil)
	within(t, "the other Join", func() error { return <-got })
	s.Release()
}

func TestJoinOfSelfIsRefused(t *testing.T) {
	s := begin(t, 1)
	fam := new(family)
	run(t, s, func(f *family) { f.err = noteOf(sched.Current().Join()) }, fam)
	want(t, "Join", fam.err.err(), sched.ErrSelf)
}

func TestDetachedFibersFreeThemselves(t *testing.T) {
	s := begin(t, 2)
	n := lwptest.Count(100_000, 10_000)
	fam := &family{n: n}
	run(t, s, func(f *family) {
		for i := range f.n {
			switch c, err := sched.Go(count, &f.ran); {
			case err != nil:
				f.err |= noteOf(err)
			case i%2 == 0:
				f.err |= noteOf(c.Detach())
			default:
				sched.Yield() // it may have ended
				f.err |= noteOf(c.Detach())
			}
		}
	}, fam)
	for range 100 {
		f := spawnAttr(t, s, count, &fam.ran, sched.Attr{Detached: true})
		if err := f.Join(); err != sched.ErrDetached && err != sched.ErrJoined {
			t.Errorf("Join of a detached fiber: %v", err)
		}
	}
	within(t, "Wait", s.Wait)
	if got := fam.ran.Load(); got != int64(n+100) || fam.err != 0 {
		t.Errorf("%d of %d ran, %v", got, n+100, fam.err.err())
	}
}

func TestDetachTwiceIsRefused(t *testing.T) {
	s := begin(t, 1)
	f := spawn(t, s, func(*int) { sched.Park("the test") }, nil)
	want(t, "Detach", f.Detach(), nil)
	want(t, "second Detach", f.Detach(), sched.ErrDetached)
	want(t, "Join", f.Join(), sched.ErrDetached)
	want(t, "Unpark", f.Unpark(), nil)
}

func TestJoinForEndsInTime(t *testing.T) {
	s := begin(t, 2)
	s.Hold()
	f := spawn(t, s, func(*int) { sched.Park("the test") }, nil)
	for _, d := range []time.Duration{soon, 1, 0, -time.Hour} {
		start := time.Now()
		want(t, "JoinFor", f.JoinFor(d), sched.ErrTimeout)
		if got := time.Since(start); got < max(d, 0) || got > max(d, 0)+30*time.Second {
			t.Errorf("JoinFor(%v) took %v", d, got)
		}
	}
	want(t, "Unpark", f.Unpark(), nil)
	want(t, "JoinFor", f.JoinFor(time.Minute), nil)
	s.Release()
}

// TestJoinersMeetTheEnd has goroutines, threads and fibers join fibers that end
// at the same time, and goroutines give up at the same time.
func TestJoinersMeetTheEnd(t *testing.T) {
	s := begin(t, 2)
	for range lwptest.Count(3000, 300) {
		f := spawn(t, s, count, new(atomic.Int64))
		if err := f.JoinFor(time.Microsecond); err != nil {
			want(t, "JoinFor", err, sched.ErrTimeout)
			within(t, "Join", f.Join)
		}
	}
	for range lwptest.Count(300, 50) {
		f := spawn(t, s, count, new(atomic.Int64))
		type threadJoin struct {
			f   sched.Fiber
			err note
		}
		j := &threadJoin{f: f}
		lwptest.OnThread(t, func(j *threadJoin) { j.err = noteOf(j.f.Join()) }, j)
		want(t, "Join on a thread", j.err.err(), nil)
	}
}

func TestZeroAndForgedHandlesAreRefused(t *testing.T) {
	s := begin(t, 1)
	f := spawn(t, s, count, new(atomic.Int64))
	within(t, "Join", f.Join)
	for _, h := range []sched.Fiber{{}, sched.Forged(f, 1<<40, 0), sched.Forged(f, 0, 1<<31), sched.Forged(f, 0, ^uint32(0))} {
		for what, err := range map[string]error{"Join": h.Join(), "Detach": h.Detach(), "Unpark": h.Unpark()} {
			if err != sched.ErrNoFiber && (err != sched.ErrJoined || h == sched.Fiber{}) {
				t.Errorf("%s of %v: %v", what, h, err)
			}
		}
	}
}

// TestStaleHandleIsNeverAnotherFiber keeps handles of ended fibers while their
// slots serve others, also after their memory has gone to the kernel and come back.
func TestStaleHandleIsNeverAnotherFiber(t *testing.T) {
	s := begin(t, 1)
	var old []sched.Fiber
	for range 20 {
		for range 200 {
			f := spawn(t, s, count, new(atomic.Int64))
			within(t, "Join", f.Join)
			old = append(old, f)
		}
		within(t, "Wait", s.Wait)
		lwptest.Eventually(t, "slots to be free", func() bool { return s.Slots() == 0 })
		s.Trim()
	}
	s.Hold()
	parked := make([]sched.Fiber, 1000)
	for i := range parked {
		parked[i] = spawn(t, s, func(*int) { sched.Park("the test") }, nil)
	}
	for _, h := range old {
		for what, err := range map[string]error{"Join": h.JoinFor(0), "Unpark": h.Unpark(), "Detach": h.Detach()} {
			if err != sched.ErrJoined && err != sched.ErrNoFiber {
				t.Fatalf("%s of %v, long joined: %v", what, h, err)
			}
		}
	}
	for _, f := range parked {
		want(t, "JoinFor", f.JoinFor(0), sched.ErrTimeout) // none was woken
	}
	for _, f := range parked {
		want(t, "Unpark", f.Unpark(), nil)
		within(t, "Join", f.Join)
	}
	s.Release()
}

func TestBadInputIsRefused(t *testing.T) {
	lwptest.SkipRace(t)
	for _, c := range []sched.Config{{Workers: -1}, {Workers: 1 << 20}, {Name: "thirteen byte"}} {
		_, err := sched.New(c)
		want(t, "New", err, sched.ErrConfig)
	}
	for _, size := range []int{-1, 1, sched.MinStackSize - 1, sched.MaxStackSize + 1, 1 << 62} {
		_, err := sched.New(sched.Config{StackSize: size})
		want(t, "New", err, sched.ErrStackSize)
	}
	s := begin(t, 2)
	_, err := sched.Spawn[int](s, nil, nil)
	want(t, "nil function", err, sched.ErrNilFunc)
	_, err = sched.Spawn(nil, count, new(atomic.Int64))
	want(t, "nil scheduler", err, sched.ErrClosed)
	for _, size := range []int{-1, 1, sched.MaxStackSize + 1} {
		_, err = sched.SpawnAttr(s, count, nil, sched.Attr{StackSize: size})
		want(t, "stack size", err, sched.ErrStackSize)
	}
	for _, w := range []int{-1, 3, 1 << 40} {
		_, err = sched.SpawnAttr(s, count, nil, sched.Attr{Worker: w})
		want(t, "worker", err, sched.ErrConfig)
	}
	_, err = sched.Go(count, new(atomic.Int64))
	want(t, "Go on a goroutine", err, sched.ErrNotFiber)
	want(t, "nil Blocking", sched.Blocking[int](nil, nil), sched.ErrNilFunc)
	fam := new(family)
	run(t, s, func(f *family) {
		_, err := sched.Go[int](nil, nil)
		f.err = noteOf(err)
		_, err = sched.GoAttr(count, &f.ran, sched.Attr{StackSize: 1})
		f.err2 = noteOf(err)
	}, fam)
	want(t, "nil function on a fiber", fam.err.err(), sched.ErrNilFunc)
	want(t, "stack size on a fiber", fam.err2.err(), sched.ErrStackSize)
	// Elsewhere than on a fiber these do what package lwp's do.
	sched.Yield()
	sched.Sleep(time.Microsecond)
	sched.Park("nothing")
	if sched.Current() != (sched.Fiber{}) {
		t.Error("a goroutine is a fiber")
	}
	fam = new(family)
	lwptest.OnThread(t, func(f *family) {
		sched.Yield()
		sched.Sleep(time.Microsecond)
		_, err := sched.Go(count, &f.ran)
		f.err = noteOf(err)
	}, fam)
	want(t, "Go on a thread", fam.err.err(), sched.ErrNotFiber)
}

func TestUseAfterCloseIsRefused(t *testing.T) {
	lwptest.SkipRace(t)
	s, err := sched.New(sched.Config{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	f := spawn(t, s, count, new(atomic.Int64))
	within(t, "Close", s.Close)
	want(t, "second Close", s.Close(), sched.ErrClosed)
	want(t, "Shutdown", s.Shutdown(time.Second), sched.ErrClosed)
	want(t, "Wait", s.Wait(), sched.ErrClosed)
	_, err = sched.Spawn(s, count, new(atomic.Int64))
	want(t, "Spawn", err, sched.ErrClosed)
	if err := f.Join(); err != sched.ErrNoFiber && err != sched.ErrJoined {
		t.Errorf("Join of a fiber that was never joined: %v", err)
	}
	s.Trim()
	s.Stats()
	s.Hold()
	s.Release()
	if fs := s.Workers(); fs != 0 {
		t.Errorf("%d workers", fs)
	}
}

func TestSpawnInAClosingSchedulerIsRefused(t *testing.T) {
	lwptest.SkipRace(t)
	s, err := sched.New(sched.Config{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	fam := new(family)
	f := spawn(t, s, func(f *family) {
		f.ran.Store(1)
		for {
			c, err := sched.Go(count, &f.ran)
			if err != nil {
				f.err = noteOf(err)
				return
			}
			c.Join()
		}
	}, fam)
	lwptest.Eventually(t, "the fiber to run", func() bool { return fam.ran.Load() > 0 })
	within(t, "Close", s.Close)
	_ = f
	want(t, "Go", fam.err.err(), sched.ErrClosed)
}

func TestShutdownTellsWhoIsLeft(t *testing.T) {
	lwptest.SkipRace(t)
	s, err := sched.New(sched.Config{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	f := spawnAttr(t, s, func(*int) { sched.Sleep(200 * time.Millisecond) }, nil, sched.Attr{Name: "sleeper"})
	err = s.Shutdown(time.Millisecond)
	left, ok := err.(*sched.LeftError)
	if !ok || len(left.Fibers) != 1 || left.Fibers[0].Name != "sleeper" || left.Fibers[0].Fiber != f {
		t.Errorf("Shutdown: %v", err)
	}
	_, err = sched.Spawn(s, count, new(atomic.Int64))
	want(t, "Spawn", err, sched.ErrClosed)
	within(t, "Shutdown", func() error { return s.Shutdown(time.Minute) })
}
