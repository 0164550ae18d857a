package futex

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
)

// A RobustList is the head of a list of robust locks, struct
// robust_list_head. Each task can have one. When it ends the kernel goes
// through the list: each lock whose word names the task is marked OwnerDied,
// and one of its waiters is woken.
//
// An entry is a word that holds the address of the next one; the last one
// holds the head's. Bit 0 of an address says that the entry's lock is a PI lock.
type RobustList = asm.RobustList

// SetRobustList makes head the calling task's list; nil takes the list away.
// The head is off the Go heap or kept alive, and stays until the task has ended.
//
// It is for locks of one's own making: a thread that has used a RobustMutex has
// a list already.
//
// Context: thread, or a goroutine that is locked to its thread.
// Errors: ErrForeignList if the list there is that of RobustMutex; *Error with
// ENOSYS.
// Source: set_robust_list(2).
func SetRobustList(head *RobustList) error {
	if list, errno := getRobustList(0); errno == 0 && list != 0 && list == ownList() {
		return ErrForeignList
	}
	if errno := setRobustList(head, unsafe.Sizeof(*head)); errno != 0 {
		return fail(fnRobust, errno)
	}
	return nil
}

// GetRobustList returns the address of a task's list, in that task's address
// space, or 0; tid 0 is the caller.
//
// Context: goroutine or thread.
// Errors: *Error with ESRCH, EPERM (the task is not the caller's to trace),
// ENOSYS.
// Source: get_robust_list(2).
func GetRobustList(tid int) (head uintptr, err error) {
	head, errno := getRobustList(tid)
	if errno != 0 {
		return 0, fail(fnRobust, errno)
	}
	return head, nil
}

func setRobustList(head *RobustList, size uintptr) syscall.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, uintptr(unsafe.Pointer(head)), size, 0)
	return errno
}

func getRobustList(tid int) (uintptr, syscall.Errno) {
	var head, size uintptr
	_, _, errno := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST, uintptr(tid), uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&size)))
	return head, errno
}

// Where the heads of RobustMutex live: a thread's in its TCB. The Go runtime
// registers none for its threads, so a goroutine's gets one here, which stays,
// kept alive by the map, for the next thread with that TID. The threads of a C
// library have one each, with an offset that suits its own locks.
var hosted struct {
	mu    sync.Mutex
	lists map[uint32]*asm.RobustList
	order atomic.Uint32 // tells the race detector that a thread's goroutines come one after the other
}

func hostedList(tid uint32) *asm.RobustList {
	hosted.mu.Lock()
	defer hosted.mu.Unlock()
	list := hosted.lists[tid]
	if list == nil {
		if hosted.lists == nil {
			hosted.lists = map[uint32]*asm.RobustList{}
		}
		list = new(asm.RobustList)
		hosted.lists[tid] = list
	}
	return list
}

// ownList returns the address of the list that RobustMutex has for the caller,
// registered or not.
func ownList() uintptr {
	if t := asm.Current(); t != nil {
		return uintptr(unsafe.Pointer(&t.Robust))
	}
	return uintptr(unsafe.Pointer(hostedList(gettid())))
}

// robustList returns the calling task's list for RobustMutex, registered.
func robustList(tid uint32) (*asm.RobustList, error) {
	t := asm.Current()
	if t != nil {
		if t.Robust.Next != 0 {
			return &t.Robust, nil
		}
		return enlist(&t.Robust)
	}
	hosted.order.Load()
	return enlist(hostedList(tid))
}

// leaveList is called when the caller has done with its list.
func leaveList() {
	if asm.Current() == nil {
		hosted.order.Add(1)
	}
}

// enlist registers list, unless it is the task's already: what it holds can be
// from a thread that had the same TID.
func enlist(list *asm.RobustList) (*asm.RobustList, error) {
	switch head, errno := getRobustList(0); {
	case errno != 0:
		return nil, fail(fnRobust, errno)
	case head == uintptr(unsafe.Pointer(list)):
		return list, nil
	case head != 0:
		return nil, ErrForeignList
	}
	*list = asm.RobustList{Next: uintptr(unsafe.Pointer(list)), Offset: robustOffset}
	if errno := setRobustList(list, unsafe.Sizeof(*list)); errno != 0 {
		list.Next = 0
		return nil, fail(fnRobust, errno)
	}
	return list, nil
}
