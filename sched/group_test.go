package sched_test

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
	"lwprt/tls"
)

var (
	errOne = errors.New("one")
	errTwo = errors.New("two")
)

// A task is what the members of a group work on.
type task struct {
	g       sched.Group
	sem     sched.Semaphore
	n       int
	ran     atomic.Int64
	now     atomic.Int64
	most    atomic.Int64
	ended   atomic.Int64
	failed  int
	faulted bool
}

func (x *task) ok() error {
	x.ran.Add(1)
	sched.Yield()
	x.ended.Add(1)
	return nil
}

// TestGroupWaitsForAll of a hundred thousand members, whose group lies on the
// stack of the fiber that waits.
func TestGroupWaitsForAll(t *testing.T) {
	s := begin(t, 2)
	x := &task{n: lwptest.Count(100_000, 5000)}
	run(t, s, func(x *task) {
		var g sched.Group
		for range x.n {
			if sched.GroupGo(&g, (*task).ok, x) != nil {
				x.failed++
			}
		}
		if g.Wait() != nil || x.ended.Load() != int64(x.n) {
			x.failed++
		}
	}, x)
	if x.failed != 0 || x.ended.Load() != int64(x.n) {
		t.Errorf("%d ended, %d steps failed", x.ended.Load(), x.failed)
	}
	// Goroutines do the same.
	y := &task{n: 1000}
	for range y.n {
		if err := sched.GroupSpawn(s, &y.g, (*task).ok, y); err != nil {
			t.Fatal(err)
		}
	}
	within(t, "Wait", y.g.Wait)
	if y.ended.Load() != int64(y.n) {
		t.Errorf("%d ended", y.ended.Load())
	}
}

// TestGroupReturnsTheFirstError, and cancels what the others wait for.
func TestGroupReturnsTheFirstError(t *testing.T) {
	s := begin(t, 2)
	waits := func(x *task) error {
		return x.sem.AcquireWithin(1, sched.Until(x.g.Token()))
	}
	x := &task{}
	run(t, s, func(x *task) {
		for range 2 { // it can be used again
			for range 10 {
				sched.GroupGo(&x.g, waits, x)
			}
			sched.GroupGo(&x.g, func(x *task) error {
				for x.now.Load() == 0 {
					sched.Yield()
				}
				return errOne
			}, x)
			if x.g.WaitWithin(sched.For(0)) != sched.ErrTimeout {
				x.failed = 1
			}
			x.now.Store(1)
			if x.g.Wait() != errOne || x.g.Wait() != nil || x.g.Token().Canceled() {
				x.failed = 2
			}
			x.now.Store(0)
		}
		for range 10 {
			sched.GroupGo(&x.g, waits, x)
		}
		sched.Yield()
		x.g.Cancel()
		if x.g.Wait() != sched.ErrCanceled {
			x.failed = 3
		}
	}, x)
	if x.failed != 0 {
		t.Errorf("step %d", x.failed)
	}
	for range 10 {
		sched.GroupSpawn(s, &x.g, waits, x)
	}
	sched.GroupSpawn(s, &x.g, func(x *task) error { return errTwo }, x)
	want(t, "Wait", x.g.WaitWithin(sched.For(time.Minute)), errTwo)
}

// TestFaultOfAMemberIsItsError, also one in a destructor, and one that a member
// has from its child. The first counts; no slot and no fault leaks.
func TestFaultOfAMemberIsItsError(t *testing.T) {
	s := begin(t, 2)
	faults := func(x *task) error {
		*nowhere = 1
		return nil
	}
	var key tls.Key[uint64]
	key, err := tls.NewKey(func(*uint64) { *nowhere = 1 })
	if err != nil {
		t.Fatal(err)
	}
	faultKey = key
	for name, fn := range map[string]func(*task) error{
		"faults": faults,
		"child faults": func(x *task) error {
			f, err := sched.Go(func(*task) { *nowhere = 1 }, x)
			if err != nil {
				return err
			}
			return f.Join()
		},
		"destructor faults": func(x *task) error {
			sched.Set(faultKey, 1)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := &task{}
			theMember = fn
			run(t, s, func(x *task) {
				for range 5 {
					sched.GroupGo(&x.g, theMember, x)
				}
				_, x.faulted = x.g.Wait().(*lwp.Fault)
				if !x.faulted || x.g.Wait() != nil {
					x.failed = 1
				}
			}, x)
			if x.failed != 0 {
				t.Error("on a fiber: no fault")
			}
			for range 5 {
				if err := sched.GroupSpawn(s, &x.g, fn, x); err != nil {
					t.Fatal(err)
				}
			}
			var f *lwp.Fault
			if err := x.g.Wait(); !errors.As(err, &f) || f.Error() == "" {
				t.Errorf("on a goroutine: %v", err)
			}
		})
	}
}

var (
	theMember func(*task) error
	faultKey  tls.Key[uint64]
)

// TestGroupLimit has no more members at a time than it says.
func TestGroupLimit(t *testing.T) {
	s := begin(t, 2)
	member := func(x *task) error {
		now := x.now.Add(1)
		for old := x.most.Load(); now > old && !x.most.CompareAndSwap(old, now); old = x.most.Load() {
		}
		for range random1(x) {
			sched.Yield()
		}
		x.now.Add(-1)
		x.ended.Add(1)
		return nil
	}
	theMember = member
	x := &task{}
	x.g.SetLimit(3)
	run(t, s, func(x *task) {
		for range 200 {
			sched.GroupGo(&x.g, theMember, x)
		}
		tried := 0
		for range 200 {
			if ok, err := sched.GroupTryGo(&x.g, theMember, x); ok && err == nil {
				tried++
			}
		}
		if x.g.SetLimit(5) == nil && tried > 0 {
			x.failed = 1
		}
		x.g.Wait()
		if x.ended.Load() != int64(200+tried) || tried == 200 {
			x.failed = 2
		}
		x.n = tried
		if x.g.SetLimit(0) != nil {
			x.failed = 3
		}
		if ok, _ := sched.GroupTryGo(&x.g, theMember, x); ok {
			x.failed = 4
		}
		x.g.SetLimit(2)
	}, x)
	for range 100 {
		if err := sched.GroupSpawn(s, &x.g, member, x); err != nil {
			t.Error(err)
		}
	}
	within(t, "Wait", x.g.Wait)
	if x.failed != 0 || x.most.Load() > 3 || x.ended.Load() != int64(300+x.n) {
		t.Errorf("step %d, %d at a time, %d ended", x.failed, x.most.Load(), x.ended.Load())
	}
	want(t, "GroupGo on a goroutine", sched.GroupGo(&x.g, member, x), sched.ErrNotFiber)
	want(t, "GroupSpawn of nothing", sched.GroupSpawn[task](s, &x.g, nil, nil), sched.ErrNilFunc)
}

// TestGroupLimitIsRaisedForThoseWhoWait since there was no room for anybody.
func TestGroupLimitIsRaisedForThoseWhoWait(t *testing.T) {
	for _, limit := range []int{2, -1} {
		s := begin(t, 1)
		x := &task{}
		want(t, "SetLimit", x.g.SetLimit(0), nil)
		s.Hold()
		var fs [4]sched.Fiber
		for i := range fs {
			fs[i] = spawn(t, s, func(x *task) { x.now.Add(1); sched.GroupGo(&x.g, (*task).ok, x) }, x)
		}
		lwptest.Eventually(t, "all to wait", func() bool { return x.now.Load() == 4 })
		time.Sleep(time.Millisecond)
		want(t, "SetLimit", x.g.SetLimit(limit), nil)
		s.Release()
		for i := range fs {
			within(t, "Join", fs[i].Join)
		}
		within(t, "Wait", x.g.Wait)
		if x.ended.Load() != 4 {
			t.Errorf("limit %d: %d members", limit, x.ended.Load())
		}
	}
}

func random1(x *task) uint64 {
	seed := uint64(x.ended.Load())
	return random(&seed) % 8
}

// TestGroupStress has many groups on stacks end while members of the last
// generation are just about to leave theirs.
func TestGroupStress(t *testing.T) {
	s := begin(t, 8)
	lwptest.Collect(t)
	end := time.Now().Add(stressTime(400 * time.Millisecond))
	for time.Now().Before(end) {
		xs := make([]task, 50)
		var g sched.Group
		for i := range xs {
			xs[i].n = i
			if err := sched.GroupSpawn(s, &g, groupTree, &xs[i]); err != nil {
				t.Fatal(err)
			}
		}
		within(t, "Wait", g.Wait)
		for i := range xs {
			if xs[i].failed != 0 {
				t.Fatalf("step %d", xs[i].failed)
			}
		}
		runtime.KeepAlive(xs)
	}
}

func groupTree(x *task) error {
	for i := range 20 {
		var y task
		y.n = i
		for range i {
			sched.GroupGo(&y.g, (*task).ok, &y)
		}
		if i%3 == 0 {
			sched.GroupGo(&y.g, func(y *task) error {
				y.ok()
				return errOne
			}, &y)
			if y.g.Wait() != errOne {
				x.failed = 1
			}
		} else if y.g.Wait() != nil {
			x.failed = 2
		}
		if y.ran.Load() != y.ended.Load() || int(y.ended.Load()) < i {
			x.failed = 3
		}
	}
	return nil
}
