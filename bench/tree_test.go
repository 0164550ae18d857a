package bench

import (
	"fmt"
	"sync"
	"testing"

	"lwprt/sched"
)

// BenchmarkSkynet: one op is one node of a tree in which each has up to ten
// children, that many at once, and waits for them to add up what they return.
//
//   - fiber/op=join: Go and Join. Children work on their parent's stack frame;
//     stacks of 2 KiB.
//   - goroutine/op=join: go and WaitGroup, of the same shape. What children share
//     with their parent is allocated.
//   - fiber/op=chan: Go, detached, and a channel without a buffer for each parent,
//     on its frame, to which its children send what they return; stacks of 4 KiB.
//   - goroutine/op=chan: go and chan, of the same shape; the channel is allocated.
//
// workers= is the number of workers, or GOMAXPROCS.
func BenchmarkSkynet(b *testing.B) { compare(b, skynetRows) }

// BenchmarkFib: one op is one spawn of a recursive Fibonacci function, which
// spawns one of its two calls and makes the other itself; by the means of
// BenchmarkSkynet, but that fibers have the default stack, since half of the
// calls are plain ones and as deep as they come.
func BenchmarkFib(b *testing.B) { compare(b, fibRows) }

// treeRows are the rows of a tree program, on one and two workers.
func treeRows(op string, fiber func(b *testing.B, workers int) error, goroutine func(b *testing.B) error) (rows []row) {
	for _, n := range []int{1, 2} {
		rows = append(rows,
			row{fmt.Sprintf("impl=fiber/op=%s/workers=%d", op, n), func(b *testing.B) error {
				if err := needCPUs(n); err != nil {
					return err
				}
				return fiber(b, n)
			}},
			row{fmt.Sprintf("impl=goroutine/op=%s/workers=%d", op, n), withProcs(n, goroutine)})
	}
	return rows
}

var (
	skynetRows = append(treeRows("join", skynetFibers, skynetGoroutines), treeRows("chan", skynetChanFibers, skynetChanGoroutines)...)
	fibRows    = append(treeRows("join", fibFibers, fibGoroutines), treeRows("chan", fibChanFibers, fibChanGoroutines)...)
)

// A node is the root of n nodes, numbered from first on; it adds up their numbers.
type node struct {
	first, n, sum int
	failed        bool
}

// kids fills in the children of nd and returns how many those are.
func (nd *node) kids(kids *[10]node) int {
	rest := nd.n - 1
	k := min(rest, len(kids))
	at := nd.first + 1
	for i := range k {
		n := rest / (k - i)
		kids[i] = node{first: at, n: n}
		at += n
		rest -= n
	}
	return k
}

func skynetFibers(b *testing.B, workers int) error {
	nd := &node{n: b.N}
	if err := onFibers(b, workers, skynet, nd); err != nil {
		return err
	}
	if nd.failed {
		return fmt.Errorf("a fiber was not spawned or joined")
	}
	return did(nd.sum, b.N*(b.N-1)/2)
}

func skynet(nd *node) {
	nd.sum = nd.first
	if nd.n == 1 {
		return
	}
	var kids [10]node
	var f [10]sched.Fiber
	k := nd.kids(&kids)
	for i := range k {
		var err error
		if f[i], err = sched.Go(skynet, &kids[i]); err != nil {
			nd.failed = true
		}
	}
	for i := range k {
		if f[i].Join() != nil || kids[i].failed {
			nd.failed = true
		}
		nd.sum += kids[i].sum
	}
}

func skynetGoroutines(b *testing.B) error {
	nd := &node{n: b.N}
	b.ResetTimer()
	var wg sync.WaitGroup
	wg.Add(1)
	go skynetGoroutine(nd, &wg)
	wg.Wait()
	b.StopTimer()
	return did(nd.sum, b.N*(b.N-1)/2)
}

func skynetGoroutine(nd *node, parent *sync.WaitGroup) {
	defer parent.Done()
	nd.sum = nd.first
	if nd.n == 1 {
		return
	}
	var kids [10]node
	var wg sync.WaitGroup
	k := nd.kids(&kids)
	wg.Add(k)
	for i := range k {
		go skynetGoroutine(&kids[i], &wg)
	}
	wg.Wait()
	for i := range k {
		nd.sum += kids[i].sum
	}
}

// A fib is a call of the Fibonacci function; it counts the spawns below it.
type fib struct {
	n, value, spawns int
	failed           bool
}

// fibTrees has run make b.N spawns, by as many calls as it takes. A call for n
// makes one spawn less than the number at index n.
func fibTrees(b *testing.B, run func(n int) (spawns int)) error {
	numbers := []int{1, 1}
	for numbers[len(numbers)-1] <= b.N {
		numbers = append(numbers, numbers[len(numbers)-1]+numbers[len(numbers)-2])
	}
	done := 0
	for n := len(numbers) - 1; done < b.N; {
		if numbers[n]-1 > b.N-done {
			n--
			continue
		}
		done += run(n)
	}
	return did(done, b.N)
}

func fibFibers(b *testing.B, workers int) error {
	s, err := sched.New(sched.Config{Workers: workers}) // a stack that the recursion fits on
	if err != nil {
		return err
	}
	defer s.Close()
	b.ResetTimer()
	err = fibTrees(b, func(n int) int {
		c := &fib{n: n}
		if f, err := sched.Spawn(s, fibFiber, c); err != nil || f.Join() != nil || c.failed {
			return b.N + 1
		}
		return c.spawns
	})
	b.StopTimer()
	return err
}

func fibFiber(c *fib) {
	if c.n < 2 {
		c.value = c.n
		return
	}
	x, y := fib{n: c.n - 1}, fib{n: c.n - 2}
	f, err := sched.Go(fibFiber, &x)
	if err != nil {
		c.failed = true
		return
	}
	fibFiber(&y)
	if f.Join() != nil || x.failed || y.failed {
		c.failed = true
	}
	c.value = x.value + y.value
	c.spawns = x.spawns + y.spawns + 1
}

func fibGoroutines(b *testing.B) error {
	return fibTrees(b, func(n int) int {
		c := &fib{n: n}
		fibGoroutine(c)
		return c.spawns
	})
}

func fibGoroutine(c *fib) {
	if c.n < 2 {
		c.value = c.n
		return
	}
	x, y := fib{n: c.n - 1}, fib{n: c.n - 2}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		fibGoroutine(&x)
		wg.Done()
	}()
	fibGoroutine(&y)
	wg.Wait()
	c.value = x.value + y.value
	c.spawns = x.spawns + y.spawns + 1
}
