package lwp_test

import (
	"testing"

	"lwprt/lwp"
	"lwprt/lwp/freestanding"
	"lwprt/lwp/lwptest"
)

// TestOwnCodeOfThreadsIsFreestanding checks what package freestanding cannot
// name: an allocation that gets into it would end every thread.
func TestOwnCodeOfThreadsIsFreestanding(t *testing.T) {
	lwptest.SkipRace(t)
	for name, fn := range lwp.OwnCode() {
		t.Run(name, func(t *testing.T) {
			r, err := freestanding.Check(fn)
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() {
				t.Error(r)
			}
			// The signal stack has 8 KiB for it, and the kernel's frame beside.
			if s := r.Stack; name == "onFault" && (s.Bytes > 6<<10 || len(s.Cycle) > 0) {
				t.Errorf("the handler may not fit on its stack\n%v", r)
			}
		})
	}
}
