package sched

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/tls"
)

// Fiber-local storage: the keys of package tls, with a value for each fiber.
// A fiber that sets one has a block for them, off the Go heap, which another has
// after it: the process keeps as many as there have been at once.

// locals is the storage of a fiber, or in the list of free ones.
type locals struct {
	tls.Storage
	next  uintptr
	fault uintptr // *lwp.Fault that the fiber has died of, while its destructors run
}

var freeLocals struct {
	mu   futex.Mutex
	list uintptr
}

// Get returns the running fiber's value of k and whether it is set.
//
// Context: fiber; never set elsewhere.
func Get[T any](k tls.Key[T]) (v T, ok bool) {
	if p := Ptr(k); p != nil {
		return *p, true
	}
	return v, false
}

// Ptr returns the address of the running fiber's value of k, or nil where it is
// not set. It is good until the fiber ends.
//
// Context: fiber.
func Ptr[T any](k tls.Key[T]) *T {
	s := storage(false)
	if s == nil {
		return nil
	}
	return k.In(s)
}

// Set sets the running fiber's value of k. When the fiber ends, destructors run
// on it as they do on a thread, the key set last first.
//
// Context: fiber.
// Errors: ErrNotFiber; tls.ErrKey; *Error with ENOMEM.
func Set[T any](k tls.Key[T], v T) error {
	w := self()
	if w == nil || w.idle() {
		return ErrNotFiber
	}
	s := storage(true)
	if s == nil {
		return errNoMemory
	}
	return k.SetIn(s, v)
}

// storage returns the running fiber's, or nil where it has none, or cannot have
// one that is wanted.
func storage(wanted bool) *tls.Storage {
	w := self()
	if w == nil || w.idle() {
		return nil
	}
	f := w.running()
	if f.flags&hasLocals == 0 {
		if !wanted {
			return nil
		}
		w.call(newLocalsFn, unsafe.Pointer(f))
		if f.flags&hasLocals == 0 {
			return nil
		}
	}
	return &(*locals)(pointer(f.local)).Storage
}

const localsBatch = 64 << 10

var newLocalsFn = func(p unsafe.Pointer) {
	f := (*fiber)(p)
	freeLocals.mu.Lock()
	if freeLocals.list == 0 {
		addr, _, errno := unix.RawSyscall6(unix.SYS_MMAP, 0, localsBatch, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
		if errno != 0 {
			freeLocals.mu.Unlock()
			return
		}
		for at := addr; at+unsafe.Sizeof(locals{}) <= addr+localsBatch; at += unsafe.Sizeof(locals{}) {
			(*locals)(pointer(at)).next, freeLocals.list = freeLocals.list, at
		}
	}
	f.local = freeLocals.list
	freeLocals.list = (*locals)(pointer(f.local)).next
	freeLocals.mu.Unlock()
	f.flags |= hasLocals
}

// endLocals runs the destructors of f, the running fiber. One of them may fault
// or exit, which ends f again, and the rest run then.
func (f *fiber) endLocals() {
	l := (*locals)(pointer(f.local))
	if f.flags&hasFault != 0 {
		// A Join in a destructor would put another in its place. The first counts.
		f.flags &^= hasFault
		if l.fault == 0 {
			l.fault = f.fault
		} else {
			self().call(dropFn, pointer(f.fault))
		}
	}
	l.Storage.RunDestructors()
	l.Storage.Reset()
	if f.flags&(hasKept|hasFault) != 0 { // from such a Join
		self().call(dropFn, pointer(f.fault))
		f.flags &^= hasKept | hasFault
	}
	if l.fault != 0 {
		f.fault, l.fault = l.fault, 0
		f.flags |= hasFault
	}
	f.flags &^= hasLocals
	self().call(freeLocalsFn, unsafe.Pointer(l))
}

var freeLocalsFn = func(p unsafe.Pointer) {
	freeLocals.mu.Lock()
	(*locals)(p).next, freeLocals.list = freeLocals.list, uintptr(p)
	freeLocals.mu.Unlock()
}
