package freestanding_test

import (
	"fmt"
	"iter"
	"math/rand"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	fs "lwprt/lwp/freestanding"
)

// What the functions below read and write, so that nothing is optimized away.
var (
	anInt     *int
	aSlice    []int
	aString   string
	someBytes []byte
	anAny     any
	aFunc     func() int
	aChan     chan int
	bChan     chan int
	aMap      map[string]int
	aMutex    sync.Mutex
	aPool     sync.Pool
	aPointer  atomic.Pointer[int]
	strs      []string
	aNode     *node
)

type node struct {
	next *node
	name string
	n    int
}

type point struct{ x, y int }

type shape interface{ area() int }

func (p point) area() int { anInt = new(int); return p.x * p.y } // defect: method value

func (p *point) grow() { aSlice = append(aSlice, p.x) } // defect: interface method

type grower interface{ grow() }

//go:noinline
func deep1(n int) { deep2(n) }

//go:noinline
func deep2(n int) { deep3(n) }

//go:noinline
func deep3(n int) { aSlice = make([]int, n) } // defect: three calls deep

func inlined1(n int) { inlined2(n + 1) }
func inlined2(n int) { anAny = n } // defect: inlined twice

//go:noinline
func generic[T any](v T) *T { return &v } // defect: generic

type sizer interface{ size() int }

type big int

//go:noinline
func (b big) size() int { aString = strings.Repeat("x", int(b)); return 1 } // defect: method of a type parameter

//go:noinline
func total[T sizer](list []T) (n int) {
	for _, v := range list {
		n += v.size()
	}
	return n
}

//go:noinline
func apply(f func(int) int, n int) int { return f(n) }

//go:noinline
func callGrow(g grower) { g.grow() }

//go:noinline
func recurse(n *node) int {
	if n == nil {
		return 0
	}
	return recurse(n.next) + n.n // defect: recursion
}

//go:noinline
func ping(n int) int {
	if n == 0 {
		return 0
	}
	return pong(n-1) + 1
}

//go:noinline
func pong(n int) int {
	if n == 0 {
		return 1
	}
	return ping(n-1) + 2 // defect: mutual recursion
}

//go:noinline
func fail(what string) { panic("it failed: " + what) } // defect: panic in a helper

func sequence(yield func(int) bool) {
	for i := range 3 {
		if !yield(i) {
			return
		}
	}
}

// where says in which list of the report a defect belongs.
type where int

const (
	fault where = iota
	conditional
	barrier
	unbounded
)

// planted are functions with one defect each, which is on the line with the
// comment "defect: name".
var planted = []struct {
	name   string
	fn     any
	where  where
	reason fs.Reason
}{
	{"new", func() { anInt = new(int) /* defect: new */ }, fault, fs.HeapAllocation},
	{"composite literal", func(n int) { aNode = &node{n: n} /* defect: composite literal */ }, fault, fs.HeapAllocation},
	{"make", func(n int) int { return len(make([]byte, n)) + cap(sliceOf(n)) }, fault, fs.HeapAllocation},
	{"append", func(n int) { aSlice = append(aSlice, n) /* defect: append */ }, fault, fs.HeapAllocation},
	{"escaping closure", func(n int) { aFunc = func() int { return n } /* defect: escaping closure */ }, fault, fs.HeapAllocation},
	{"concatenation", func(s string) { aString = s + "!" /* defect: concatenation */ }, fault, fs.HeapAllocation},
	{"bytes of a string", func(s string) { someBytes = []byte(s) /* defect: bytes of a string */ }, fault, fs.HeapAllocation},
	{"string of bytes", func(b []byte) { aString = string(b) /* defect: string of bytes */ }, fault, fs.HeapAllocation},
	{"conversion to interface", func(p point) { anAny = p /* defect: conversion to interface */ }, fault, fs.HeapAllocation},
	{"panic", func() { panic("always") /* defect: panic */ }, fault, fs.Panic},
	{"panic in a branch", func(n int) {
		if n < 0 {
			panic("negative") // defect: panic in a branch
		}
	}, conditional, fs.Panic},
	{"panic in a helper", func(n int) {
		if n < 0 {
			fail("n")
		}
	}, conditional, fs.Panic},
	{"division", func(a, b int) int { return a / b /* defect: division */ }, conditional, fs.DivideByZero},
	{"index", func(s []int, i int) int { return s[i] /* defect: index */ }, conditional, fs.IndexOutOfRange},
	{"slice bounds", func(s []int, i int) []int { return s[i:] /* defect: slice bounds */ }, conditional, fs.IndexOutOfRange},
	{"slice to array", func(s []int) [4]int { return [4]int(s) /* defect: slice to array */ }, conditional, fs.IndexOutOfRange},
	{"failing assertion", func(v any) int { return v.(int) /* defect: failing assertion */ }, conditional, fs.TypeAssertion},
	{"assertion to an interface", func(v any) shape { return v.(shape) /* defect: assertion to an interface */ }, fault, fs.TypeAssertion},
	{"send", func() { aChan <- 1 /* defect: send */ }, fault, fs.ChannelOperation},
	{"receive", func() int { return <-aChan /* defect: receive */ }, fault, fs.ChannelOperation},
	{"close", func() { close(aChan) /* defect: close */ }, fault, fs.ChannelOperation},
	{"select", func() int {
		select { // defect: select
		case n := <-aChan:
			return n
		case n := <-bChan:
			return n + 1
		}
	}, fault, fs.ChannelOperation},
	{"select with default", func() {
		select {
		case aChan <- 1: // defect: select with default
		default:
		}
	}, fault, fs.ChannelOperation},
	{"select without cases", func() {
		select {} // defect: select without cases
	}, fault, fs.ChannelOperation},
	{"make chan", func() { aChan = make(chan int, 1) /* defect: make chan */ }, fault, fs.ChannelOperation},
	{"go", func() { go fail("") /* defect: go */ }, fault, fs.GoStatement},
	{"Gosched", func() { runtime.Gosched() /* defect: Gosched */ }, fault, fs.Scheduler},
	{"LockOSThread", func() { runtime.LockOSThread() /* defect: LockOSThread */ }, fault, fs.Scheduler},
	{"time.Now", func() int { return time.Now().Nanosecond() /* defect: time.Now */ }, fault, fs.Clock},
	{"time.Sleep", func() { time.Sleep(time.Second) /* defect: time.Sleep */ }, fault, fs.Scheduler},
	{"println", func(n int) { println(n) /* defect: println */ }, fault, fs.Print},
	{"math/rand", func() int { return rand.Int() /* defect: math/rand */ }, fault, fs.Random},
	{"sync.Pool", func() { anAny = aPool.Get() /* defect: sync.Pool */ }, fault, fs.Scheduler},
	{"fmt", func(n int) { aString = fmt.Sprint(n) /* defect: fmt */ }, fault, fs.HeapAllocation},
	{"strings", func(n int) { aString = strings.Repeat("ab", n) /* defect: strings */ }, fault, fs.HeapAllocation},
	{"defer in a loop", func(n int) {
		for range n {
			defer aMutex.TryLock() // defect: defer in a loop
		}
	}, fault, fs.DeferStatement},
	{"nine defers", func() {
		defer aMutex.TryLock() // defect: nine defers
		defer aMutex.TryLock()
		defer aMutex.TryLock()
		defer aMutex.TryLock()
		defer aMutex.TryLock()
		defer aMutex.TryLock()
		defer aMutex.TryLock()
		defer aMutex.TryLock()
		defer aMutex.TryLock()
	}, fault, fs.DeferStatement},
	{"range over a func value", func(seq iter.Seq[int]) (n int) {
		for v := range seq { // defect: range over a func value
			n += v
		}
		return n
	}, fault, fs.HeapAllocation},
	{"iter.Pull", func() {
		_, stop := iter.Pull(sequence) // defect: iter.Pull
		stop()
	}, fault, fs.Scheduler},
	{"make map", func() { aMap = make(map[string]int) /* defect: make map */ }, fault, fs.MapOperation},
	{"map insertion", func(s string) { aMap[s] = 1 /* defect: map insertion */ }, fault, fs.MapOperation},
	{"range over a map", func() (n int) {
		for _, v := range aMap { // defect: range over a map
			n += v
		}
		return n
	}, fault, fs.MapOperation},
	{"clear of a map", func() { clear(aMap) /* defect: clear of a map */ }, fault, fs.MapOperation},
	{"system call", func(b []byte) { syscall.Write(1, b) /* defect: system call */ }, fault, fs.SystemCall},
	{"os.File", func(b []byte) { os.Stdout.Write(b) /* defect: os.File */ }, fault, fs.SystemCall},
	{"pointer store", func(p *node, q *node) { p.next = q /* defect: pointer store */ }, barrier, fs.WriteBarrier},
	{"string store", func(p *node, s string) { p.name = s /* defect: string store */ }, barrier, fs.WriteBarrier},
	{"struct store", func(p *node, q *node) { *p = *q /* defect: struct store */ }, barrier, fs.WriteBarrier},
	{"copy of pointers", func(s []string) { copy(strs, s) /* defect: copy of pointers */ }, barrier, fs.WriteBarrier},
	{"clear of pointers", func() { clear(strs) /* defect: clear of pointers */ }, barrier, fs.WriteBarrier},
	{"atomic.Pointer", func(p *int) { aPointer.Store(p) /* defect: atomic.Pointer */ }, barrier, fs.WriteBarrier},
	{"contended Mutex", func() { aMutex.Lock() /* defect: contended Mutex */ }, conditional, fs.Contention},
	{"Cond", func(c *sync.Cond) { c.Wait() /* defect: Cond */ }, fault, fs.Scheduler},
	{"three calls deep", func() { deep1(9) }, fault, fs.HeapAllocation},
	{"inlined twice", func(n int) { inlined1(n) }, fault, fs.HeapAllocation},
	{"generic", generic[point], fault, fs.HeapAllocation},
	{"method of a type parameter", func(s []big) int { return total(s) }, fault, fs.HeapAllocation},
	{"method value", point{1, 2}.area, fault, fs.HeapAllocation},
	{"interface method", func(p *point) { callGrow(p) }, fault, fs.HeapAllocation},
	{"func argument", func() int {
		return apply(func(n int) int { anInt = new(int); return n }, 4) // defect: func argument
	}, fault, fs.HeapAllocation},
	{"recursion", func(n *node) int { return recurse(n) }, unbounded, 0},
	{"mutual recursion", ping, unbounded, 0},
}

// sliceOf is what makes make's defect visible: its result escapes.
func sliceOf(n int) []int {
	s := make([]int, n) // defect: make
	aSlice = s
	return s
}

func TestPlantedDefectIsFound(t *testing.T) {
	lines := defects(t)
	for _, p := range planted {
		t.Run(p.name, func(t *testing.T) {
			r, err := fs.Check(p.fn)
			if err != nil {
				t.Fatal(err)
			}
			if p.where == unbounded {
				if len(r.Stack.Cycle) == 0 || !slices.ContainsFunc(r.Stack.Cycle, func(f fs.Frame) bool { return f.Line == lines[p.name] }) {
					t.Errorf("want a recursion through line %d, got\n%v", lines[p.name], r)
				}
				return
			}
			list := [][]fs.Finding{r.Faults, r.Conditional, r.Barriers}[p.where]
			for _, f := range list {
				if f.Reason == p.reason && f.Where().Line == lines[p.name] {
					return
				}
			}
			t.Errorf("want %v on line %d in list %d, got\n%v", p.reason, lines[p.name], p.where, r)
		})
	}
}

// defects returns the lines of the comments in this file.
func defects(t *testing.T) map[string]int {
	src, err := os.ReadFile("planted_test.go")
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]int{}
	n := 0
	for line := range strings.Lines(string(src)) {
		n++
		if _, name, ok := strings.Cut(line, "defect: "); ok {
			name, _, _ = strings.Cut(strings.TrimSpace(name), " */")
			lines[name] = n
		}
	}
	for _, p := range planted {
		if lines[p.name] == 0 {
			t.Fatalf("no line for %q", p.name)
		}
	}
	return lines
}
