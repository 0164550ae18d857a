package asm

import "sync/atomic"

const (
	sysMembarrier = 283
	fenceNeeded   = false
)

// StoreRelease stores v after everything before it, as others see it (STLR).
//
//go:nosplit // called where locks are held, which an overflow would keep
func StoreRelease(p *uint32, v uint32) { atomic.StoreUint32(p, v) }

// StoreRelease64 is StoreRelease of a longer word.
//
//go:nosplit // as StoreRelease
func StoreRelease64(p *uint64, v uint64) { atomic.StoreUint64(p, v) }
