package asm

import "sync/atomic"

const (
	sysMembarrier = 324
	fenceNeeded   = true
)

// StoreRelease stores v after everything before it, as others see it. The
// hardware does so with every store; atomic.StoreUint32 is an XCHG here, five
// nanoseconds. To the race detector it is that, too.
//
//go:nosplit // called where locks are held, which an overflow would keep
func StoreRelease(p *uint32, v uint32) {
	if detector {
		atomic.StoreUint32(p, v)
		return
	}
	*p = v
}

// StoreRelease64 is StoreRelease of a longer word.
//
//go:nosplit // as StoreRelease
func StoreRelease64(p *uint64, v uint64) {
	if detector {
		atomic.StoreUint64(p, v)
		return
	}
	*p = v
}
