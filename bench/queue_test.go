package bench

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"lwprt/lwp"
	"lwprt/sched"
)

// BenchmarkQueue: one op is to send a value of eight bytes and to receive it. The
// sender and the receiver run on two CPUs and do nothing else; the receiver adds
// up what it gets.
//
//   - ring: lwp.Ring for one sender and one receiver, between two threads. It
//     carries values without pointers.
//   - ringmpmc: the same for many of either.
//   - ringgo: lwp.Ring for one and one between two goroutines.
//   - chan: a channel between two goroutines, with GOMAXPROCS=2. They may take
//     turns on one thread, and mostly do where one has to wait for the other.
//   - lockedchan: the same with both goroutines locked to threads of their own.
//   - fibers: lwp.Ring between two fibers of one worker.
//
// cap is the capacity. With 1 every value is a hand-over, and where a side falls
// asleep its wake-up.
func BenchmarkQueue(b *testing.B) { compare(b, queueRows) }

var queueRows = func() (rows []row) {
	for _, capacity := range []int{1, 64, 1024} {
		name := func(impl string) string { return fmt.Sprintf("impl=%s/cap=%d", impl, capacity) }
		rows = append(rows,
			row{name("ring"), func(b *testing.B) error { return queueThreads(b, capacity, lwp.SPSC) }},
			row{name("ringmpmc"), func(b *testing.B) error { return queueThreads(b, capacity, lwp.MPMC) }},
			row{name("ringgo"), withProcs(2, func(b *testing.B) error { return queueGo(b, capacity) })},
			row{name("chan"), withProcs(2, func(b *testing.B) error { return queueChan(b, capacity, false) })},
			row{name("lockedchan"), withProcs(2, func(b *testing.B) error { return queueChan(b, capacity, true) })},
		)
	}
	return append(rows,
		row{"impl=fibers/cap=64", queueFibers},
	)
}()

type queueEnd struct {
	*gate
	r      *lwp.Ring[uint64]
	n      int
	sum    uint64
	failed bool
}

func (e *queueEnd) send() {
	e.pass()
	for i := range uint64(e.n) {
		if e.r.Send(i) != nil {
			e.failed = true
			return
		}
	}
}

func (e *queueEnd) recv() {
	e.pass()
	for range e.n {
		v, err := e.r.Recv()
		if err != nil {
			e.failed = true
			return
		}
		e.sum += v
	}
}

// queued checks the sum of what was received.
func queued(b *testing.B, send, recv *queueEnd) error {
	if send.failed || recv.failed {
		return fmt.Errorf("an end of the queue failed")
	}
	n := uint64(b.N)
	return did(recv.sum, n*(n-1)/2)
}

func queueThreads(b *testing.B, capacity int, kind lwp.RingKind) error {
	return queueWith(b, capacity, kind, (*queueEnd).send, (*queueEnd).recv)
}

func queueWith(b *testing.B, capacity int, kind lwp.RingKind, send, recv func(*queueEnd)) error {
	if err := twoCPUs(); err != nil {
		return err
	}
	r, err := lwp.NewRing[uint64](capacity, kind)
	if err != nil {
		return err
	}
	defer r.Free()
	g := new(gate)
	s, v := &queueEnd{gate: g, r: r, n: b.N}, &queueEnd{gate: g, r: r, n: b.N}
	ts, err := lwp.Start(send, s)
	if err != nil {
		return err
	}
	tr, err := lwp.Start(recv, v)
	if err != nil {
		g.release()
		r.Close()
		ts.Join()
		return err
	}
	g.wait(2)
	b.ResetTimer()
	g.release()
	err = ts.Join()
	if e := tr.Join(); err == nil {
		err = e
	}
	b.StopTimer()
	if err != nil {
		return err
	}
	return queued(b, s, v)
}

func queueGo(b *testing.B, capacity int) error {
	r, err := lwp.NewRing[uint64](capacity, lwp.SPSC)
	if err != nil {
		return err
	}
	defer r.Free()
	g := new(gate)
	s, v := &queueEnd{gate: g, r: r, n: b.N}, &queueEnd{gate: g, r: r, n: b.N}
	var wg sync.WaitGroup
	wg.Go(s.send)
	wg.Go(v.recv)
	g.wait(2)
	b.ResetTimer()
	g.release()
	wg.Wait()
	b.StopTimer()
	return queued(b, s, v)
}

func queueChan(b *testing.B, capacity int, locked bool) error {
	c := make(chan uint64, capacity)
	g := new(gate)
	s, v := &queueEnd{n: b.N}, &queueEnd{n: b.N}
	var wg sync.WaitGroup
	wg.Go(func() {
		if locked {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		g.pass()
		for i := range uint64(s.n) {
			c <- i
		}
	})
	wg.Go(func() {
		if locked {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		g.pass()
		for range v.n {
			v.sum += <-c
		}
	})
	g.wait(2)
	b.ResetTimer()
	g.release()
	wg.Wait()
	b.StopTimer()
	return queued(b, s, v)
}

// queueFibers has both ends on fibers of one worker.
func queueFibers(b *testing.B) error {
	r, err := lwp.NewRing[uint64](64, lwp.SPSC)
	if err != nil {
		return err
	}
	defer r.Free()
	g := &gate{open: 1}
	s, v := &queueEnd{gate: g, r: r, n: b.N}, &queueEnd{gate: g, r: r, n: b.N}
	type both struct{ s, v *queueEnd }
	if err := onFibers(b, 1, func(x *both) {
		f, err := sched.Go((*queueEnd).recv, x.v)
		if err != nil {
			x.s.failed = true
			return
		}
		x.s.send()
		f.Join()
	}, &both{s, v}); err != nil {
		return err
	}
	return queued(b, s, v)
}
