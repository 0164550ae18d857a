package asm

var yieldPC uintptr // in assembly

var yieldFn = funcOf[func()](&yieldPC)

// Yield puts the running Runnable at the end of its Runner's ring and goes on with
// the first. If there is anything else to be done, it is what SetYield was given.
//
// The whole of it is in assembly: 27 cycles became 16 so.
//
// Context: anywhere, once SetYield was called.
func Yield() { yieldFn() }
