package sched_test

import (
	"errors"
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

// chooses waits in three queues at a time.
func (k *corner) chooses() {
	v, w := 0, 0
	if i, _ := sched.SelectWithin(sched.Until(&k.token), k.a.RecvCase(&v), k.b.RecvCase(&w)); i >= 0 {
		k.got.Add(1)
	}
}

// A waker sends as many values to a as there are takers.
type waker struct {
	k     *corner
	pause int
	over  atomic.Bool
	sent  int
}

func wakerOn(w *waker) {
	v := 1
	for n := 0; !w.over.Load(); n++ {
		for range w.pause {
			w.over.Load()
		}
		err := error(nil)
		if n%2 == 0 {
			err = w.k.a.TrySend(v)
		} else {
			_, err = sched.TrySelect(w.k.a.SendCase(&v))
		}
		if err == nil {
			w.sent++
		}
		if n%8 == 7 {
			sched.Yield()
		}
	}
}

// TestWakersMeetClose has values come for fibers that Close ends in a deadlock,
// at any moment of that. A fiber is there for the value or not; none stays in a
// queue after it has gone, not even one that was woken too late to run.
func TestWakersMeetClose(t *testing.T) {
	other := begin(t, 1)
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
		// By a goroutine, a thread, or a fiber of another scheduler.
		w := &waker{k: k, pause: round % 64 * 8}
		var wg sync.WaitGroup
		switch round % 3 {
		case 0:
			wg.Go(func() { wakerOn(w) })
		case 1:
			wg.Go(func() { lwptest.OnThread(t, wakerOn, w) })
		case 2:
			f := spawn(t, other, wakerOn, w)
			wg.Go(func() { within(t, "Join", f.Join) })
		}
		lwptest.Within(t, "Close", func() {
			if err := s.Close(); err != nil && !errors.Is(err, sched.ErrDeadlock) {
				t.Error("Close: ", err)
			}
		})
		w.over.Store(true)
		wg.Wait()
		sent := w.sent
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
