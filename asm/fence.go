//go:build linux && (amd64 || arm64)

package asm

import "syscall"

// Asymmetric fences. Where one side of a Dekker handshake (each side stores its
// own word, then loads the other's) runs far more often than the other, the
// frequent side does without a fence, and the rare side calls Fence between its
// store and its load, which has every CPU that runs a thread of this process
// execute one.
//
//	frequent: StoreRelease(&mine, 1); atomic.LoadUint32(&theirs)
//	rare:     atomic.StoreUint32(&theirs, 1); Fence(); atomic.LoadUint32(&mine)
//
// At least one of the two sees the other's store. On arm64 the frequent side
// is in order by itself: a load-acquire is not done before a store-release. But
// an emulator may let it pass, so the fence is used there too where there is one.
//
// Source: MEMBARRIER_CMD_PRIVATE_EXPEDITED in membarrier(2).
const (
	membarrierPrivate  = 1 << 3
	membarrierRegister = 1 << 4
)

// InitFences makes Fence ready, and reports whether the handshake works in this
// program: a kernel before Linux 4.14, or a filter of system calls, may not
// have what it takes. The frequent side then needs an exchange in place of the
// store.
func InitFences() bool {
	_, _, errno := syscall.RawSyscall(sysMembarrier, membarrierRegister, 0, 0)
	fenceReady = errno == 0
	return fenceReady || !fenceNeeded
}

var fenceReady bool

// Fence is the rare side's fence. It takes a microsecond or two.
//
//go:nosplit // called where locks are held, which an overflow would keep
func Fence() {
	if fenceReady {
		syscall.RawSyscall(sysMembarrier, membarrierPrivate, 0, 0)
	}
}
