package asm

import "unsafe"

var yieldPC, spawnPC, joinPC, endPC uintptr // in assembly

// endingPC is where a context goes at its end.
//
//lint:ignore U1000 read by assembly
var endingPC uintptr

// setEnd has contexts end the short way.
func setEnd() { endingPC = endPC }

var (
	yieldFn = funcOf[func()](&yieldPC)
	spawnFn = funcOf[func(fn, arg uintptr) (serial uint64, link uint32, err error)](&spawnPC)
	joinFn  = funcOf[func(serial uint64, link uint32) error](&joinPC)
)

// Yield puts the running Runnable at the end of its Runner's ring and goes on with
// the first.
//
// Context: anywhere, once SetPaths was called.
func Yield() { yieldFn() }

// Spawn returns a function that makes a Runnable which runs fn(arg), the newest of
// the caller's Runner, with results as those of Paths.Spawn; H is a structure of
// the first two.
//
// Context: as Yield.
func Spawn[H any]() func(fn, arg uintptr) (H, error) {
	return *(*func(fn, arg uintptr) (H, error))(unsafe.Pointer(&spawnFn))
}

// Join returns a function that waits for the end of the Runnable which H names, as
// Paths.Join does, and runs it, if it is in the caller's queue.
//
// Context: as Yield.
func Join[H any]() func(H) error { return *(*func(H) error)(unsafe.Pointer(&joinFn)) }
