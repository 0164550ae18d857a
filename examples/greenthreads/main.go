// Command greenthreads has a hundred thousand green threads exist at the same
// time and yield a million times, then as many goroutines. It takes a few
// seconds; flag -n has it do so with more or fewer.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/sched"
)

const (
	each   = 10 // yields of one, in the time that is measured
	rounds = 3
)

var n, all int64 // how many there are, and their yields

// A crowd is what all of them share. Fibers of one worker could count without
// atomic operations, goroutines of one P not: they are preempted anywhere.
type crowd struct {
	came, yields, woken atomic.Int64
	fibers              []sched.Fiber

	begin, end int64 // ns of CPU time, when the last has come and when the last yields last
	failed     bool
}

// turns is the life of one, fiber or goroutine, but for how it waits until all
// have come, which the last of them tells, and how it yields.
func (c *crowd) turns(wait, tell, yield func()) {
	if c.came.Add(1) == n {
		tell()
		c.begin = cpuTime()
	}
	wait()
	for range each {
		if c.yields.Add(1) == all {
			c.end = cpuTime()
		}
		yield()
	}
}

// member runs on a fiber. It waits by one yield: those who yield come again in
// order, after all who were there.
func member(c *crowd) {
	c.turns(sched.Yield, nothing, sched.Yield)
	sched.Park("the end")
	c.woken.Add(1)
}

func nothing() {}

// fill runs on a fiber. The handles that it stores hold no pointers: they may
// lie on the Go heap.
func fill(c *crowd) {
	for i := range c.fibers {
		var err error
		if c.fibers[i], err = sched.Go(member, c); err != nil {
			c.failed = true // not the error: a pointer must not be stored in the Go heap
			return
		}
	}
	for range 2 + each {
		sched.Yield() // everybody's turn comes between two of these
	}
}

func empty(c *crowd) {
	for _, f := range c.fibers {
		f.Unpark()
	}
	for _, f := range c.fibers {
		f.Join()
	}
}

// figures are ns of CPU time or bytes, for one of n.
type figures struct{ create, yield, wake, memory float64 }

func onFibers() (r [rounds]figures) {
	s, err := sched.New(sched.Config{Workers: 1, StackSize: sched.MinStackSize})
	check(err)
	for i := range r {
		c := &crowd{fibers: make([]sched.Fiber, n)}
		clear(c.fibers) // touched before memory is looked at
		run := func(fn func(*crowd)) {
			f, err := sched.Spawn(s, fn, c)
			check(err)
			check(f.Join())
			if c.failed {
				log.Fatal("greenthreads: a fiber could not be made")
			}
		}
		before, begin := resident(), cpuTime()
		run(fill)
		r[i] = c.figures(begin, resident()-before)
		begin = cpuTime()
		run(empty)
		r[i].wake = float64(cpuTime()-begin) / float64(n)
		c.check()
	}
	check(s.Close())
	return r
}

func onGoroutines() (r [rounds]figures) {
	runtime.GC()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for i := range r {
		c := new(crowd)
		var in, out sync.WaitGroup
		start, open := make(chan struct{}), make(chan struct{})
		in.Add(int(n))
		before, begin := resident(), cpuTime()
		for range n {
			out.Go(func() {
				c.turns(func() { <-start }, func() { close(start) }, runtime.Gosched)
				in.Done()
				<-open
				c.woken.Add(1)
			})
		}
		in.Wait()
		r[i] = c.figures(begin, resident()-before)
		begin = cpuTime()
		close(open)
		out.Wait()
		r[i].wake = float64(cpuTime()-begin) / float64(n)
		c.check()
	}
	return r
}

func (c *crowd) figures(begin int64, memory int) figures {
	return figures{
		create: float64(c.begin-begin) / float64(n),
		yield:  float64(c.end-c.begin) / float64(all),
		memory: float64(memory) / float64(n),
	}
}

// cpuTime returns the CPU time of the process, which other programs that run
// meanwhile do not add to. It works on fibers, where time.Now does not.
func cpuTime() int64 {
	var t unix.Timespec
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_PROCESS_CPUTIME_ID, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}

// check sees to it that all have done what the figures are of.
func (c *crowd) check() {
	if c.came.Load() != n || c.yields.Load() != all || c.woken.Load() != n {
		log.Fatalf("greenthreads: %d came, %d yields, %d woken", c.came.Load(), c.yields.Load(), c.woken.Load())
	}
}

func main() {
	flag.Int64Var(&n, "n", 100_000, "how `many` there are")
	flag.Parse()
	if n < 1 {
		log.Fatal("greenthreads: there must be one at least")
	}
	all = n * each
	fmt.Printf("%d green threads, \"fibers\" from here on, exist at the same time on one worker, a\n"+
		"kernel thread. Each yields %d times, parks, is woken, and joined. Then as many\n"+
		"goroutines do so, with GOMAXPROCS=1.\n\n", n, each)
	fibers, goroutines := onFibers(), onGoroutines()
	fmt.Printf("   %-24s %10s %12s %8s\n", "for each of them", "fibers", "goroutines", "ratio")
	row := func(what string, of func(figures) float64, pick func([]float64) float64) {
		f, g := pick(column(fibers, of)), pick(column(goroutines, of))
		fmt.Printf("   %-24s %10.0f %12.0f %8.1f\n", what, f, g, g/f)
	}
	create := func(r figures) float64 { return r.create }
	row("create and come, ns", create, first)
	row("the same again, ns", create, func(v []float64) float64 { return median(v[1:]) })
	row("yield, ns", func(r figures) float64 { return r.yield }, median)
	row("wake, end and join, ns", func(r figures) float64 { return r.wake }, median)
	row("resident memory, bytes", func(r figures) float64 { return r.memory }, first)
	fmt.Printf(`
   The time is that of the CPU, the median of %d rounds of %d yields where it is not
   said to be of the first.

   create   A fiber is a slot of a chunk of memory: stack and descriptor, nothing to
            allocate. The first time, the kernel's part decides: it clears each page, and
            is faster at that where it has huge pages left.
   yield    Go's compiled code keeps nothing in registers across a call, so a fiber saves
            its stack pointer, frame pointer and return address, and goes on with the next
            in a ring. Gosched goes through a queue under a lock. With so many, both wait
            for memory: no cache holds the stacks. Two fibers yield several times faster.
   memory   Stacks of %d bytes, which do not grow; a goroutine's begins at as much, and
            does. That is what a goroutine's higher price buys, beside preemption, the
            heap, and all of Go.
`, rounds, all, sched.MinStackSize)
}

func column(rounds [rounds]figures, of func(figures) float64) []float64 {
	var v []float64
	for _, r := range rounds {
		v = append(v, of(r))
	}
	return v
}

func first(v []float64) float64 { return v[0] }

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

// resident returns the process's resident memory in bytes.
func resident() int {
	b, err := os.ReadFile("/proc/self/statm")
	check(err)
	var total, pages int
	_, err = fmt.Fscan(strings.NewReader(string(b)), &total, &pages)
	check(err)
	return pages * os.Getpagesize()
}

func check(err error) {
	if err != nil {
		log.Fatal("greenthreads: ", err)
	}
}
