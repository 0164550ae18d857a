package lwp_test

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// refused checks that nothing can be done with a handle.
func refused(t *testing.T, name string, th lwp.Thread, err error) {
	t.Helper()
	want(t, name+": Join", th.Join(), err)
	want(t, name+": TryJoin", th.TryJoin(), err)
	want(t, name+": JoinFor", th.JoinFor(time.Hour), err)
	want(t, name+": JoinContext", th.JoinContext(context.Background()), err)
	want(t, name+": Detach", th.Detach(), err)
	if tid := th.TID(); tid != 0 {
		t.Errorf("%s: TID %d", name, tid)
	}
	if s := th.Name(); s != "" {
		t.Errorf("%s: Name %q", name, s)
	}
}

func TestZeroHandleIsNoThread(t *testing.T) {
	refused(t, "zero", lwp.Thread{}, lwp.ErrNoThread)
}

// TestForgedHandleIsRefused makes up handles around one that is good.
func TestForgedHandleIsRefused(t *testing.T) {
	begin(t)
	th, s := stays(t, lwp.Attr{Name: "good"})
	index, gen := th.Parts()
	const lastIndex, lastGen = 1<<24 - 1, 1<<40 - 1
	for _, bad := range []struct {
		index int
		gen   uint64
		err   error
	}{
		{0, gen, lwp.ErrNoThread},
		{0, lastGen, lwp.ErrNoThread},
		{index, gen + 1, lwp.ErrNoThread},
		{index, lastGen, lwp.ErrNoThread},
		{index, 0, lwp.ErrJoined},
		{lwp.Room() + 1, gen, lwp.ErrNoThread},
		{lwp.Room() + 1, 1, lwp.ErrNoThread},
		{lastIndex, 1, lwp.ErrNoThread},
		{lastIndex, lastGen, lwp.ErrNoThread},
	} {
		forged := lwp.Forge(bad.index, bad.gen)
		refused(t, "forged", forged, bad.err)
	}
	if th.Name() != "good" || th.TID() != int(s.tid.Load()) || s.n.Load() != 0 {
		t.Error("the forged handles have reached the thread")
	}
	s.leave.Raise()
	join(t, th)
}

// TestStaleHandleIsNeverAnotherThread has a record serve many threads, and
// tries every old handle on each of them.
func TestStaleHandleIsNeverAnotherThread(t *testing.T) {
	begin(t)
	var stale []lwp.Thread
	reused := 0
	rounds := lwptest.Count(200, 50)
	for i := range rounds {
		attr := lwp.Attr{Detached: i%3 == 2, Name: "another"}
		th, s := stays(t, attr)
		tid := th.TID()
		index, _ := th.Parts()
		for _, old := range stale {
			if old == th {
				t.Fatal("a handle was given out twice")
			}
			err := old.TryJoin()
			if err != lwp.ErrJoined && err != lwp.ErrDetached {
				t.Fatalf("TryJoin of an old handle: %v", err)
			}
			if err := old.Detach(); err != lwp.ErrJoined && err != lwp.ErrDetached {
				t.Fatalf("Detach of an old handle: %v", err)
			}
			if old.TID() != 0 || old.Name() != "" {
				t.Fatalf("an old handle leads to thread %d, %q", old.TID(), old.Name())
			}
			if oldIndex, _ := old.Parts(); oldIndex == index {
				reused++
				want(t, "Join of a handle whose record was used again", old.Join(), lwp.ErrJoined)
			}
		}
		if th.TID() != tid {
			t.Fatal("an old handle took the thread away")
		}
		s.leave.Raise()
		if attr.Detached {
			lwptest.Eventually(t, "a detached thread to end", func() bool {
				lwp.Trim()
				return th.TID() == 0
			})
		} else {
			join(t, th)
		}
		stale = append(stale, th)
	}
	if reused < rounds {
		t.Errorf("records were used again %d times: the test has seen little", reused)
	}
}

// TestStaleRunIsNeverAnotherRun is the same for runs on one pooled thread.
func TestStaleRunIsNeverAnotherRun(t *testing.T) {
	begin(t)
	p := newPool(t, lwp.PoolConfig{MaxThreads: 1})
	var last lwp.Thread
	for i := range lwptest.Count(200, 50) {
		th, s := stays(t, lwp.Attr{Pool: p})
		if i > 0 {
			refused(t, "the run before", last, lwp.ErrJoined)
		}
		s.leave.Raise()
		join(t, th)
		last = th
	}
	closePool(t, p)
}

// TestHandlesOfPoolThreadsDoNoHarm takes what Threads returns for threads of a
// pool. They are the pool's to join: whoever else took one away would have the pool
// wait for a record that is another's by then.
func TestHandlesOfPoolThreadsDoNoHarm(t *testing.T) {
	begin(t)
	for range lwptest.Count(50, 10) {
		p := newPool(t, lwp.PoolConfig{})
		th, s := stays(t, lwp.Attr{Pool: p})
		own := lwp.Threads()
		if len(own) != 1 || own[0] == th {
			t.Fatalf("threads of the pool: %v", own)
		}
		check := func() {
			t.Helper()
			for name, joinIt := range everyJoin {
				want(t, name, joinIt(own[0]), lwp.ErrPoolThread)
			}
			want(t, "Detach", own[0].Detach(), lwp.ErrPoolThread)
			if tid := own[0].TID(); tid != int(s.tid.Load()) {
				t.Errorf("TID %d, gettid %d", tid, s.tid.Load())
			}
		}
		check()
		s.leave.Raise()
		join(t, th)
		check()
		join(t, startAttr(t, come, new(stage), lwp.Attr{Pool: p}))
		closePool(t, p)
		refused(t, "after Close", own[0], lwp.ErrJoined)
	}
}

func TestJoinForTheLongestTime(t *testing.T) {
	begin(t)
	th := start(t, come, new(stage))
	want(t, "JoinFor", th.JoinFor(math.MaxInt64), nil)
}

// TestStaleHandleMeetsRecordInUse asks for a thread that has been joined while
// its record goes to threads that are started detached.
func TestStaleHandleMeetsRecordInUse(t *testing.T) {
	begin(t)
	var over atomic.Bool
	var asking, starting sync.WaitGroup
	ran := new(atomic.Int64)
	for range 2 {
		starting.Go(func() {
			for !over.Load() {
				if _, err := lwp.StartAttr(count, ran, lwp.Attr{Detached: true}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 2 {
		asking.Go(func() {
			for range lwptest.Count(10_000, 2000) {
				th, err := lwp.Start(count, ran)
				if err == nil {
					err = th.Join()
				}
				if err != nil {
					t.Error(err)
					return
				}
				for range 100 {
					if err := th.Join(); err != lwp.ErrJoined {
						t.Errorf("second Join: %v, want %v", err, lwp.ErrJoined)
						return
					}
				}
			}
		})
	}
	asking.Wait()
	over.Store(true)
	starting.Wait()
	lwptest.Eventually(t, "all to end", func() bool { return len(lwp.Threads()) == 0 })
}
