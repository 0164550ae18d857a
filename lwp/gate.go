package lwp

import (
	"unsafe"

	"lwprt/asm"
)

// A Gate is a Parker for a goroutine that waits in a channel operation, so that it
// can wait for a context, or anything else, at the same time: for the signal one
// value comes on C. It holds no thread of Go's meanwhile, and whoever signals need
// not be a goroutine. What it signals is Parker, off the Go heap, by whatever
// address or handle.
type Gate struct {
	*Parker
	C <-chan struct{}
}

// NewGate returns a Gate, which must be freed.
//
// Context: goroutine.
// Errors: ErrHosted, ErrMemory.
func NewGate() (g Gate, err error) {
	if asm.Current() != nil {
		return g, ErrHosted
	}
	if g.Parker = (*Parker)(newBlock(unsafe.Sizeof(Parker{}))); g.Parker == nil {
		return g, ErrMemory
	}
	g.C = g.initGate()
	return g, nil
}

// Free gives g back: the value has been received, or nobody will signal.
func (g Gate) Free() {
	g.endGate()
	freeBlock(unsafe.Pointer(g.Parker), unsafe.Sizeof(Parker{}))
}
