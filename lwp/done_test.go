package lwp_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// TestDoneIsClosedAtTheEnd: of threads that end in all ways, before and after they
// are asked about, and of none.
func TestDoneIsClosedAtTheEnd(t *testing.T) {
	begin(t)
	closed := func(what string, c <-chan struct{}) {
		t.Helper()
		lwptest.Within(t, what, func() { <-c })
	}
	closed("no thread", lwp.Thread{}.Done())
	for i, end := range []func(*stage){
		func(*stage) {}, func(*stage) { lwp.Exit() }, func(*stage) { lwp.Abort("enough") },
	} {
		s := &stage{}
		type ending struct {
			*stage
			end func(*stage)
		}
		th := start(t, func(e *ending) {
			stay(e.stage)
			e.end(e.stage)
		}, &ending{s, end})
		c := th.Done()
		if th.Done() != c {
			t.Error("Done is another channel the second time")
		}
		select {
		case <-c:
			t.Error("closed while the thread runs")
		case <-time.After(time.Millisecond):
		}
		s.leave.Raise()
		closed("the end", c)
		begun := time.Now()
		err := th.Join()
		if f := (*lwp.Fault)(nil); err != nil && (i != 2 || !errors.As(err, &f)) {
			t.Error("Join: ", err)
		}
		if d := time.Since(begun); d > time.Second {
			t.Errorf("Join has taken %v", d)
		}
		closed("after Join", th.Done())
	}
	p, err := lwp.NewPool(lwp.PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for range lwptest.Count(200, 50) { // of a pool, and as it ends
		var n atomic.Int64
		th := startAttr(t, count, &n, lwp.Attr{Pool: p})
		closed("the run", th.Done())
		join(t, th)
		th = start(t, count, &n)
		closed("the thread", th.Done())
		join(t, th)
		th = startAttr(t, count, &n, lwp.Attr{Detached: true})
		closed("the detached thread", th.Done())
	}
	want(t, "Close", p.Close(), nil)
	type x struct{ none bool }
	a := &x{}
	lwptest.OnThread(t, func(a *x) { a.none = lwp.Self().Done() == nil }, a)
	if !a.none {
		t.Error("Done on a thread is something")
	}
}

// TestJoinContextTiesUpNoThread: hundreds of goroutines that join with a context.
func TestJoinContextTiesUpNoThread(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "tasks of its own in /proc")
	s := &stage{}
	th := start(t, stay, s)
	ctx, cancel := context.WithCancel(t.Context())
	const n = 300
	before := lwptest.NumTasks()
	var wg sync.WaitGroup
	var over atomic.Int64
	for range n {
		wg.Go(func() {
			if th.JoinContext(ctx) == context.Canceled {
				over.Add(1)
			}
		})
	}
	time.Sleep(10 * time.Millisecond)
	if now := lwptest.NumTasks(); now > before+20 {
		t.Errorf("%d threads, and %d with %d goroutines that wait", before, now, n)
	}
	cancel()
	lwptest.Within(t, "the goroutines", wg.Wait)
	if over.Load() != n {
		t.Errorf("%d of %d were told of the end of the context", over.Load(), n)
	}
	s.leave.Raise()
	want(t, "JoinContext", th.JoinContext(t.Context()), nil)
}

//go:noinline
func nowhere() *byte { return nil }
