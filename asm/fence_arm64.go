package asm

import "sync/atomic"

// A load-acquire is not done before a store-release here, so the plain atomics
// are all the fence that either side needs.
const (
	sysMembarrier = 283
	asymmetric    = false
)

// StoreRelease stores v after everything before it, as others see it (STLR).
//
//go:nosplit // called where locks are held, which an overflow would keep
func StoreRelease(p *uint32, v uint32) { atomic.StoreUint32(p, v) }

// StoreRelease64 is StoreRelease of a longer word.
//
//go:nosplit // as StoreRelease
func StoreRelease64(p *uint64, v uint64) { atomic.StoreUint64(p, v) }

// Announce stores v, as the frequent side of an asymmetric fence.
//
//go:nosplit // as StoreRelease
func Announce(p *uint32, v uint32) { atomic.StoreUint32(p, v) }
