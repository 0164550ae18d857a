package bench

import (
	"testing"

	"lwprt/sched"
)

// The forms with channels of the trees. A child gets its numbers, and its
// parent's channel, by a struct on its parent's frame, and sends what it returns;
// nothing joins it.

type chanNode struct {
	node
	parent *sched.Chan[int] // where the sum goes; -1 from where a spawn failed
}

// spawnDetached is Go of one that nobody joins.
func spawnDetached[T any](fn func(*T), arg *T) bool {
	_, err := sched.GoAttr(fn, arg, sched.Attr{Detached: true})
	return err == nil
}

func skynetChanFibers(b *testing.B, workers int) error {
	sum := 0
	c := &struct {
		nd  chanNode
		sum *int
		ch  sched.Chan[int]
	}{nd: chanNode{node: node{n: b.N}}, sum: &sum}
	c.nd.parent = &c.ch
	// A node with its children on its frame and a wait for them is too much for
	// the smallest stack.
	if err := onStacks(b, workers, 2*fiberStack, func(r *struct {
		nd  chanNode
		sum *int
		ch  sched.Chan[int]
	}) {
		if spawnDetached(skynetChan, &r.nd) {
			*r.sum, _ = r.ch.Recv()
		}
	}, c); err != nil {
		return err
	}
	return did(sum, total(b.N))
}

func skynetChan(nd *chanNode) {
	sum, parent := nd.first, nd.parent
	if nd.n > 1 {
		sum += nd.children()
	}
	parent.Send(sum) // after that nd may be gone
}

// children has the children of nd add up their numbers.
//
//go:noinline
func (nd *chanNode) children() (sum int) {
	var ch sched.Chan[int]
	var kids [10]chanNode
	rest := nd.n - 1
	k := min(rest, len(kids))
	at := nd.first + 1
	for i := range k {
		n := rest / (k - i)
		kids[i].first, kids[i].n = at, n
		kids[i].parent = &ch
		at += n
		rest -= n
	}
	for i := range k {
		if !spawnDetached(skynetChan, &kids[i]) {
			sum = -1 << 60 // and no one sends this one's
			k--
		}
	}
	for range k {
		v, _ := ch.Recv()
		sum += v
	}
	return sum
}

func skynetChanGoroutines(b *testing.B) error {
	ch := make(chan int)
	b.ResetTimer()
	go skynetChanGoroutine(&node{n: b.N}, ch)
	sum := <-ch
	b.StopTimer()
	return did(sum, total(b.N))
}

func skynetChanGoroutine(nd *node, parent chan int) {
	sum := nd.first
	if nd.n > 1 {
		ch := make(chan int)
		var kids [10]node
		k := nd.kids(&kids)
		for i := range k {
			go skynetChanGoroutine(&kids[i], ch)
		}
		for range k {
			sum += <-ch
		}
	}
	parent <- sum
}

// A chanFib is a fib with the channel of its parent.
type chanFib struct {
	n      int
	parent *sched.Chan[fibSum]
}

// A fibSum is what a call returns.
type fibSum struct{ value, spawns int }

func fibChanFibers(b *testing.B, workers int) error {
	s, err := sched.New(sched.Config{Workers: workers}) // a stack that the recursion fits on
	if err != nil {
		return err
	}
	defer s.Close()
	b.ResetTimer()
	err = fibTrees(b, func(n int) int {
		c := &fib{n: n}
		if f, err := sched.Spawn(s, fibChanRoot, c); err != nil || f.Join() != nil || c.failed {
			return b.N + 1
		}
		return c.spawns
	})
	b.StopTimer()
	return err
}

func fibChanRoot(c *fib) {
	r := fibChan(c.n)
	c.value, c.spawns, c.failed = r.value, r.spawns, r.spawns < 0
}

func fibChanFiber(c *chanFib) {
	parent := c.parent
	parent.Send(fibChan(c.n))
}

func fibChan(n int) fibSum {
	if n < 2 {
		return fibSum{value: n}
	}
	var ch sched.Chan[fibSum]
	c := chanFib{n - 1, &ch}
	if !spawnDetached(fibChanFiber, &c) {
		return fibSum{spawns: -1 << 60}
	}
	y := fibChan(n - 2)
	x, _ := ch.Recv()
	return fibSum{x.value + y.value, x.spawns + y.spawns + 1}
}

func fibChanGoroutines(b *testing.B) error {
	return fibTrees(b, func(n int) int { return fibGoChan(n).spawns })
}

func fibGoChan(n int) fibSum {
	if n < 2 {
		return fibSum{value: n}
	}
	ch := make(chan fibSum)
	go func() { ch <- fibGoChan(n - 1) }()
	y := fibGoChan(n - 2)
	x := <-ch
	return fibSum{x.value + y.value, x.spawns + y.spawns + 1}
}
