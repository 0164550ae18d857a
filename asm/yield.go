//go:build linux && (amd64 || arm64)

package asm

import "unsafe"

// A Runner is what assembly knows of a worker of package sched, whose address
// is in TCB.Worker; see there what it is for.
type Runner struct {
	Current uintptr // *Runnable that runs
	Top     uintptr // *Runnable, the newest; Loop if there is none
	Loop    uintptr // *Runnable, both ends of the ring
	Base    uintptr // what links are relative to, in units of 1<<LinkShift bytes
	Link    uint32  // of Loop
	_       uint32
	Inside  uint32 // and Tick are stored together
	Tick    uint32
	_       [RunnerClaimed - 48]byte
	Claimed uint32
}

// RunnerClaimed is the offset of Claimed, which is in another cache line.
const RunnerClaimed = 248

// A Runnable is what assembly knows of a fiber.
type Runnable struct {
	Context
	_          [3]uint64
	Next, Prev uint32 // links
	State      uint32
	Flags      uint32
}

const (
	LinkShift = 7
	Stays     = 1<<0 | 1<<1 // flags of what Yield does not put into the ring
)

// slowYield is a func() value.
//
//lint:ignore U1000 read by assembly
var slowYield uintptr

// SetYield sets, once, what Yield is where it is more than a turn of the ring.
func SetYield(fn *func()) { slowYield = *(*uintptr)(unsafe.Pointer(fn)) }
