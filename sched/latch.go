package sched

import (
	"sync/atomic"
	"unsafe"

	"lwprt/asm"
	"lwprt/futex"
)

// A latch guards the state of a primitive for some instructions. It is not
// fair, and nothing that waits is done under it. The zero latch is open.
//
//	word   state                  leaves it by
//	0      open                   lock: 1, or 2 by one who has slept
//	1      held                   unlock: 0; who is about to sleep: 2
//	2      held, some may sleep   unlock: 0, wakes one
//
// Who has slept takes it with 2: others may sleep behind it. The exchange of
// unlock is the last access to the latch's memory but for the address of the
// wake; whoever takes it next may free it.
//
// A fiber that holds a latch must not fault: what comes between lock and unlock
// is nosplit, and those that might have to wait go to the worker's stack for
// it. Where a goroutine that holds one is preempted, fibers that want it put
// their workers to sleep.
type latch uint32

const (
	latchHeld     = 1
	latchSleepers = 2

	// latchSpins is how many PAUSE a latch is watched for: a microsecond or
	// two, several times what it is held for.
	latchSpins = 50
)

// lock takes l. me is the worker that the caller runs on, or nil.
//
//go:nosplit // see latch
func (l *latch) lock(me *worker) {
	if !atomic.CompareAndSwapUint32((*uint32)(l), 0, latchHeld) {
		outOf(me, lockFn, unsafe.Pointer(l))
	}
}

// unlock gives l back.
//
//go:nosplit // see latch
func (l *latch) unlock(me *worker) {
	if atomic.SwapUint32((*uint32)(l), 0) == latchSleepers {
		outOf(me, unlockFn, unsafe.Pointer(l))
	}
}

// outOf calls fn(arg) where there is room: on the stack of worker me, or here
// if me is nil.
//
//go:nosplit // see latch
func outOf(me *worker, fn func(unsafe.Pointer), p unsafe.Pointer) {
	arg := noescape(p) // another variable: the compiler does not tell one's values apart
	if me != nil {
		me.call(fn, arg)
	} else {
		fn(arg)
	}
}

var (
	lockFn   = func(l unsafe.Pointer) { (*latch)(l).lockSlow() }
	unlockFn = func(l unsafe.Pointer) { futex.Wake((*uint32)(l), 1) }
)

func (l *latch) lockSlow() {
	word := (*uint32)(l)
	for range latchSpins {
		if atomic.LoadUint32(word) == 0 && atomic.CompareAndSwapUint32(word, 0, latchHeld) {
			return
		}
		asm.Relax()
	}
	for atomic.SwapUint32(word, latchSleepers) != 0 {
		futex.Wait(word, latchSleepers)
	}
}
