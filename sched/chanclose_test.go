package sched_test

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A corner is where fibers of a scheduler wait that is being closed, while
// others use the same channels.
type corner struct {
	a, b  ints
	token sched.Token
	got   atomic.Int64
}

// choosers waits in three queues at a time.
func (k *corner) chooses() {
	v, w := 0, 0
	if i, _ := sched.SelectWithin(sched.Until(&k.token), k.a.RecvCase(&v), k.b.RecvCase(&w)); i >= 0 {
		k.got.Add(1)
	}
}

// TestWakersMeetClose has values come for fibers that Close ends in a deadlock,
// at any moment of that. A fiber is there for the value or not; none stays in a
// queue after it has gone, not even one that was woken too late to run.
func TestWakersMeetClose(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	late := 0
	for round := range lwptest.Count(300, 100) {
		s, err := sched.New(sched.Config{Workers: 1 + round%4, StackSize: 4 << 10})
		if err != nil {
			t.Fatal(err)
		}
		k := new(corner)
		for range 3 {
			spawnAttr(t, s, (*corner).chooses, k, sched.Attr{Worker: round % 2})
		}
		lwptest.Eventually(t, "three to wait", func() bool { return k.b.Waiting() == 3 })
		var over atomic.Bool
		var wg sync.WaitGroup
		sent := 0
		wg.Go(func() {
			for !over.Load() {
				for range round % 64 * 8 {
					runtime.KeepAlive(k)
				}
				if k.a.TrySend(1) == nil {
					sent++
				}
				if round%8 == 7 {
					runtime.Gosched()
				}
			}
		})
		lwptest.Within(t, "Close", func() {
			if err := s.Close(); err != nil && !errors.Is(err, sched.ErrDeadlock) {
				t.Error("Close: ", err)
			}
		})
		over.Store(true)
		wg.Wait()
		if int(k.got.Load()) > sent {
			t.Errorf("%d values sent, %d received", sent, k.got.Load())
		}
		late += sent - int(k.got.Load())
		if !k.a.Deserted() || !k.b.Deserted() || !k.token.Deserted() {
			t.Fatalf("round %d: %d sent, %d received; somebody who is gone is in a queue", round, sent, k.got.Load())
		}
	}
	t.Logf("%d values went to fibers that were not to run any more", late)
}
