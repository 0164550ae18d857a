package asm

// After a switch the return predictor knows the callers of the context that
// switched, and each return to one of another's costs some forty cycles; an
// indirect jump is predicted by what has happened before. So what waits often and
// returns soon afterwards does so by a jump. The price is one mispredicted return
// later, in a caller, also where both contexts have the same callers.

var switchJumpPC, switchReturnPC, returnPC uintptr // in assembly

var (
	switchJumpFn   = funcOf[func(from, to *Context, release *uint32)](&switchJumpPC)
	switchReturnFn = funcOf[func(from, to *Context, release *uint32) bool](&switchReturnPC)
	returnFn       = funcOf[func(int, error) (int, error)](&returnPC)
)

// SwitchJump is Switch for a context that is rarely switched to by one that
// waits in the same function.
//
// Context: thread.
//
//go:nosplit // as Switch
func SwitchJump(from, to *Context, release *uint32) { switchJumpFn(from, to, release) }

// SwitchReturn is Switch for a function that has nothing more to do than to
// return a bool, and has a frame: when somebody switches to from, the function
// may have returned, and its frame is not used any more. The result is the byte
// ResultAt below from.
//
// Context: thread.
//
//go:nosplit // as Switch
func SwitchReturn(from, to *Context, release *uint32) bool { return switchReturnFn(from, to, release) }

// Return returns its arguments; the function that calls it, and has a frame, is
// to do the same.
//
// Context: anywhere.
//
//go:nosplit // what is returned must not be lost to an overflow
func Return(i int, err error) (int, error) { return returnFn(i, err) }
