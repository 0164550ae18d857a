package sched_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A fork is a lock that fibers park for, with the one who has it.
type fork struct {
	taken bool
	wants sched.Fiber
}

type philosopher struct {
	left, right *fork
	ready       *int
}

func (f *fork) take(reason string) {
	for f.taken {
		f.wants = sched.Current()
		sched.Park(reason)
	}
	f.taken = true
}

func dine(p *philosopher) {
	p.left.take("left fork")
	*p.ready++
	for *p.ready < 5 {
		sched.Yield()
	}
	p.right.take("right fork")
}

// TestDeadlockNamesEverybody has five philosophers starve.
func TestDeadlockNamesEverybody(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	s, err := sched.New(sched.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"Plato", "Konfuzius", "Sokrates", "Voltaire", "Descartes"}
	ready := new(int)
	forks := make([]fork, 5)
	var fs []sched.Fiber
	for i, name := range names {
		p := &philosopher{&forks[i], &forks[(i+1)%5], ready}
		fs = append(fs, spawnAttr(t, s, dine, p, sched.Attr{Name: name}))
	}
	check := func(what string, err error) {
		t.Helper()
		var dead *sched.DeadlockError
		if !errors.As(err, &dead) {
			t.Fatalf("%s: %v", what, err)
		}
		if len(dead.Fibers) != 5 {
			t.Errorf("%s: %d fibers", what, len(dead.Fibers))
		}
		text := err.Error()
		for i, f := range dead.Fibers {
			if f.State != "parked" || f.Reason != "right fork" || !strings.Contains(text, names[i]) ||
				!strings.Contains(f.String(), "dine") || !strings.Contains(f.String(), "deadlock_test.go") ||
				f.StackUsed < 100 || f.StackUsed > f.StackSize {
				t.Errorf("%s: %v", what, f)
			}
		}
	}
	check("Join", fs[0].Join())
	check("JoinFor", fs[1].JoinFor(time.Minute))
	check("Wait", s.Wait())
	want(t, "Wait", s.Wait(), sched.ErrDeadlock)
	onThread := &struct {
		f   sched.Fiber
		err note
	}{f: fs[0]}
	lwptest.OnThread(t, func(o *struct {
		f   sched.Fiber
		err note
	}) {
		o.err = noteOf(o.f.Join())
	}, onThread)
	want(t, "Join on a thread", onThread.err.err(), sched.ErrDeadlock)
	// It goes on when somebody does wake them.
	s.Hold()
	want(t, "JoinFor", fs[0].JoinFor(10*time.Millisecond), sched.ErrTimeout)
	s.Release()
	var b strings.Builder
	if err := s.Dump(&b); err != nil || strings.Count(b.String(), "right fork") != 5 {
		t.Errorf("Dump: %v\n%s", err, b.String())
	}
	check("Close", s.Close())
}

// TestDeadlockIsToldToThoseWhoCameBefore: they wait already when it happens.
func TestDeadlockIsToldToThoseWhoCameBefore(t *testing.T) {
	lwptest.SkipRace(t)
	s, err := sched.New(sched.Config{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	f := spawn(t, s, func(*int) {
		sched.Sleep(soon)
		sched.Park("nobody")
	}, nil)
	got := make(chan error, 2)
	go func() { got <- f.Join() }()
	go func() { got <- s.Wait() }()
	for range 2 {
		within(t, "the report", func() error {
			if dead := (*sched.DeadlockError)(nil); !errors.As(<-got, &dead) {
				return errors.New("no deadlock")
			}
			return nil
		})
	}
	want(t, "Unpark", f.Unpark(), nil)
	within(t, "Join", f.Join)
	within(t, "Close", s.Close)
}

// TestNoDeadlockWhileSomethingGoesOn: timers, blocking calls and holds.
func TestNoDeadlockWhileSomethingGoesOn(t *testing.T) {
	s := begin(t, 2)
	for range lwptest.Count(200, 20) {
		f := spawn(t, s, func(*int) { sched.Sleep(time.Microsecond) }, nil)
		within(t, "Join", f.Join)
		f = spawn(t, s, func(*int) { sched.Blocking(func(*int) {}, nil) }, nil)
		within(t, "Join", f.Join)
		s.Hold()
		f = spawn(t, s, func(*int) { sched.Park("the test") }, nil)
		go func() {
			f.Unpark()
			s.Release()
		}()
		within(t, "Join", f.Join)
	}
}

func TestDumpOfARunningScheduler(t *testing.T) {
	s := begin(t, 2)
	var over atomic.Bool
	for i := range 50 {
		spawnAttr(t, s, func(over *atomic.Bool) {
			for !over.Load() {
				switch sched.Current().Serial() % 3 {
				case 0:
					sched.Yield()
				case 1:
					sched.Sleep(time.Microsecond)
				case 2:
					f, _ := sched.Go(count, new(atomic.Int64))
					f.Join()
				}
			}
		}, &over, sched.Attr{Name: "busy", Detached: true, StackSize: 2048 << (i % 4)})
	}
	for range lwptest.Count(300, 30) {
		var b strings.Builder
		if err := s.Dump(&b); err != nil {
			t.Error(err)
		}
		if n := strings.Count(b.String(), "(busy)"); n < 45 || n > 50 {
			t.Fatalf("%d fibers\n%s", n, b.String())
		}
	}
	over.Store(true)
	within(t, "Wait", s.Wait)
}
