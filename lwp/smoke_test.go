package lwp

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

type box struct {
	n    atomic.Int64
	tid  int
	self Thread
}

func inc(b *box) { b.n.Add(1); b.self = Self(); b.tid = Self().TID() }

func TestSmoke(t *testing.T) {
	var b box
	th, err := Start(inc, &b)
	if err != nil {
		t.Fatal(err)
	}
	tid := th.TID()
	if err := th.Join(); err != nil {
		t.Fatal(err)
	}
	if b.n.Load() != 1 || b.tid != tid || b.self != th {
		t.Fatal(b.n.Load(), b.tid, tid)
	}
	if err := th.Join(); err != ErrJoined {
		t.Fatal(err)
	}
	for range 100000 {
		th, err := Start(inc, &b)
		if err != nil {
			t.Fatal(err)
		}
		if err := th.Join(); err != nil {
			t.Fatal(err)
		}
	}
	for range 100000 {
		_, err := StartAttr(inc, &b, Attr{Detached: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	p, err := NewPool(PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for range 100000 {
		th, err := StartAttr(inc, &b, Attr{Pool: p})
		if err != nil {
			t.Fatal(err)
		}
		if err := th.Join(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	if b.n.Load() != 300001 {
		t.Fatal(b.n.Load())
	}
	Trim()
	t.Log(Threads(), cache.bytes)
	th, err = Start(func(b *box) { Sleep(100 * time.Millisecond) }, &b)
	ctx, c := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer c()
	if err := th.JoinContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := th.JoinContext(context.Background()); err != nil {
		t.Fatal(err)
	}
}
func BenchmarkStart(b *testing.B) {
	var x box
	for b.Loop() {
		th, _ := Start(inc, &x)
		th.Join()
	}
}
func BenchmarkPool(b *testing.B) {
	var x box
	p, _ := NewPool(PoolConfig{})
	for b.Loop() {
		th, _ := StartAttr(inc, &x, Attr{Pool: p})
		th.Join()
	}
	p.Close()
}
