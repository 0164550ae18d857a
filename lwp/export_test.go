package lwp

import (
	"time"
	"unsafe"

	"lwprt/asm"
)

// What tests of the outside may know of the inside.

const RecordSize = unsafe.Sizeof(record{})

// SetForeignRuntime has the check of the runtime, if it has not been made yet, find that
// the runtime is not as it should be.
func SetForeignRuntime(why string) {
	checkRuntime = func() (asm.Layout, string) { return asm.Layout{}, why }
}

// Forge returns a handle that nobody gave out.
func Forge(index int, generation uint64) Thread {
	return Thread{generation<<indexBits | uint64(index)}
}

// Parts returns what a handle consists of.
func (t Thread) Parts() (index int, generation uint64) {
	return int(t.index()), t.id >> indexBits
}

// Room returns the number of records there are.
func Room() int { return int(table.count.Load()) }

// CachedStacks returns the bytes of address space in the stack cache.
func CachedStacks() int {
	cache.mu.Lock()
	defer cache.mu.Unlock()
	return int(cache.bytes)
}

// References returns how many references t's record has: the thread's own, and
// one for each call that is about it.
func (t Thread) References() int {
	return int(recordAt(t.index()).word.Load() & indexMask)
}

// Records returns how many records are in use, runs on pools included.
func Records() (n int) {
	for i := range table.count.Load() {
		if recordAt(i+1).word.Load()&indexMask != 0 {
			n++
		}
	}
	return n
}

// Processes returns how many records of processes are in use.
func Processes() (n int) {
	for i := range procs.count {
		if procAt(i+1).gen%2 == 1 {
			n++
		}
	}
	return n
}

// CollectProcesses drops the records of children that somebody else has collected.
func CollectProcesses() {
	for i := range procs.count {
		if r := procAt(i + 1); r.gen%2 == 1 {
			Process{r.gen<<indexBits | uint64(i+1)}.WaitWith(WExited | WAll | WNoHang)
		}
	}
}

// SetGatherPatience sets how long AllThreadsSyscall waits for threads, and
// returns what it was.
func SetGatherPatience(d time.Duration) (old time.Duration) {
	old, gatherPatience = gatherPatience, d
	return old
}

// StartUnchecked is StartProcess that leaves it to the kernel to refuse.
func StartUnchecked(fn func(*int) int, arg *int, attr ProcessAttr) (Process, error) {
	return launch(current(), *(*func(unsafe.Pointer) int)(unsafe.Pointer(&fn)), unsafe.Pointer(arg), &attr, 0)
}
