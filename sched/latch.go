package sched

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// A latch guards the state of a primitive for some instructions. It is not
// fair, and nothing waits while it holds one. The zero latch is open.
//
// It is taken by compare-and-swap and given back by a plain store, so that a
// switch can do that (asm.Switch): a fiber that waits is off its stack before
// anybody can find it in a queue, and no more than the latch has to be agreed
// on with those who wake it. With a mark for sleepers, as in futex.Mutex, who
// gives it back would have to look, by an exchange, and again after a switch.
// The price is paid where a holder has lost its CPU, or is a goroutine that was
// preempted: who wants the latch then sleeps for fifty microseconds, and looks.
//
// The store is the last access to the latch's memory; whoever takes it next may
// free it. A fiber that holds a latch must not fault: what comes between lock
// and unlock is nosplit.
type latch uint32

const (
	latchSpins = 100 // PAUSEs: microseconds, a hundred times what a latch is held for
	latchSleep = 50 * time.Microsecond
)

// lock takes l.
//
//go:nosplit // see latch
func (l *latch) lock() {
	if !atomic.CompareAndSwapUint32((*uint32)(l), 0, 1) {
		l.lockSlow()
	}
}

//go:nosplit // see latch
func (l *latch) lockSlow() { outOf(self(), lockFn, unsafe.Pointer(l)) }

// unlock gives l back.
//
//go:nosplit // see latch
func (l *latch) unlock() { asm.StoreRelease((*uint32)(l), 0) }

// try is lock that does not wait.
func (l *latch) try() bool { return atomic.CompareAndSwapUint32((*uint32)(l), 0, 1) }

var lockFn = func(p unsafe.Pointer) {
	l := (*uint32)(p)
	for i := 0; ; i++ {
		if atomic.LoadUint32(l) == 0 && atomic.CompareAndSwapUint32(l, 0, 1) {
			return
		}
		if i < latchSpins {
			asm.Relax()
			continue
		}
		latchPause()
	}
}

// latchPause lets who holds a latch get on, which can be a goroutine.
func latchPause() {
	if asm.Current() == nil {
		time.Sleep(latchSleep)
		return
	}
	ts := unix.Timespec{Nsec: int64(latchSleep)}
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// needRoom ends a thread whose stack has no room for what follows, before it
// has a latch, a place in a queue, or somebody to resume: what outOf calls has
// only its stack. A fiber has its worker's.
//
//go:nosplit // see latch
func (w *worker) needRoom() {
	if w == nil {
		asm.Headroom()
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
