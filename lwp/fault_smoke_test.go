package lwp

import (
	"runtime"
	"sync/atomic"
	"testing"
	"unsafe"
)

var sink any
var psink *int

type fbox struct {
	p  *int
	s  []int
	n  int
	ch chan int
	m  map[int]int
}

//go:noinline
func deep(n int) int {
	var a [100]int
	a[n%100] = n
	if n == 0 {
		return 0
	}
	return deep(n-1) + a[(n+1)%100]
}

func TestFaultSmoke(t *testing.T) {
	var b fbox
	b.ch = make(chan int)
	b.m = map[int]int{}
	cases := []struct {
		name string
		fn   func(*fbox)
		want Reason
	}{
		{"nil", func(b *fbox) { *b.p = 1 }, NilDereference},
		{"alloc", func(b *fbox) { psink = new(int) }, HeapAllocation},
		{"make", func(b *fbox) { b.n = len(make([]int, b.n+10000)); sink = b.n + 1000 }, HeapAllocation},
		{"div", func(b *fbox) { b.n = 1 / b.n }, DivideByZero},
		{"index", func(b *fbox) { b.n = b.s[b.n] }, IndexOutOfRange},
		{"panic", func(b *fbox) { panic("x") }, Panic},
		{"send", func(b *fbox) { b.ch <- 1 }, ChannelOperation},
		{"recv", func(b *fbox) { <-b.ch }, ChannelOperation},
		{"map", func(b *fbox) {
			for i := range 100 {
				b.m[i] = i
			}
		}, MapOperation},
		{"go", func(b *fbox) { go func() {}() }, GoStatement},
		{"gosched", func(b *fbox) { runtime.Gosched() }, GoStatement},
		{"deep", func(b *fbox) { b.n = deep(1000000) }, StackOverflow},
		{"addr", func(b *fbox) { *(*int)(pointer(0x123456789)) = 1 }, BadAddress},
		{"noncanon", func(b *fbox) { *(*int)(pointer(0x1234567890123456)) = 1 }, BadAddress},
		{"abort", func(b *fbox) { Abort("hello") }, Explicit},
	}
	for _, c := range cases {
		b.n = 0
		th, err := Start(c.fn, &b)
		if err != nil {
			t.Fatal(err)
		}
		err = th.Join()
		f, ok := err.(*Fault)
		if !ok {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if f.Reason != c.want {
			t.Errorf("%s: %v, want %v\n%s", c.name, f, c.want, f.Stack())
		}
		if testing.Verbose() {
			t.Logf("%v\n%s", f, f.Stack())
		}
	}
}

type node struct {
	next *node
	s    string
	b    []byte
	i    any
}
type lists struct {
	n     atomic.Int64
	stop  atomic.Bool
	nodes [64]node
	ap    atomic.Pointer[node]
}

func build(l *lists) {
	for !l.stop.Load() {
		for i := range l.nodes {
			l.nodes[i].next = &l.nodes[(i*7)%64]
			l.nodes[i].s = "abc"
			l.nodes[i].b = l.nodes[i].b[:0]
			l.nodes[i].i = l
		}
		copy(l.nodes[:32], l.nodes[32:])
		clear(l.nodes[10:20])
		l.nodes[3] = l.nodes[4]
		l.ap.Store(&l.nodes[3])
		l.ap.Swap(&l.nodes[4])
		l.ap.CompareAndSwap(&l.nodes[4], nil)
		l.n.Add(1)
	}
}
func TestBarrierSmoke(t *testing.T) {
	addr, _ := mmap(1<<20, 0x22)
	l := (*lists)(pointer(addr))
	var ths []Thread
	th, err := Start(build, l)
	if err != nil {
		t.Fatal(err)
	}
	ths = append(ths, th)
	for range 300 {
		runtime.GC()
	}
	l.stop.Store(true)
	for _, th := range ths {
		if err := th.Join(); err != nil {
			t.Fatal(err, err.(*Fault).Stack())
		}
	}
	t.Log(l.n.Load())
	_ = unsafe.Pointer(l)
}
