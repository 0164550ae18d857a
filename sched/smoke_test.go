package sched_test

import (
	"sync/atomic"
	"testing"

	"lwprt/sched"
)

func count(n *atomic.Int64) { n.Add(1) }

func TestSmoke(t *testing.T) {
	s, err := sched.New(sched.Config{Workers: 2, StackSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	n := new(atomic.Int64)
	f, err := sched.Spawn(s, func(n *atomic.Int64) {
		n.Add(1)
		for range 1000 {
			f, err := sched.Go(count, n)
			if err == nil {
				err = f.Join()
			}
			if err != nil {
				n.Add(-1000)
			}
		}
		for range 1000 { sched.Yield() }
	}, n)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Join(); err != nil {
		t.Fatal(err)
	}
	if n.Load() != 1001 {
		t.Fatal(n.Load())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
