// Command faults makes ten mistakes on threads, one after another. Each ends
// its thread and nothing else: Join returns what happened and where, the
// program goes on, and a second thread does the same thing in a way that works.
package main

import (
	"fmt"
	"log"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
)

// work is what the threads work on.
type work struct {
	next   *work
	nums   []int
	index  int
	zero   int
	ch     chan int
	square map[int]int
	ready  futex.Event
	arena  lwp.Arena
	result int
}

// A step is a mistake and what to do in its place. Both run on a thread.
type step struct {
	title   string
	wrong   func(*work)
	instead string
	right   func(*work)
	attr    lwp.Attr // of the thread that does it right
}

// The mistakes.

func followNil(w *work) {
	w.result = w.next.index // mistake 1
}

func indexBeyond(w *work) {
	w.result = w.nums[w.index] // mistake 2
}

func divide(w *work) {
	w.result = w.index / w.zero // mistake 3
}

func allocate(w *work) {
	w.next = &work{index: 1} // mistake 4
}

func printIt(w *work) {
	fmt.Println("the index is", w.zero) // mistake 5
}

func receive(w *work) {
	w.result = <-w.ch // mistake 6
}

func growMap(w *work) {
	for i := range 100 {
		w.square[i] = i * i // mistake 7
	}
}

func startGoroutine(w *work) {
	go hosted() // mistake 8
}

func pause(w *work) {
	time.Sleep(time.Millisecond) // mistake 9
}

func recurse(w *work) {
	w.result = depth(100_000) // mistake 10
}

func hosted() {}

var ladder = []step{
	{
		"follow a nil pointer",
		followNil,
		"look before you follow it",
		func(w *work) {
			if w.next == nil {
				w.result = 1
			}
		},
		lwp.Attr{},
	}, {
		"index beyond the end",
		indexBeyond,
		"compare with len",
		func(w *work) {
			if w.index >= len(w.nums) {
				w.result = len(w.nums)
			}
		},
		lwp.Attr{},
	}, {
		"divide by zero",
		divide,
		"test the divisor: a thread cannot recover",
		func(w *work) {
			if w.zero == 0 {
				w.result = w.index
			}
		},
		lwp.Attr{},
	}, {
		"allocate",
		allocate,
		"take memory from an Arena",
		func(w *work) {
			if p, err := lwp.New[work](&w.arena); err == nil {
				p.index = 42
				w.result = p.index
			}
		},
		lwp.Attr{},
	}, {
		"print",
		printIt,
		"use a Line",
		func(w *work) {
			var l lwp.Line
			l.Str("   thread: the index is ").Int(int64(w.index)).Print()
			w.result = 1
		},
		lwp.Attr{},
	}, {
		"receive from a channel",
		receive,
		"wait for an Event of package futex",
		func(w *work) {
			w.ready.Wait()
			w.result = 1
		},
		lwp.Attr{},
	}, {
		"have a map grow",
		growMap,
		"overwrite what is there, or use a slice",
		func(w *work) {
			for i := range w.nums {
				w.nums[i] = i * i
			}
			w.result = len(w.nums)
		},
		lwp.Attr{},
	}, {
		"start a goroutine",
		startGoroutine,
		"start a thread",
		func(w *work) {
			child, err := lwp.Start(func(w *work) { w.result = 1 }, w)
			if err == nil {
				child.Join()
			}
		},
		lwp.Attr{},
	}, {
		"ask package time for a pause",
		pause,
		"use lwp.Sleep",
		func(w *work) {
			lwp.Sleep(time.Millisecond)
			w.result = 1
		},
		lwp.Attr{},
	}, {
		"recurse too deep",
		recurse,
		"ask for the stack that it takes",
		recurse,
		lwp.Attr{StackSize: 64 << 20},
	},
}

// depth counts its own calls.
//
//go:noinline
func depth(n int) int {
	if n == 0 {
		return 0
	}
	return depth(n-1) + 1
}

func main() {
	for i, s := range ladder {
		fmt.Printf("%d. A thread is to %s.\n", i+1, s.title)
		err := run(s.wrong, lwp.Attr{}, new(work))
		fmt.Printf("   %v\n", err)
		if f, ok := err.(*lwp.Fault); !ok || f.Reason == lwp.Unknown {
			log.Fatal("that was to be a fault")
		}
		w := &work{nums: make([]int, 3), index: 3}
		fmt.Printf("   Instead: %s.\n", s.instead)
		w.ready.Set()
		if err := run(s.right, s.attr, w); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("   It works: %d.\n", w.result)
		w.arena.Close()
	}

	fmt.Println("A fault has a stack, too:")
	f := run(func(w *work) { outer(w) }, lwp.Attr{Name: "explorer"}, new(work)).(*lwp.Fault)
	fmt.Printf("%v, %v\n%s", f.Reason, unix.SignalName(f.Signal), f.Stack())
	fmt.Println("The program goes on.")
}

//go:noinline
func outer(w *work) { inner(w, w.next) }

//go:noinline
func inner(w, none *work) { w.result = none.index }

// run runs do on a thread and returns what Join says.
func run(do func(*work), attr lwp.Attr, w *work) error {
	w.ch, w.square = make(chan int), map[int]int{}
	t, err := lwp.StartAttr(do, w, attr)
	if err != nil {
		log.Fatal(err)
	}
	return t.Join()
}
