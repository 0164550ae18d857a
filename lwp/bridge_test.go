package lwp_test

import (
	"testing"

	"lwprt/lwp"
	fs "lwprt/lwp/freestanding"
	"lwprt/lwp/lwptest"
)

func TestBridgeCannotFault(t *testing.T) {
	lwptest.SkipRace(t)
	for name, fn := range lwp.OnOwnStack {
		t.Run(name, func(t *testing.T) {
			r, err := fs.Check(fn)
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() {
				t.Error(r)
			}
		})
	}
}
