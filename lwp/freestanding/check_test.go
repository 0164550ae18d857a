package freestanding_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	fs "lwprt/lwp/freestanding"
)

func TestWhatIsNoFuncIsRefused(t *testing.T) {
	var none func()
	for _, c := range []struct {
		fn   any
		want error
	}{{nil, fs.ErrNotFunc}, {4, fs.ErrNotFunc}, {&none, fs.ErrNotFunc}, {none, fs.ErrNilFunc}} {
		if _, err := fs.Check(c.fn); !errors.Is(err, c.want) {
			t.Errorf("%T: %v, want %v", c.fn, err, c.want)
		}
	}
}

//go:noinline
func allocates() { anInt = new(int) }

func TestExceptStopsAtTheFunctionNamed(t *testing.T) {
	caller := func() { allocates() }
	if r, err := fs.Check(caller); err != nil || r.OK() {
		t.Fatal(err, r)
	}
	name := "lwprt/lwp/freestanding_test.allocates"
	r, err := fs.Check(caller, fs.Except(name, "runs on goroutines only"))
	if err != nil || !r.OK() || len(r.Excepted) != 1 || !strings.Contains(r.String(), name+": runs on goroutines only") {
		t.Errorf("%v\n%v", err, r)
	}
	r, err = fs.Check(func() {}, fs.Except(name, "not called"))
	if err != nil || len(r.Excepted) != 0 {
		t.Errorf("%v\n%v", err, r)
	}
}

// recorder is a testing.TB that only fails.
type recorder struct {
	testing.TB
	failed []string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Errorf(f string, a ...any) { r.failed = append(r.failed, fmt.Sprintf(f, a...)) }

func TestTestFailsWithTheReport(t *testing.T) {
	var r recorder
	fs.Test(&r, func(a, b int) int { return a + b }, deep1, fs.WithinCapacity, func(s []int) []int { return append(s, 1) }, 5)
	if len(r.failed) != 2 || !strings.Contains(r.failed[0], "deep1 cannot run") || !strings.Contains(r.failed[1], "not a func") {
		t.Errorf("%q", r.failed)
	}
}

// The report is for people, who read the verdict first and then the chain.
func TestReportTellsTheChain(t *testing.T) {
	r, err := fs.Check(deep1)
	if err != nil {
		t.Fatal(err)
	}
	text := r.String()
	at := -1
	for _, want := range []string{"deep1 cannot run on a freestanding thread: 1 fault", "fault: planted_test.go:", ": HeapAllocation",
		"deep1 (", "planted_test.go:", "-> lwprt/lwp/freestanding_test.deep2 (", "-> lwprt/lwp/freestanding_test.deep3 (",
		"-> runtime.makeslice -> runtime.mallocgc", "barrier: planted_test.go:", "stack: "} {
		i := strings.Index(text[at+1:], want)
		if i < 0 {
			t.Fatalf("no %q after byte %d of\n%s", want, at, text)
		}
		at += 1 + i
	}
}

func TestSecondCheckSaysTheSame(t *testing.T) {
	for _, fn := range []any{deep1, fmt.Println, strings.Repeat} {
		a, err1 := fs.Check(fn)
		b, err2 := fs.Check(fn)
		if err1 != nil || err2 != nil || a.String() != b.String() {
			t.Errorf("%v %v\n%v\n%v", err1, err2, a, b)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	for b.Loop() {
		fs.Check(fmt.Println)
	}
}
