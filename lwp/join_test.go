package lwp_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// stays starts a thread that stays until told to leave.
func stays(t testing.TB, attr lwp.Attr) (lwp.Thread, *stage) {
	t.Helper()
	s := new(stage)
	th := startAttr(t, stay, s, attr)
	s.up.Wait()
	return th, s
}

// everyJoin is every way to join from a goroutine.
var everyJoin = map[string]func(lwp.Thread) error{
	"Join":        lwp.Thread.Join,
	"TryJoin":     lwp.Thread.TryJoin,
	"JoinFor":     func(th lwp.Thread) error { return th.JoinFor(time.Minute) },
	"JoinContext": func(th lwp.Thread) error { return th.JoinContext(context.Background()) },
}

func TestSecondJoinIsRefused(t *testing.T) {
	begin(t)
	for first, joinFirst := range everyJoin {
		th, s := stays(t, lwp.Attr{})
		s.leave.Raise()
		gone(t, th.TID())
		want(t, first, joinFirst(th), nil)
		for second, joinSecond := range everyJoin {
			want(t, second+" after "+first, joinSecond(th), lwp.ErrJoined)
		}
		want(t, "Detach after "+first, th.Detach(), lwp.ErrJoined)
	}
}

func TestJoinOfDetachedIsRefused(t *testing.T) {
	begin(t)
	for name, joinIt := range everyJoin {
		th, s := stays(t, lwp.Attr{Detached: true})
		want(t, name, joinIt(th), lwp.ErrDetached)
		want(t, "Detach", th.Detach(), lwp.ErrDetached)
		tid := th.TID()
		s.leave.Raise()
		gone(t, tid)
		want(t, name+" after the end", joinIt(th), lwp.ErrDetached)
		lwp.Trim()
		want(t, name+" after it was collected", joinIt(th), lwp.ErrDetached)
		want(t, "Detach after it was collected", th.Detach(), lwp.ErrDetached)
	}
}

var selfCodes [5]atomic.Uint32

func TestJoinOfSelfIsRefused(t *testing.T) {
	begin(t)
	pool, err := lwp.NewPool(lwp.PoolConfig{})
	want(t, "NewPool", err, nil)
	for name, attr := range map[string]lwp.Attr{"joinable": {}, "detached": {Detached: true}, "pooled": {Pool: pool}} {
		up := new(lwptest.Flag)
		th := startAttr(t, func(up *lwptest.Flag) {
			self := lwp.Self()
			selfCodes[0].Store(uint32(lwptest.CodeOf(self.Join())))
			selfCodes[1].Store(uint32(lwptest.CodeOf(self.TryJoin())))
			selfCodes[2].Store(uint32(lwptest.CodeOf(self.JoinFor(time.Hour))))
			selfCodes[3].Store(uint32(lwptest.CodeOf(self.JoinContext(context.TODO()))))
			up.Raise()
		}, up, attr)
		up.Wait()
		for i := range 3 {
			if got := lwptest.Code(selfCodes[i].Load()); got != lwptest.CodeOf(lwp.ErrSelf) {
				t.Errorf("%s %d: %v, want %v", name, i, got, lwp.ErrSelf)
			}
		}
		if got := lwptest.Code(selfCodes[3].Load()); got != lwptest.CodeOf(lwp.ErrHosted) {
			t.Errorf("%s: JoinContext on a thread: %v, want %v", name, got, lwp.ErrHosted)
		}
		if name != "detached" {
			join(t, th)
		}
	}
	want(t, "Close", pool.Close(), nil)
}

func TestTryJoinDoesNotWait(t *testing.T) {
	begin(t)
	th, s := stays(t, lwp.Attr{})
	want(t, "TryJoin", th.TryJoin(), lwp.ErrRunning)
	s.leave.Raise()
	lwptest.Eventually(t, "TryJoin", func() bool {
		err := th.TryJoin()
		if err != nil {
			want(t, "TryJoin", err, lwp.ErrRunning)
		}
		return err == nil
	})
	want(t, "TryJoin", th.TryJoin(), lwp.ErrJoined)
}

func TestJoinForEndsInTime(t *testing.T) {
	begin(t)
	th, s := stays(t, lwp.Attr{})
	for _, d := range []time.Duration{20 * time.Millisecond, 1, 0, -time.Hour} {
		began := time.Now()
		want(t, "JoinFor", th.JoinFor(d), lwp.ErrTimeout)
		if took := time.Since(began); took < max(d, 0) || took > max(d, 0)+30*time.Second {
			t.Errorf("JoinFor(%v) took %v", d, took)
		}
	}
	go func() {
		time.Sleep(time.Millisecond)
		s.leave.Raise()
	}()
	want(t, "JoinFor", th.JoinFor(1<<63-1), nil)
}

func TestJoinContextEndsWithItsContext(t *testing.T) {
	begin(t)
	th, s := stays(t, lwp.Attr{})
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	deadline, cancel2 := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel2()
	later, cancel3 := context.WithCancel(context.Background())
	time.AfterFunc(5*time.Millisecond, cancel3)
	lwptest.Within(t, "JoinContext", func() {
		want(t, "cancelled before", th.JoinContext(cancelled), context.Canceled)
		want(t, "cancelled during", th.JoinContext(later), context.Canceled)
		want(t, "deadline", th.JoinContext(deadline), context.DeadlineExceeded)
		s.leave.Raise()
		want(t, "background", th.JoinContext(context.Background()), nil)
		th, s = stays(t, lwp.Attr{})
		s.leave.Raise()
		gone(t, th.TID())
		want(t, "ended before the context", th.JoinContext(cancelled), nil)
	})
}

// TestCancelMeetsEnd lets the end of the context and the end of the thread
// come at the same time. Either answer is right; an end of neither is not, nor
// a thread that cannot be joined after an answer of the context's.
func TestCancelMeetsEnd(t *testing.T) {
	begin(t)
	var cancels, joins int
	for range lwptest.Count(2000, 500) {
		th, s := stays(t, lwp.Attr{})
		ctx, cancel := context.WithCancel(context.Background())
		go s.leave.Raise()
		go cancel()
		lwptest.Within(t, "JoinContext", func() {
			switch err := th.JoinContext(ctx); err {
			case nil:
				joins++
			case context.Canceled:
				cancels++
				want(t, "Join", th.Join(), nil)
			default:
				t.Error(err)
			}
		})
	}
	t.Logf("%d joins, %d cancels", joins, cancels)
}

// waiters are threads that join another; package variables, as they pass
// nothing by the heap.
type waiter struct {
	of   lwp.Thread
	code atomic.Uint32
}

func waitFor(w *waiter) { w.code.Store(uint32(lwptest.CodeOf(w.of.Join()))) }

// crowd has n wait for th, goroutines and threads in turns, and returns when
// all of them are about to sleep. The result gives how many of them got which
// error, once all have returned.
func crowd(t testing.TB, th lwp.Thread, n int) (results func() map[lwptest.Code]int) {
	t.Helper()
	var wg sync.WaitGroup
	codes := make([]lwptest.Code, n)
	threads := make([]lwp.Thread, n)
	waiters := make([]waiter, n)
	ctx, cancel := context.WithCancel(context.Background())
	for i := range n {
		switch i % 4 {
		case 0:
			waiters[i].of = th
			threads[i] = start(t, waitFor, &waiters[i])
			continue
		case 1:
			wg.Go(func() { codes[i] = lwptest.CodeOf(th.Join()) })
		case 2:
			wg.Go(func() { codes[i] = lwptest.CodeOf(th.JoinFor(time.Hour)) })
		case 3:
			wg.Go(func() { codes[i] = lwptest.CodeOf(th.JoinContext(ctx)) })
		}
	}
	lwptest.Eventually(t, "waiters to wait", func() bool { return th.References() == n+1 })
	runtime.Gosched()
	return func() map[lwptest.Code]int {
		t.Helper()
		lwptest.Within(t, "those who wait for a thread", func() {
			wg.Wait()
			for i := range n {
				if i%4 == 0 {
					want(t, "join of a waiter", threads[i].Join(), nil)
					codes[i] = lwptest.Code(waiters[i].code.Load())
				}
			}
		})
		cancel()
		count := map[lwptest.Code]int{}
		for _, c := range codes {
			count[c]++
		}
		return count
	}
}

// everyKind runs a test for threads and for runs on a pool, which end in
// different ways.
func everyKind(t *testing.T, f func(t *testing.T, attr lwp.Attr)) {
	t.Run("thread", func(t *testing.T) {
		begin(t)
		f(t, lwp.Attr{})
	})
	t.Run("pooled", func(t *testing.T) {
		begin(t)
		p, err := lwp.NewPool(lwp.PoolConfig{})
		want(t, "NewPool", err, nil)
		f(t, lwp.Attr{Pool: p})
		lwptest.Within(t, "Close", func() { want(t, "Close", p.Close(), nil) })
	})
}

func TestOneOfManyWaitersJoins(t *testing.T) {
	everyKind(t, func(t *testing.T, attr lwp.Attr) {
		for range lwptest.Count(300, 50) {
			th, s := stays(t, attr)
			results := crowd(t, th, 8)
			s.leave.Raise()
			if got := results(); got[0] != 1 || got[lwptest.CodeOf(lwp.ErrJoined)] != 7 {
				t.Fatalf("eight waiters got %v", got)
			}
		}
	})
}

// TestTryJoinStealsNoWakeup joins under the eyes of sleeping waiters the moment the
// thread is gone: the kernel's one wake-up must still reach them all.
func TestTryJoinStealsNoWakeup(t *testing.T) {
	everyKind(t, func(t *testing.T, attr lwp.Attr) {
		for i := range lwptest.Count(600, 100) {
			th, s := stays(t, attr)
			n := 2 + i%3
			results := crowd(t, th, n)
			s.leave.Raise()
			stolen := 0
			for {
				err := th.TryJoin()
				if err == nil {
					stolen = 1
				}
				if err != lwp.ErrRunning {
					break
				}
			}
			if got := results(); got[0] != 1-stolen || got[lwptest.CodeOf(lwp.ErrJoined)] != n-1+stolen {
				t.Fatalf("%d waiters got %v, TryJoin joined %d", n, got, stolen)
			}
		}
	})
}

// TestDetachUnderWaiters takes the thread away from those who wait for it:
// they wait for its end nevertheless, and learn that they are late.
func TestDetachUnderWaiters(t *testing.T) {
	everyKind(t, func(t *testing.T, attr lwp.Attr) {
		for i := range lwptest.Count(600, 100) {
			th, s := stays(t, attr)
			n := 1 + i%4
			results := crowd(t, th, n)
			want(t, "Detach", th.Detach(), nil)
			s.leave.Raise()
			for th.TID() != 0 {
				lwp.Trim() // collects it, with luck before the waiters have woken
			}
			if got := results(); got[lwptest.CodeOf(lwp.ErrDetached)] != n {
				t.Fatalf("%d waiters got %v", n, got)
			}
		}
	})
}

// TestDetachMeetsEnd detaches when the thread ends: one of the two must see to
// it that the thread is collected.
func TestDetachMeetsEnd(t *testing.T) {
	everyKind(t, func(t *testing.T, attr lwp.Attr) {
		for i := range lwptest.Count(5000, 500) {
			s := new(stage)
			th := startAttr(t, come, s, attr)
			for range i % 100 {
				runtime.Gosched()
			}
			want(t, "Detach", th.Detach(), nil)
			want(t, "Detach", th.Detach(), lwp.ErrDetached)
		}
		lwptest.Eventually(t, "detached threads to be collected", func() bool {
			lwp.Trim()
			return len(lwp.Threads()) == 0 || attr.Pool != nil
		})
	})
}

// TestDetachMeetsJoin has one join and one detach: exactly one succeeds.
func TestDetachMeetsJoin(t *testing.T) {
	everyKind(t, func(t *testing.T, attr lwp.Attr) {
		for range lwptest.Count(1000, 200) {
			th, s := stays(t, attr)
			detached := make(chan error, 1)
			s.leave.Raise()
			go func() { detached <- th.Detach() }()
			err := th.Join()
			switch other := <-detached; {
			case err == nil:
				want(t, "Detach after Join", other, lwp.ErrJoined)
			case other == nil:
				want(t, "Join after Detach", err, lwp.ErrDetached)
			default:
				t.Fatalf("Join: %v, Detach: %v", err, other)
			}
		}
	})
}

var detachCodes [2]atomic.Uint32

func TestThreadDetachesItself(t *testing.T) {
	everyKind(t, func(t *testing.T, attr lwp.Attr) {
		up := new(lwptest.Flag)
		th := startAttr(t, func(up *lwptest.Flag) {
			detachCodes[0].Store(uint32(lwptest.CodeOf(lwp.Self().Detach())))
			detachCodes[1].Store(uint32(lwptest.CodeOf(lwp.Self().Detach())))
			up.Raise()
		}, up, attr)
		up.Wait()
		if got := lwptest.Code(detachCodes[0].Load()); got != 0 {
			t.Error("the first time: ", got)
		}
		if got := lwptest.Code(detachCodes[1].Load()); got != lwptest.CodeOf(lwp.ErrDetached) {
			t.Error("the second time: ", got)
		}
		want(t, "Join", th.Join(), lwp.ErrDetached)
	})
}

func TestDetachAfterEndCollects(t *testing.T) {
	begin(t)
	th, s := stays(t, lwp.Attr{})
	s.leave.Raise()
	gone(t, th.TID())
	want(t, "Detach", th.Detach(), nil)
	if th.TID() != 0 {
		t.Error("the thread has ended and was detached, and still is not collected")
	}
}

func TestJoinMakesPlainWritesVisible(t *testing.T) {
	everyKind(t, func(t *testing.T, attr lwp.Attr) {
		words := new([512]uint64)
		for round := range uint64(lwptest.Count(1000, 100)) {
			th := startAttr(t, func(words *[512]uint64) {
				for i := range words {
					words[i] = round
				}
			}, words, attr)
			for th.TryJoin() != nil {
				runtime.Gosched()
			}
			for i, w := range words {
				if w != round {
					t.Fatalf("round %d: word %d is %d", round, i, w)
				}
			}
		}
	})
}
