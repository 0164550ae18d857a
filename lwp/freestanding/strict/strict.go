// Package strict makes lwp.Attr.Strict work: imported, for its effect alone,
// it has lwp ask package freestanding. It stands apart so that programs that do
// not want the check do not carry the decoders, and so that freestanding can
// check lwp itself.
package strict

import (
	"errors"
	"unsafe"

	"lwprt/lwp"
	"lwprt/lwp/freestanding"
)

// A ReportError is a Report with faults, as Start returns it.
type ReportError struct{ freestanding.Report }

func (e *ReportError) Error() string { return "lwp: not freestanding: " + e.String() }

func init() {
	lwp.SetChecker(func(fn func(unsafe.Pointer)) error {
		r, err := freestanding.Check(fn)
		switch {
		case err != nil:
			return errors.Join(errors.New("lwp: the function cannot be checked"), err)
		case !r.OK():
			return &ReportError{r}
		}
		return nil
	})
}
