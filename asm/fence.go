//go:build linux && (amd64 || arm64)

package asm

import "syscall"

// Asymmetric fences. Where one side of a Dekker handshake (each side stores
// its own word, then loads the other's) runs far more often than the other,
// the frequent side uses Announce in place of a fence, and the rare side calls
// Fence between its store and its load, which has every CPU that runs a thread
// of this process execute one.
//
//	frequent: Announce(&mine, 1); atomic.LoadUint32(&theirs)
//	rare:     atomic.StoreUint32(&theirs, 1); Fence(); atomic.LoadUint32(&mine)
//
// At least one of the two sees the other's store.
//
// Source: MEMBARRIER_CMD_PRIVATE_EXPEDITED in membarrier(2).
const (
	membarrierPrivate  = 1 << 3
	membarrierRegister = 1 << 4
)

// InitFences makes Announce cheap where the kernel offers what Fence needs, and
// reports whether it does. It is called before the first use of both.
func InitFences() bool {
	if !asymmetric {
		return false
	}
	_, _, errno := syscall.RawSyscall(sysMembarrier, membarrierRegister, 0, 0)
	light = errno == 0
	return light
}

// light says that Announce is a plain store and Fence does the work of both.
var light bool

// Fence is the rare side's fence. It takes a microsecond or two.
//
//go:nosplit // called where locks are held, which an overflow would keep
func Fence() {
	if light {
		syscall.RawSyscall(sysMembarrier, membarrierPrivate, 0, 0)
	}
}
