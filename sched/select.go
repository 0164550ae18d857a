package sched

import (
	"unsafe"
)

// A Case is what a Select can wait for. It is made for one Select.
type Case struct {
	node
	on    unsafe.Pointer // what the case is of, which begins with its queue; nil is never ready
	data  unsafe.Pointer
	size  uintptr
	later uintptr // *Case, whose latch is taken after this one's
}
