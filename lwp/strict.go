package lwp

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
)

// ErrNoChecker says that Attr.Strict was set in a program that does not import
// lwprt/lwp/freestanding/strict.
var ErrNoChecker = errors.New("lwp: Attr.Strict needs a program that imports lwprt/lwp/freestanding/strict")

// A Checker says why a function is not freestanding, or nil.
type Checker func(fn func(unsafe.Pointer)) error

var (
	checker atomic.Pointer[Checker]
	checked sync.Map // code address of a function to what the checker said, an error or nil
)

// SetChecker sets what Attr.Strict asks. Package freestanding/strict calls it
// when it is imported.
//
// Context: goroutine.
func SetChecker(c Checker) { checker.Store(&c) }

// strict asks the checker about fn, once for each function.
func strict(fn func(unsafe.Pointer)) error {
	if asm.Current() != nil {
		return ErrHosted
	}
	c := checker.Load()
	if c == nil {
		return ErrNoChecker
	}
	code := **(**uintptr)(unsafe.Pointer(&fn))
	verdict, ok := checked.Load(code)
	if !ok {
		verdict, _ = checked.LoadOrStore(code, (*c)(fn))
	}
	err, _ := verdict.(error)
	return err
}
