package freestanding

import "testing"

// Test fails t for each of fns that would fault, with the report of Check. An
// Option among fns applies to those behind it.
func Test(t testing.TB, fns ...any) {
	t.Helper()
	var options []Option
	for _, fn := range fns {
		if o, ok := fn.(Option); ok {
			options = append(options, o)
			continue
		}
		if o, ok := fn.(func(*checker)); ok { // WithinCapacity
			options = append(options, o)
			continue
		}
		r, err := Check(fn, options...)
		if err != nil {
			t.Errorf("%T: %v", fn, err)
		} else if !r.OK() {
			t.Errorf("%v", r)
		}
	}
}
