// Command skynet adds up numbers by a tree of green threads, in which each
// spawns ten and joins them, then by a tree of goroutines.
package main

import (
	"flag"
	"fmt"
	"log"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lwprt/sched"
)

const (
	fanout = 10
	rounds = 5
)

var leaves, want int // the numbers at the leaves are 0, 1, 2, ...; want is their sum

// A node has the sum of size numbers from first on to find.
type node struct {
	first, size, sum int
	failed           bool
}

// grow runs on a fiber. Its children work on its own stack frame, which is there
// until it has joined them; a stack of a fiber does not move.
func grow(nd *node) {
	if nd.size == 1 {
		nd.sum = nd.first
		return
	}
	var kids [fanout]node
	var fibers [fanout]sched.Fiber
	for i := range kids {
		kids[i].first, kids[i].size = nd.first+i*nd.size/fanout, nd.size/fanout
		fibers[i], _ = sched.Go(grow, &kids[i])
	}
	for i := range kids {
		if fibers[i].Join() != nil || kids[i].failed { // an error too where Go has failed
			nd.failed = true
		}
		nd.sum += kids[i].sum
	}
}

// growGoroutine is the same with a goroutine for each node. Its children's
// nodes are on the heap: who can be referred to from another stack is.
func growGoroutine(nd *node) {
	if nd.size == 1 {
		nd.sum = nd.first
		return
	}
	var kids [fanout]node
	var wg sync.WaitGroup
	for i := range kids {
		kids[i].first, kids[i].size = nd.first+i*nd.size/fanout, nd.size/fanout
		wg.Go(func() { growGoroutine(&kids[i]) })
	}
	wg.Wait()
	for i := range kids {
		nd.sum += kids[i].sum
	}
}

// A run is one tree.
type run struct {
	took  time.Duration
	nodes int
	stats sched.Stats
}

func fibers(workers int) (r run) {
	s, err := sched.New(sched.Config{Workers: workers, StackSize: 4 << 10})
	check(err)
	root := &node{size: leaves}
	begin := time.Now()
	f, err := sched.Spawn(s, grow, root)
	check(err)
	check(f.Join())
	r.took = time.Since(begin)
	if root.failed || root.sum != want {
		log.Fatalf("skynet: %d on %d workers, want %d", root.sum, workers, want)
	}
	r.stats = s.Stats()
	r.nodes = int(r.stats.Spawns) + 1 // Stats counts those that fibers have spawned
	check(s.Close())
	return r
}

func goroutines(procs int) (r run) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	root := &node{size: leaves}
	begin := time.Now()
	growGoroutine(root)
	r.took = time.Since(begin)
	if root.sum != want {
		log.Fatalf("skynet: %d by goroutines, want %d", root.sum, want)
	}
	return r
}

// Part 2: how many are there at the same time?

type census struct{ now, most atomic.Int64 }

func (c *census) born() {
	now := c.now.Add(1)
	for m := c.most.Load(); now > m && !c.most.CompareAndSwap(m, now); {
		m = c.most.Load()
	}
}

func (c *census) died() { c.now.Add(-1) }

type counted struct {
	*census
	size int
}

func growCounted(nd *counted) {
	if nd.size > 1 {
		var kids [fanout]counted
		var fibers [fanout]sched.Fiber
		for i := range kids {
			kids[i] = counted{nd.census, nd.size / fanout}
			nd.born()
			fibers[i], _ = sched.Go(growCounted, &kids[i])
		}
		for _, f := range fibers {
			f.Join()
		}
	}
	nd.died()
}

func growCountedGoroutine(nd *counted) {
	if nd.size > 1 {
		var wg sync.WaitGroup
		for range fanout {
			nd.born()
			wg.Go(func() { growCountedGoroutine(&counted{nd.census, nd.size / fanout}) })
		}
		wg.Wait()
	}
	nd.died()
}

func mostFibers() int64 {
	s, err := sched.New(sched.Config{Workers: 1, StackSize: 4 << 10})
	check(err)
	c := new(census)
	c.born()
	f, err := sched.Spawn(s, growCounted, &counted{c, leaves})
	check(err)
	check(f.Join())
	check(s.Close())
	return c.most.Load()
}

func mostGoroutines() int64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	c := new(census)
	c.born()
	growCountedGoroutine(&counted{c, leaves})
	return c.most.Load()
}

func main() {
	levels := flag.Int("levels", 5, "how `many` times the tree branches; the original does so 6 times")
	flag.Parse()
	if *levels < 0 || *levels > 8 {
		log.Fatal("skynet: -levels is from 0 to 8")
	}
	leaves = 1
	for range *levels {
		leaves *= fanout
	}
	want = leaves * (leaves - 1) / 2
	fmt.Printf("A tree of green threads, \"fibers\" from here on: each node spawns %d and joins them,\n"+
		"down to %d leaves, and returns the sum of the numbers 0 to %d below it.\n\n", fanout, leaves, leaves-1)

	type way struct {
		name string
		run  func() run
		all  []run
	}
	ways := []way{
		{name: "fibers, 1 worker", run: func() run { return fibers(1) }},
		{name: "goroutines, GOMAXPROCS=1", run: func() run { return goroutines(1) }},
		{name: "fibers, 2 workers", run: func() run { return fibers(2) }},
		{name: "goroutines, GOMAXPROCS=2", run: func() run { return goroutines(2) }},
	}
	for range rounds { // in turns, so that what else the machine does falls on all alike
		for i := range ways {
			ways[i].all = append(ways[i].all, ways[i].run())
		}
	}
	nodes := ways[0].all[0].nodes
	fmt.Printf("1. The sum is %d, by %d nodes\n\n", want, nodes)
	fmt.Printf("   %-26s %9s %10s %7s\n", "", "ms", "ns a node", "ratio")
	base := median(ways[0].all)
	for _, w := range ways {
		m := median(w.all)
		fmt.Printf("   %-26s %9.2f %10.0f %7.2f\n", w.name, m.Seconds()*1e3, float64(m)/float64(nodes), float64(m)/float64(base))
	}
	last := ways[2].all[rounds-1].stats
	fmt.Printf(`
   Medians of %d rounds. A node's price is its spawn, its join and two switches.
   The two workers shared the work by stealing: one that has nothing takes the older
   half of the other's queue. In the last round %d visits moved %d fibers, and the
   rest of the %d stayed where they were spawned.
`, rounds, last.Steals, last.Stolen, nodes)
	if runtime.NumCPU() == 1 {
		fmt.Print("   This process may use one CPU only: a second worker, or P, has nowhere to run.\n")
	}

	fmt.Printf("\n2. How many there are at the same time\n\n   fibers, 1 worker:         at most %d\n", mostFibers())
	fmt.Printf("   goroutines, GOMAXPROCS=1: at most %d\n", mostGoroutines())
	fmt.Printf(`
   One that joins a child which is ready runs it at once, the newest child being next:
   the tree is walked depth first, and few stacks are in use, which the caches keep.
   Goroutines mostly wait their turn in a queue, so whole levels of the tree wait
   there together, each with a stack. Thieves take the oldest for the same reason: those
   have the largest trees below them, and need not be stolen from again soon.
`)
}

func median(runs []run) time.Duration {
	var v []time.Duration
	for _, r := range runs {
		v = append(v, r.took)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func check(err error) {
	if err != nil {
		log.Fatal("skynet: ", err)
	}
}
