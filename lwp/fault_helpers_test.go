package lwp_test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// alive checks that the program goes on after a fault.
func alive(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	ch := make(chan int, 10)
	m := map[int]bool{}
	for i := range 1000 {
		wg.Go(func() { ch <- i })
	}
	for range 1000 {
		m[<-ch] = true
	}
	wg.Wait()
	runtime.GC()
	if len(m) != 1000 {
		t.Errorf("%d of 1000 goroutines", len(m))
	}
	n := 41
	th, err := lwp.Start(func(n *int) { *n++ }, &n)
	if err != nil {
		t.Fatal(err)
	}
	if err := th.Join(); err != nil || n != 42 {
		t.Errorf("the next thread made %d of 41: %v", n, err)
	}
}

// fault runs do(arg) on a thread and returns what it dies of.
func fault[T any](t *testing.T, do func(*T), arg *T, attr lwp.Attr) *lwp.Fault {
	t.Helper()
	th, err := lwp.StartAttr(do, arg, attr)
	if err != nil {
		t.Fatal(err)
	}
	var f *lwp.Fault
	lwptest.Within(t, "a thread that faults", func() { err = th.Join() })
	if !errors.As(err, &f) {
		t.Fatalf("joined with %v, not a Fault", err)
	}
	if f.Thread != th {
		t.Errorf("the fault is of %v, the thread was %v", f.Thread, th)
	}
	return f
}

// check compares a fault with what it should be; file is the test's.
func check(t *testing.T, f *lwp.Fault, want lwp.Reason, file string, line int) {
	t.Helper()
	if testing.Verbose() {
		t.Log(f)
	}
	if f.Reason != want {
		t.Errorf("%v (%v), want %v\n%s", f.Reason, f, want, f.Stack())
	}
	if !strings.Contains(f.Error(), want.String()) {
		t.Errorf("%q does not say %q", f, want)
	}
	if line == 0 {
		return
	}
	place := fmt.Sprintf("%s:%d", file, line)
	if !strings.Contains(f.Error(), place+")") {
		t.Errorf("%q does not say %s\n%s", f, place, f.Stack())
	}
	if !strings.Contains(f.Stack(), place+"\n") {
		t.Errorf("%s is not on the stack\n%s", place, f.Stack())
	}
}

func newGiven(t *testing.T) *given {
	t.Helper()
	name := t.TempDir() + "/f"
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	g := &given{
		n: 1000, s: strings.Repeat("long ", 100), any: "a string", ints: make([]int, 3),
		fn: func() {}, ch: make(chan int), ch2: make(chan int), m: map[int]int{}, big: map[string]int{},
		file: os.NewFile(uintptr(fd), name), log: log.New(new(bytes.Buffer), "", 0),
		seq: func(yield func(int) bool) {
			for i := 0; i < 3 && yield(i); i++ {
			}
		},
	}
	g.s = g.s[:200]
	for i := range 20 {
		g.big[strings.Repeat("k", i)] = i
	}
	// The File is the descriptor's only owner. One that a thread died in stays open.
	t.Cleanup(func() { g.file.Close() })
	return g
}
