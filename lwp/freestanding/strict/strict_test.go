package strict

import (
	"errors"
	"strings"
	"testing"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

var kept *int

func allocates(n *int) { kept = new(int); *n = 1 }
func adds(n *int)      { *n += 2 }

// startsStrict runs on a thread, where the checker cannot.
func startsStrict(code *lwptest.Code) {
	_, err := lwp.StartAttr(func(*lwptest.Code) {}, code, lwp.Attr{Strict: true})
	*code = lwptest.CodeOf(err)
}

func TestStrictRefusesWhatWouldFault(t *testing.T) {
	lwptest.SkipRace(t)
	n := 0
	for range 2 { // the second answer is remembered
		_, err := lwp.StartAttr(allocates, &n, lwp.Attr{Strict: true})
		var r *ReportError
		if !errors.As(err, &r) || r.OK() || !strings.Contains(err.Error(), "HeapAllocation") || !strings.Contains(err.Error(), "allocates") {
			t.Fatalf("a function that allocates: %v", err)
		}
	}
	if n != 0 {
		t.Fatal("the function has run")
	}
	for range 2 {
		th, err := lwp.StartAttr(adds, &n, lwp.Attr{Strict: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := th.Join(); err != nil {
			t.Fatal(err)
		}
	}
	if n != 4 {
		t.Fatalf("a clean function ran %d times, want 2", n/2)
	}
}

func TestStrictIsRefusedOnThreads(t *testing.T) {
	lwptest.SkipRace(t)
	var code lwptest.Code
	th, err := lwp.Start(startsStrict, &code)
	if err != nil {
		t.Fatal(err)
	}
	if err := th.Join(); err != nil {
		t.Fatal(err)
	}
	if code != lwptest.CodeOf(lwp.ErrHosted) {
		t.Errorf("got code %v, want ErrHosted", code)
	}
}
