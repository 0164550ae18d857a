package lwp_test

import (
	"testing"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

func TestStrictNeedsAChecker(t *testing.T) {
	lwptest.SkipRace(t)
	if _, err := lwp.StartAttr(func(*int) {}, new(int), lwp.Attr{Strict: true}); err != lwp.ErrNoChecker {
		t.Errorf("got %v, want ErrNoChecker", err)
	}
}
