//go:build linux && (amd64 || arm64)

package asm

import "unsafe"

// What package sched does some fifty million times a second has a short way in
// assembly, on amd64: to go on with the next fiber, to spawn one, to run one that
// is ready and wait for it, and the end of one that is waited for. Where it is more
// than that, the short way goes to what SetPaths was given, in Go: to what does the
// same in full, having changed nothing, or to what is left to do.

// A Runner is what assembly knows of a worker of package sched, whose address
// is in TCB.Worker; see there what it is for.
type Runner struct {
	Current uintptr // *Runnable that runs
	Top     uintptr // *Runnable, the newest; Loop if there is none; 0 when turning
	Inside  uint32
	Tick    uint32
	Loop    uintptr // *Runnable
	Link    uint32  // of Loop
	Length  uint32  // of the ring
	Base    uintptr // what links are relative to, in units of 1<<LinkShift bytes
	Links   uint32  // how many links there are of fibers, from FirstLink on
	Turning uint32
	Free    uintptr // *Runnable, linked by Next
	_       uintptr
	Frees   uint32 // how many
	_       uint32
	Shared  uintptr // *Shared
	Batch   uint32
	_       uint32
	Spawns  uint64
	Ends    uint64
	_       [RunnerClaimed - 112]byte
	Claimed uint32
}

// RunnerClaimed is the offset of Claimed, which is in another cache line.
const RunnerClaimed = 256

// Shared is what assembly knows of a scheduler.
type Shared struct {
	Hungry, _, Closing uint32
}

// A Runnable is what assembly knows of a fiber.
type Runnable struct {
	Context
	Serial uint64
	Word   uint64
	Next   uintptr // *Runnable
	Prev   uint32  // link
	Worker uint32  // link
	State  uint32
	Flags  uint32
}

// lowMagic is enough of Magic: no pointer, being no multiple of 4, and no small integer.
const lowMagic = Magic & 0xffffffff

var _ = [1]struct{}{}[lowMagic%4-2]

// Constants of package sched.
const (
	LinkShift = 7
	FirstLink = 8
	WordShift = 37
	StackTop  = 80 // how far below a Runnable its stack ends
	Ready     = 1  // states
	Joining   = 4
	Pinned    = 1 << 0 // flags
	Inherits  = 1 << 2
)

// Paths are what the short ways go to where they are too short.
type Paths struct {
	Yield   *func()
	Spawn   *func(fn, arg uintptr) (serial uint64, link uint32, err error)
	Spawned *func(serial uint64, link uint32) (uint64, uint32, error) // the end of Spawn while Hungry
	Join    *func(serial uint64, link uint32) error
	Joined  *func() error                                       // the end of Join with Inherits
	End     *func(worker uintptr) (next *Context, left *uint32) // as SetEnded's
}

// What Paths has, as func values.
//
//lint:ignore U1000 read by assembly
var slowYield, slowSpawn, slowSpawned, slowJoin, slowJoined uintptr

// SetPaths sets, once, what the short ways lead to.
func SetPaths(p Paths) {
	slowYield = *(*uintptr)(unsafe.Pointer(p.Yield))
	slowSpawn = *(*uintptr)(unsafe.Pointer(p.Spawn))
	slowSpawned = *(*uintptr)(unsafe.Pointer(p.Spawned))
	slowJoin = *(*uintptr)(unsafe.Pointer(p.Join))
	slowJoined = *(*uintptr)(unsafe.Pointer(p.Joined))
	SetEnded(p.End)
	setEnd()
}
